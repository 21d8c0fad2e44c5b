//! Requests that are wrong, too large, too slow or too many: each is answered in words, and the service goes on.

use std::sync::Barrier;

use crate::client::Answer;
use crate::running::{Folder, ITEMS, Server, answers, item, rank};

/// An answer's words.
fn words(answer: &Answer) -> String {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    body["error"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[test]
fn wrong_requests_are_answered_in_words() {
    let folder = Folder::new("wrong");
    let limits = ["--candidates", "50", "--max-events", "20", "--body", "4096"];
    let server = Server::start(&folder.path("store.redb"), &limits);
    let before = answers_of_few(&server);
    let many = rank(1, (0..51).map(item));
    let events = format!("[{}]", vec![r#"{"user":1,"item":1000}"#; 21].join(","));
    let (deep, long) = ("[".repeat(4000), " ".repeat(9000));
    let event = |fields: &str| format!(r#"[{{"user":1,"item":1000,"time":5}},{{{fields}}}]"#);
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("/rank", "".into(), 400, "EOF"),
        ("/rank", "{".into(), 400, "EOF"),
        ("/rank", "\u{0}\u{1}".into(), 400, "expected JSON"),
        ("/rank", deep, 400, "expected JSON"),
        ("/rank", "[]".into(), 400, "invalid length 0"),
        ("/rank", r#"{"user":1}"#.into(), 400, "missing field `candidates`"),
        ("/rank", r#"{"user":1,"candidates":[1000],"tops":1}"#.into(), 400, "unknown field `tops`"),
        ("/rank", r#"{"user":1,"user":2,"candidates":[1000]}"#.into(), 400, "duplicate field `user`"),
        ("/rank", r#"{"user":-1,"candidates":[1000]}"#.into(), 400, "integer `-1`"),
        ("/rank", r#"{"user":1.5,"candidates":[1000]}"#.into(), 400, "floating point `1.5`"),
        ("/rank", r#"{"user":1e999,"candidates":[1000]}"#.into(), 400, "number out of range"),
        ("/rank", r#"{"user":18446744073709551616,"candidates":[1000]}"#.into(), 400, "expected u64"),
        ("/rank", r#"{"user":NaN,"candidates":[1000]}"#.into(), 400, "expected value"),
        ("/rank", r#"{"user":"ann","candidates":[1000]}"#.into(), 400, "string \"ann\""),
        ("/rank", r#"{"user":1,"candidates":[1000,1001]}"#.into(), 400, "there is no item 1001"),
        ("/rank", r#"{"user":1,"candidates":[1000],"top":0}"#.into(), 400, "a top of at least 1, got 0"),
        ("/rank", rank(1, []), 400, "1 to 50 candidates, got 0"),
        ("/rank", many, 400, "1 to 50 candidates, got 51"),
        ("/rank", long.clone(), 413, "up to 4096 bytes"),
        ("/events", long, 413, "up to 4096 bytes"),
        ("/events", "[]".into(), 400, "1 to 20 events, got 0"),
        ("/events", events, 400, "1 to 20 events, got 21"),
        ("/events", r#"{"user":1,"item":1000}"#.into(), 400, "expected a sequence"),
        ("/events", event(r#""user":1,"item":7"#), 400, "there is no item 7"),
        ("/events", event(r#""user":1,"item":1000,"time":253402300800"#), 400, "a time of up to"),
        ("/events", event(r#""user":1,"item":1000,"time":1e300"#), 400, "floating point"),
        ("/nothing", "".into(), 404, "nothing at this path"),
        ("/health", "".into(), 405, "POST is not for this path"),
    ];
    for (path, body, status, expected) in &cases {
        let answer = server.post(path, body);
        let words = words(&answer);
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.status, *status, "{path} {shown}: {words}");
        assert!(words.contains(expected), "{path} {shown}: {words:?} should contain {expected:?}");
    }
    for path in ["/users/ann", "/users/-1", "/users/%FF", "/users/1/2", "/rank"] {
        let answer = server.client().get(path).unwrap();
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        words(&answer);
    }
    // Of a request with one wrong event nothing is written.
    assert_eq!(answers_of_few(&server), before);
    assert_eq!(server.metric("service_events_total"), 0.0);
    // None of them is an answer of 500 or a panic.
    assert!(!server.client().get("/metrics").unwrap().body.contains("status=\"500\""));
    assert_eq!(server.client().get("/health").unwrap().status, 200);
    server.stop();
}

/// Users that are known, and one that is not, whose scores are 0 in the order of the candidates.
fn answers_of_few(server: &Server) -> Vec<String> {
    let mut client = server.client();
    let mut ask = |user| client.post("/rank", &rank(user, (0..50).map(item))).unwrap().body;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&ask(77_777)).unwrap()["ranked"][1],
        serde_json::json!({ "item": item(1), "score": 0.0 })
    );
    [1, 2, 3].map(ask).to_vec()
}

#[test]
fn slow_clients_do_not_hold_the_service() {
    let folder = Folder::new("slow");
    let server = Server::start(&folder.path("store.redb"), &["--timeout", "1500", "--connections", "4"]);
    let mut slow = Vec::new();
    for start in [
        "",
        "POST /ra",
        "POST /rank HTTP/1.1\r\nhost: x\r\n",
        "POST /rank HTTP/1.1\r\nhost: x\r\ncontent-length: 90\r\n\r\n{\"user\":",
    ] {
        let mut client = server.client();
        client.send(start.as_bytes()).unwrap();
        slow.push(client);
    }
    // All connections are taken by now; this one waits until the slow ones have had their time.
    let answer = server.post("/rank", &rank(1, [item(0)]));
    assert_eq!(answer.status, 200, "{answer:?}");
    // The head came, so there is an answer; without a head the connection is closed.
    let answer = slow.pop().map(|mut client| client.answer().unwrap()).unwrap();
    assert_eq!((answer.status, &words(&answer)[..]), (408, "the body did not come in time"));
    assert!(slow.iter_mut().all(|client| client.answer().is_err()));
    // No HTTP at all.
    let mut client = server.client();
    client.send(b"\x16\x03\x01 what is this\r\n\r\n").unwrap();
    assert_eq!(client.answer().unwrap().status, 400);
    server.stop();
}

#[test]
fn beyond_the_queue_is_503_and_what_waits_is_answered() {
    const CLIENTS: usize = 20;
    let folder = Folder::new("queue");
    let server = Server::start(&folder.path("store.redb"), &["--queue", "4", "--budget", "700"]);
    let expected = answers(&server, [1]).remove(0);
    let barrier = Barrier::new(CLIENTS);
    let all: Vec<Answer> = std::thread::scope(|threads| {
        let ask = || {
            let mut client = server.client();
            barrier.wait();
            client.post("/rank", &rank(1, (0..ITEMS).map(item))).unwrap()
        };
        let running: Vec<_> = (0..CLIENTS).map(|_| threads.spawn(ask)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (answered, refused): (Vec<&Answer>, Vec<&Answer>) =
        all.iter().partition(|answer| answer.status == 200);
    assert!(answered.len() >= 4 && refused.len() >= 4, "{} were answered", answered.len());
    assert!(answered.iter().all(|answer| answer.body == expected));
    for answer in refused {
        assert_eq!((answer.status, &words(answer)[..]), (503, "too many requests wait"));
        assert!(answer.head.iter().any(|line| line == "retry-after: 1"), "{answer:?}");
    }
    // Later there are places again.
    assert_eq!(answers(&server, [1]), [expected]);
    assert_eq!(server.metric("service_queue_length{queue=\"rank\"}"), 0.0);
    server.stop();
}
