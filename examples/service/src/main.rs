//! A ranking service over HTTP: state of users on the device, requests in batches, a durable log of events.
//!
//! ```text
//! cargo run --release --manifest-path examples/service/Cargo.toml -- serve
//! ```

mod answer;
mod batcher;
mod client;
mod config;
#[path = "../../rank/src/embeddings.rs"]
#[allow(dead_code, reason = "of rank's tables, those of trained models are not needed")]
mod embeddings;
mod load;
mod log;
mod metrics;
mod model;
#[path = "../../rank/src/plot.rs"]
mod plot;
mod progress;
mod protocol;
#[path = "../../rank/src/report.rs"]
#[allow(dead_code, reason = "of rank's texts, notes and rates are not needed")]
mod report;
mod routes;
mod server;
mod snapshot;
mod state;
mod store;
#[path = "../../rank/src/svd.rs"]
mod svd;
mod writer;

use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::{Notify, Semaphore};

use crate::batcher::{Batcher, Work};
use crate::config::{Command, Options, Serve};
use crate::metrics::Metrics;
use crate::routes::App;
use crate::state::State;
use crate::store::Store;
use crate::writer::Writer;

/// A result whose error is shown to the user.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let outcome = match Options::parse().command {
        Command::Serve(options) => serve(&options),
        Command::Load(options) => load::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The threads that own the state and write the store, and the parts of the endpoints.
struct Running {
    app: Arc<App>,
    work: mpsc::Sender<Work>,
    threads: [JoinHandle<()>; 2],
    /// Notified when one of the threads ends.
    ended: Arc<Notify>,
}

/// Notifies as it is dropped, at the end of a thread, however it ends.
struct Ends(Arc<Notify>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Opens the store, fills the state, and starts the threads.
fn start(options: &Serve) -> Outcome<Running> {
    let begin = Instant::now();
    let sizes = options.sizes()?;
    let backend = options.backend()?;
    let (store, model) = Store::open(&options.store, options.width, || options.log())?;
    let (store, model, metrics) = (Arc::new(store), Arc::new(model), Arc::new(Metrics::new()));
    let shared = (model.clone(), store.clone(), metrics.clone());
    let mut state = State::new(backend, shared, sizes, !options.rebuild)?;
    state.load_latest()?;
    let ((users, events), device) = (store.totals()?, state.device());
    println!(
        "{}: {users} users, {events} events, {} items; {device}; ready after {:.1} s",
        options.store.display(),
        model.items.len(),
        begin.elapsed().as_secs_f64()
    );
    let (limits, _) = options.limits();
    let (work, worked) = mpsc::channel();
    let (tasks, taken) = mpsc::channel();
    let writer = Writer { store: store.clone(), tasks: taken, work: work.clone(), metrics: metrics.clone() };
    let pace = options.pace();
    let batcher = Batcher { state, pace, work: worked, writer: tasks.clone(), metrics: metrics.clone() };
    let ended = Arc::new(Notify::new());
    let [batcher_ends, writer_ends] = [ended.clone(), ended.clone()].map(Ends);
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    let threads = [
        thread("batcher").spawn(move || {
            let _ends = batcher_ends;
            batcher.run();
        })?,
        thread("writer").spawn(move || {
            let _ends = writer_ends;
            writer.run();
        })?,
    ];
    let queue = || Arc::new(Semaphore::new(limits.queue));
    let (rank_queue, event_queue) = (queue(), queue());
    let popular = model.popular();
    let writer = tasks;
    let work_of_app = work.clone();
    let app = App {
        model,
        popular,
        store,
        metrics,
        limits,
        work: work_of_app,
        writer,
        rank_queue,
        event_queue,
        device,
    };
    Ok(Running { app: Arc::new(app), work, threads, ended })
}

fn serve(options: &Serve) -> Outcome<()> {
    let Running { app, work, threads, ended } = start(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let drained = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.listen).await;
        let listener = listener.map_err(|error| format!("{}: {error}", options.listen))?;
        println!("listening on http://{}", listener.local_addr()?);
        let stop = async {
            tokio::select! {
                () = server::asked_to_stop() => println!("stopping"),
                () = ended.notified() => eprintln!("a thread of the service has ended"),
            }
        };
        let (_, limits) = options.limits();
        Outcome::Ok(server::serve(listener, routes::router(app), limits, stop).await)
    });
    // What was acknowledged is on disk. What the batcher was sent before this is answered; then it saves the tables, and the writer ends.
    let alive = work.send(Work::Stop).is_ok();
    // Connections that have not ended in time end here, and with them the last who could send: no thread waits for more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let whole = threads.map(|thread| thread.join().is_ok()) == [true, true];
    if !drained? {
        eprintln!("not all connections ended in time");
    }
    if alive && whole { Ok(()) } else { Err("a thread of the service has ended early".into()) }
}
