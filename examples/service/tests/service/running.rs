//! Runs the program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::client::{Answer, Client};

/// A folder that is removed at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("longseq-service-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program with arguments.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_service"));
    command.args(arguments).stdout(Stdio::piped());
    command
}

/// A running service; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// The synthetic log that stores of these tests begin with: users 1 to 60, items 1000, 1003, … 1597.
pub(crate) const ITEMS: u64 = 200;
pub(crate) const USERS: u64 = 60;

/// The id of an item.
pub(crate) fn item(number: u64) -> u64 {
    1000 + 3 * (number % ITEMS)
}

impl Server {
    /// Starts the service on a free port, and waits until it listens.
    pub(crate) fn start(store: &Path, arguments: &[&str]) -> Self {
        let store = store.display().to_string();
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--store", &store, "--synthetic", "60,200,3000"];
        let mut child = program(&[&fixed[..], &["--width", "16"], arguments].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = lines.by_ref().map(Result::unwrap).find_map(|line| {
            line.strip_prefix("listening on http://").map(|address| address.parse().unwrap())
        });
        // Read to its end, so that the service never waits for a reader.
        std::thread::spawn(move || lines.count());
        match listening {
            Some(address) => Self { child, address },
            None => panic!("the service has not started: {}", child.wait().unwrap()),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.client().post(path, body).unwrap()
    }

    /// A number of `/metrics`, by the start of its line.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.client().get("/metrics").unwrap().body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// The process, for `kill`.
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn terminate(&self) {
        let done = Command::new("kill").args(["-TERM", &self.pid()]).status().unwrap();
        assert!(done.success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended is not there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request for ranks.
pub(crate) fn rank(user: u64, candidates: impl IntoIterator<Item = u64>) -> String {
    let candidates: Vec<u64> = candidates.into_iter().collect();
    serde_json::json!({ "user": user, "candidates": candidates }).to_string()
}

/// The answers for users and all items, on one connection.
pub(crate) fn answers(server: &Server, users: impl IntoIterator<Item = u64>) -> Vec<String> {
    let mut client = server.client();
    let ask = |user: u64| {
        let answer = client.post("/rank", &rank(user, (0..ITEMS).map(item))).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    users.into_iter().map(ask).collect()
}
