//! Answers from batches are those that single requests get.

use serde_json::json;

use crate::client::Client;
use crate::protocol::Seeded;
use crate::running::{Folder, Server, USERS, item, rank};

const CLIENTS: u64 = 8;
/// Of each client. Unoptimised the service takes several times as long for each.
const REQUESTS: u64 = if cfg!(debug_assertions) { 400 } else { 1000 };

/// The requests of one client: its own users' events and ranks, and ranks of users that nobody changes, or knows.
fn requests(client: u64) -> Vec<(&'static str, String)> {
    let mut random = Seeded::new(client + 1);
    let mut below = |end: u64| random.below(end as usize) as u64;
    let request = |index: u64| {
        let own = 1000 * (client + 1) + below(5);
        if below(5) == 0 {
            let events: Vec<_> = (0..1 + below(3))
                .map(|_| json!({ "user": own, "item": item(below(200)), "time": index }))
                .collect();
            return ("/events", json!(events).to_string());
        }
        let user = match below(4) {
            0 | 1 => own,
            2 => 1 + below(USERS),
            _ => 5_000_000 + below(9),
        };
        let candidates = 1 + below(30);
        ("/rank", rank(user, (0..candidates).map(|_| item(below(200)))))
    };
    (0..REQUESTS).map(request).collect()
}

/// What a client is answered, one request after the other.
fn answered(client: &mut Client, requests: &[(&'static str, String)]) -> Vec<String> {
    let ask = |(path, body): &(&'static str, String)| {
        let answer = client.post(path, body).unwrap();
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.body
    };
    requests.iter().map(ask).collect()
}

/// Eight clients at a time, whose requests are batched, with evictions; then the same requests one at a time, none in a batch with
/// another. Scores are compared as text, which is different for different bits.
#[test]
fn answers_do_not_depend_on_batches() {
    let folder = Folder::new("batches");
    let all: Vec<_> = (0..CLIENTS).map(requests).collect();
    let together = {
        let slots = ["--slots", "70", "--batch", "64", "--save-after", "100"];
        let server = Server::start(&folder.path("together.redb"), &slots);
        let together: Vec<Vec<String>> = std::thread::scope(|threads| {
            let server = &server;
            let ask = |requests: &'_ Vec<_>| {
                let requests = requests.clone();
                threads.spawn(move || answered(&mut server.client(), &requests))
            };
            let running: Vec<_> = all.iter().map(ask).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let ranks = all.iter().flatten().filter(|request| request.0 == "/rank").count() as f64;
        let batches = server.metric("service_rank_batch_requests_count");
        assert!(batches < 0.9 * ranks, "{batches} batches of {ranks} requests");
        assert_eq!(server.metric("service_rank_batch_requests_sum"), ranks);
        assert!(server.metric("service_evictions_total") > 0.0);
        assert!(server.metric("service_snapshots_written_total") > 0.0);
        assert!(server.metric("service_users") <= 70.0);
        together
    };
    let single = ["--slots", "200", "--batch", "1", "--budget", "0", "--save-after", "3600000"];
    let server = Server::start(&folder.path("single.redb"), &single);
    let mut client = server.client();
    for (number, (requests, together)) in all.iter().zip(&together).enumerate() {
        for (index, (single, together)) in answered(&mut client, requests).iter().zip(together).enumerate() {
            assert_eq!(single, together, "client {number}, request {index}: {:?}", requests[index]);
        }
    }
    let known = |body: &str| body.contains("\"score\":") && !body.contains("\"score\":0.0}");
    assert!(together.iter().flatten().filter(|body| known(body)).count() > 400);
}
