//! The load generator: requests at a fixed rate whether answers come or not, as independent users ask. A latency counts from when its
//! request was due, so that a slow answer is not hidden by the requests that waited for it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::client::{Answer, Client};
use crate::config::Load;
use crate::plot::{Labels, Series, draw};
use crate::protocol::Seeded;
use crate::report::{count, figures, table};

/// What one step measured.
struct Step {
    rate: usize,
    /// Answers with status 200 a second.
    achieved: f64,
    /// In milliseconds, ascending.
    latencies: Vec<f64>,
    busy: usize,
    failed: usize,
}

impl Step {
    /// The latency that such a share of answers had at most.
    fn quantile(&self, share: f64) -> f64 {
        let index = (share * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// What one client asks for.
struct Requests {
    ranks: Vec<String>,
    events: Vec<String>,
}

/// Runs every step; prints the table, and draws the plot.
pub(crate) fn run(options: &Load) -> Outcome<()> {
    let mut client = Client::connect(options.address).map_err(|e| format!("{}: {e}", options.address))?;
    let health: Value = serde_json::from_str(&asked(&mut client, "/health")?.body)?;
    let requests = requests(&mut client, options.candidates)?;
    let what = format!(
        "{} clients on one machine, {} candidates a request; {}",
        options.clients,
        options.candidates,
        health["device"].as_str().unwrap_or_default()
    );
    println!("{what}\n");
    let mut steps = Vec::new();
    for &rate in &options.rates {
        steps.push(step(options, rate, &requests)?);
    }
    println!("{}", text(&steps));
    if let Some(folder) = options.plot.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let curve = |name: &str, share: f64| Series {
        name: name.into(),
        offline: false,
        points: steps
            .iter()
            .map(|step| (step.achieved.round() as usize, step.quantile(share)))
            .filter(|&(rate, latency)| rate > 0 && latency.is_finite())
            .collect(),
    };
    let labels = Labels {
        title: "Latency of POST /rank",
        subtitles: [&what, "Latencies count from when a request was due."],
        x: "answers a second",
        y: "latency, ms",
    };
    draw(&options.plot, &labels, &[curve("p50", 0.5), curve("p90", 0.9), curve("p99", 0.99)])?;
    println!("\nPlot: {}", options.plot.display());
    Ok(())
}

fn text(steps: &[Step]) -> String {
    let titles = ["asked/s", "answered/s", "p50 ms", "p90 ms", "p99 ms", "503", "failed"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for step in steps {
        let latencies = [0.5, 0.9, 0.99].map(|share| figures(step.quantile(share)));
        let [p50, p90, p99] = latencies;
        rows.push(vec![
            count(step.rate),
            count(step.achieved.round() as usize),
            p50,
            p90,
            p99,
            count(step.busy),
            count(step.failed),
        ]);
    }
    table(&rows)
}

fn asked(client: &mut Client, path: &str) -> Outcome<Answer> {
    let answer = client.get(path)?;
    if answer.status == 200 { Ok(answer) } else { Err(format!("{path}: {answer:?}").into()) }
}

/// Requests for users of the service: their candidates are what it proposes for them.
fn requests(client: &mut Client, candidates: usize) -> Outcome<Requests> {
    const USERS: usize = 64;
    let users: Vec<Value> = serde_json::from_str(&asked(client, "/users")?.body)?;
    let apart = (users.len() / USERS).max(1);
    let (mut ranks, mut events) = (Vec::new(), Vec::new());
    for user in users.iter().step_by(apart).take(USERS) {
        let user = &user["user"];
        let about: Value = serde_json::from_str(&asked(client, &format!("/users/{user}"))?.body)?;
        let items = about["candidates"].as_array().ok_or("no candidates")?;
        let items: Vec<&Value> = items.iter().take(candidates).map(|item| &item["item"]).collect();
        let first = items.first().ok_or("no candidates")?;
        events.push(json!([{ "user": user, "item": first }]).to_string());
        ranks.push(json!({ "user": user, "candidates": items, "top": 10 }).to_string());
    }
    if ranks.is_empty() {
        return Err("the service has no users".into());
    }
    Ok(Requests { ranks, events })
}

/// Asks at a rate for the time of a step.
fn step(options: &Load, rate: usize, requests: &Requests) -> Outcome<Step> {
    let total = rate * options.seconds;
    let begin = Instant::now() + Duration::from_millis(20);
    let of_client = |client: usize| {
        let due = (client..total).step_by(options.clients);
        let due = due.map(|index| (index, begin + Duration::from_secs_f64(index as f64 / rate as f64)));
        ask(options.address, due, requests, options.events)
    };
    let results: Vec<Outcome<Step>> = std::thread::scope(|threads| {
        let running: Vec<_> =
            (0..options.clients).map(|client| threads.spawn(move || of_client(client))).collect();
        let failed = |_| Err("a client has failed".into());
        running.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect()
    });
    let mut all = Step { rate, achieved: 0.0, latencies: Vec::new(), busy: 0, failed: 0 };
    for result in results {
        let step = result?;
        all.latencies.extend(step.latencies);
        all.busy += step.busy;
        all.failed += step.failed;
    }
    all.achieved = all.latencies.len() as f64 / begin.elapsed().as_secs_f64();
    all.latencies.sort_by(f64::total_cmp);
    Ok(all)
}

/// One client: asks when it is due, or at once where the last answer came later.
fn ask(
    address: SocketAddr,
    due: impl Iterator<Item = (usize, Instant)>,
    requests: &Requests,
    one_of: usize,
) -> Outcome<Step> {
    let mut step = Step { rate: 0, achieved: 0.0, latencies: Vec::new(), busy: 0, failed: 0 };
    let mut client = Client::connect(address)?;
    for (index, due) in due {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let drawn = Seeded::new(index as u64).below(requests.ranks.len());
        let sends_event = one_of > 0 && index % one_of == one_of - 1;
        let answer = if sends_event {
            client.post("/events", &requests.events[drawn])
        } else {
            client.post("/rank", &requests.ranks[drawn])
        };
        match answer.map(|answer| answer.status) {
            Ok(200) => step.latencies.push(due.elapsed().as_secs_f64() * 1e3),
            Ok(503) => step.busy += 1,
            Ok(_) => step.failed += 1,
            Err(_) => {
                step.failed += 1;
                client = Client::connect(address)?;
            }
        }
    }
    Ok(step)
}
