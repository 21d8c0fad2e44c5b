//! Stops of every kind: what was acknowledged is there afterwards, and answers are those of a state built from the log.

use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::protocol::Seeded;
use crate::running::{Folder, Server, USERS, answers, item, program, rank};

/// As in the store.
const EVENTS: TableDefinition<(u64, u64), (u32, u64)> = TableDefinition::new("events");
const SNAPSHOTS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");

/// The ids of the items of a user's events, from the file.
fn written(store: &Path, user: u64) -> Vec<u64> {
    let database = Database::open(store).unwrap();
    let events = database.begin_read().unwrap().open_table(EVENTS).unwrap();
    let items = events.range((user, 0)..=(user, u64::MAX)).unwrap();
    items.map(|entry| item(u64::from(entry.unwrap().1.value().0))).collect()
}

/// Answers of a service that builds its tables from a copy of the log, without snapshots.
fn built_from_the_log(folder: &Folder, store: &Path, users: &[u64]) -> Vec<String> {
    let copy = folder.path("copy.redb");
    std::fs::copy(store, &copy).unwrap();
    let server = Server::start(&copy, &["--rebuild"]);
    assert_eq!(server.metric("service_snapshots_read_total"), 0.0);
    answers(&server, users.iter().copied())
}

/// Sends events of one user until the service is gone; returns the items of acknowledged requests, and those of the one that was not.
fn send_until_killed(server: &Server, user: u64) -> (Vec<u64>, Vec<u64>) {
    let mut random = Seeded::new(user);
    let (mut client, mut acknowledged) = (server.client(), Vec::new());
    loop {
        let items: Vec<u64> = (0..1 + random.below(4)).map(|_| item(random.below(200) as u64)).collect();
        let events: Vec<_> =
            items.iter().map(|item| serde_json::json!({ "user": user, "item": item })).collect();
        match client.post("/events", &serde_json::json!(events).to_string()) {
            Ok(answer) if answer.status == 200 => acknowledged.extend(items),
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => return (acknowledged, items),
        }
        // Ranks, too, are under way when it is killed.
        if client.post("/rank", &rank(user, [item(5)])).is_err() {
            return (acknowledged, Vec::new());
        }
    }
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new("kill");
    let store = folder.path("store.redb");
    let users: Vec<u64> = (1..=USERS).chain(7000..7006).collect();
    let mut expected: Vec<Vec<u64>> = vec![Vec::new(); 6];
    for round in 0..3_u64 {
        let server = Server::start(&store, &["--save-after", "20", "--slots", "64"]);
        let sent: Vec<(Vec<u64>, Vec<u64>)> = std::thread::scope(|threads| {
            let server_ref = &server;
            let send = |user| threads.spawn(move || send_until_killed(server_ref, user));
            let running: Vec<_> = (7000..7006).map(send).collect();
            std::thread::sleep(Duration::from_millis(700 + 150 * round));
            let pid = server_ref.pid();
            assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // Its file is free once the process is gone.
        assert!(!server.wait().success());
        for (index, (acknowledged, last)) in sent.into_iter().enumerate() {
            let got = written(&store, 7000 + index as u64);
            expected[index].extend(&acknowledged);
            assert!(!acknowledged.is_empty());
            // The request without an answer was written whole, or not at all.
            if got.len() > expected[index].len() {
                expected[index].extend(last);
            }
            assert_eq!(got, expected[index], "user {}", 7000 + index);
        }
    }
    let fresh = built_from_the_log(&folder, &store, &users);
    let server = Server::start(&store, &[]);
    assert!(server.metric("service_snapshots_read_total") > 0.0);
    assert_eq!(answers(&server, users), fresh);
}

#[test]
fn a_stop_answers_what_was_asked_and_saves_the_tables() {
    let folder = Folder::new("stop");
    let store = folder.path("store.redb");
    let server = Server::start(&store, &["--budget", "2000", "--save-after", "3600000"]);
    let event = format!(r#"[{{"user":3,"item":{}}},{{"user":900,"item":{}}}]"#, item(7), item(8));
    assert_eq!(server.post("/events", &event).body, r#"{"written":2}"#);
    let (idle, mut asks) = (server.client(), server.client());
    let asked = std::thread::spawn(move || asks.post("/rank", &rank(3, [item(0), item(1)])));
    while server.metric("service_queue_length{queue=\"rank\"}") < 1.0 {}
    let begin = Instant::now();
    server.terminate();
    // Asked before the stop, answered after it.
    let answer = asked.join().unwrap().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let address = server.address;
    let status = server.wait();
    assert_eq!(status.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(8), "an idle connection does not delay a stop");
    drop(idle);
    assert!(crate::client::Client::connect(address).is_err());
    // Every table was saved, so that none is built from the log.
    let users: Vec<u64> = (1..=USERS).chain([900]).collect();
    let fresh = built_from_the_log(&folder, &store, &users);
    let server = Server::start(&store, &[]);
    assert_eq!(server.metric("service_snapshots_read_total"), 61.0);
    assert_eq!(answers(&server, users), fresh);
    server.stop();
}

#[test]
fn damaged_snapshots_are_refused_and_built_from_the_log() {
    let folder = Folder::new("snapshot");
    let store = folder.path("store.redb");
    let server = Server::start(&store, &[]);
    let expected = answers(&server, 1..=USERS);
    server.stop();
    {
        let database = Database::open(&store).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(SNAPSHOTS).unwrap();
            // A sum of a bucket, the number of events, the end cut off, nothing left.
            for (user, change) in [(1, 700), (2, 0), (3, usize::MAX), (4, usize::MAX - 1)] {
                let mut bytes = table.get(user).unwrap().unwrap().value().to_vec();
                match change {
                    usize::MAX => drop(bytes.pop()),
                    change if change == usize::MAX - 1 => bytes.clear(),
                    change => bytes[change] ^= 0x10,
                }
                table.insert(user, &bytes[..]).unwrap();
            }
        }
        write.commit().unwrap();
    }
    let server = Server::start(&store, &[]);
    assert_eq!(server.metric("service_snapshots_refused_total"), 4.0);
    assert_eq!(server.metric("service_snapshots_read_total"), 56.0);
    assert_eq!(answers(&server, 1..=USERS), expected);
    server.stop();
}

/// Errors before it listens are words and a status, too.
#[test]
fn a_store_that_is_in_use_or_none_is_refused() {
    let folder = Folder::new("refused");
    let store = folder.path("store.redb");
    let server = Server::start(&store, &[]);
    let text = folder.path("text");
    std::fs::write(&text, "no store ".repeat(1000)).unwrap();
    let log = folder.path("log.csv").display().to_string();
    std::fs::write(&log, "user,item,time\n1,2,noon\n").unwrap();
    let new = folder.path("new").display().to_string();
    let (store, text) = (store.display().to_string(), text.display().to_string());
    for (arguments, words) in [
        (&["--store", &store][..], "store.redb: "),
        (&["--store", &text], "text: "),
        (&["--store", &new, "--events", &log], "line 2: expected a time"),
        (&["--store", &new, "--slots", "3"], "--slots: expected at least --batch"),
        (&["--store", &new, "--device", "cuda"], "not built in"),
    ] {
        let mut command = program(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        let output = command.stderr(std::process::Stdio::piped()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.starts_with("error: ") && error.contains(words), "{arguments:?}: {error}");
    }
    server.stop();
}
