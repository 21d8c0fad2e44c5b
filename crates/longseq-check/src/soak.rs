//! Serves mixed requests, some of them bad, from many threads, and checks every answer.
//!
//! Each request is one of a few cases, whose answer must have the bits that the case had when it ran alone, or a look-up of a row
//! that its table does not have. With a [`fork`](longseq::DeviceOps::fork) per thread each bad look-up is reported to its own thread
//! and to no other; where threads share a handle, to one of them, once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use longseq::*;

use crate::decoupled::{DecoupledBackwardCase, DecoupledCase};
use crate::din::{DinBackwardCase, DinCase, StatisticsCase};
use crate::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use crate::lookup::{Form, LookupBackwardCase, LookupCase, Pool, UpdateRowsCase};
use crate::named::AnyOutput;
use crate::sdim::{SdimBackwardCase, SdimCase};
use crate::search::SearchCase;
use crate::selected::{HistogramCase, SelectedBackwardCase, SelectedCase};
use crate::selected::{SelectedTableBackwardCase, SelectedTableCase};
use crate::target_attention::{AttentionBackwardCase, AttentionCase, MergeBackwardCase, MergeCase};
use crate::tin::{TinBackwardCase, TinCase};
use crate::{AnyCase, Case, Failure};

/// How long to serve.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// So many requests on each thread.
    Requests(usize),
    /// So long.
    Time(Duration),
}

/// How to serve.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many threads.
    pub threads: usize,
    /// Whether each thread has a handle of its own.
    pub forks: bool,
    /// How long.
    pub limit: Limit,
    /// How long each [`Slice`] is.
    pub slice: Duration,
}

/// What happened in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Its length.
    pub seconds: f64,
    /// Requests answered.
    pub requests: usize,
    /// The median of their times, in seconds.
    pub median: f64,
    /// The 99th percentile of their times, in seconds.
    pub p99: f64,
    /// Resident memory of the process at its end, in bytes, where the system tells.
    pub resident: Option<u64>,
}

impl Slice {
    fn of(mut times: Vec<f64>, seconds: f64) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(0.0);
        Self { seconds, requests: times.len(), median: at(0.5), p99: at(0.99), resident: resident() }
    }
}

/// Resident memory of this process.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Rows in the table of bad look-ups.
const ROWS: u32 = 4;

/// Requests of every operation's forward pass, small enough for an emulator.
pub fn cases() -> Vec<AnyCase> {
    let (histories, targets) = (vec![70, 0, 9], vec![3, 1, 2]);
    let attention =
        AttentionCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() };
    let narrow = AttentionCase { dtype: DType::Bf16, width: 16, ..attention.clone() };
    vec![
        AnyCase::Attention(attention),
        AnyCase::Attention(narrow),
        AnyCase::Merge(MergeCase { rows: 20, ..Default::default() }),
        AnyCase::Din(DinCase { histories: vec![20, 3], targets: vec![2, 1], ..Default::default() }),
        AnyCase::Sdim(SdimCase {
            histories: histories.clone(),
            targets: targets.clone(),
            ..Default::default()
        }),
        AnyCase::Sdim(SdimCase {
            histories: histories.clone(),
            targets: targets.clone(),
            slots: true,
            ..Default::default()
        }),
        AnyCase::Lookup(LookupCase { pool: Pool::Mean, bags: vec![30, 0, 2], ..Default::default() }),
        AnyCase::Decoupled(DecoupledCase { histories, targets, ..Default::default() }),
    ]
}

/// Requests for the gradients of every operation, and a step of an optimiser.
pub fn gradients() -> Vec<AnyCase> {
    let (histories, targets) = (vec![40, 0, 9], vec![3, 1, 2]);
    let attention = AttentionCase {
        histories: histories.clone(),
        targets: targets.clone(),
        width: 16,
        value_width: None,
        ..Default::default()
    };
    let narrow = AttentionCase { dtype: DType::Bf16, ..attention.clone() };
    let din = DinCase { histories: vec![20, 3], targets: vec![2, 1], ..Default::default() };
    let sdim = SdimCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() };
    let lookup = LookupCase { pool: Pool::Mean, bags: vec![30, 0, 2], ..Default::default() };
    let decoupled = DecoupledCase { histories, targets, ..Default::default() };
    let forms = vec![Form::Dense, Form::Sparse];
    vec![
        AnyCase::AttentionBackward(AttentionBackwardCase { forward: attention, ..Default::default() }),
        AnyCase::AttentionBackward(AttentionBackwardCase {
            forward: narrow,
            narrow: true,
            ..Default::default()
        }),
        AnyCase::MergeBackward(MergeBackwardCase { rows: 20, ..Default::default() }),
        AnyCase::DinBackward(DinBackwardCase { forward: din.clone(), ..Default::default() }),
        AnyCase::DinStatistics(StatisticsCase { forward: din }),
        AnyCase::SdimBackward(SdimBackwardCase { forward: sdim, ..Default::default() }),
        AnyCase::LookupBackward(LookupBackwardCase { forward: lookup, forms, ..Default::default() }),
        AnyCase::UpdateRows(UpdateRowsCase::default()),
        AnyCase::DecoupledBackward(DecoupledBackwardCase { forward: decoupled, ..Default::default() }),
    ]
}

/// Requests for searches and for what attends to a selection, by position or along axes, and their gradients.
pub fn selections() -> Vec<AnyCase> {
    let (histories, targets) = (vec![70, 0, 9], vec![3, 1, 2]);
    let search = SearchCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() };
    let selected =
        SelectedCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() };
    let table = SelectedTableCase { forward: selected.clone(), ..Default::default() };
    let tin = TinCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() };
    let channels = ChannelsCase { histories, targets, ..Default::default() };
    vec![
        AnyCase::Search(SearchCase { score: SearchScore::Hamming, ..search.clone() }),
        AnyCase::Search(search),
        AnyCase::Histogram(HistogramCase::default()),
        AnyCase::Selected(selected.clone()),
        AnyCase::SelectedBackward(SelectedBackwardCase { forward: selected, ..Default::default() }),
        AnyCase::SelectedTable(table.clone()),
        AnyCase::SelectedTableBackward(SelectedTableBackwardCase { forward: table, ..Default::default() }),
        AnyCase::Tin(tin.clone()),
        AnyCase::TinBackward(TinBackwardCase { forward: tin, ..Default::default() }),
        AnyCase::Channels(channels.clone()),
        AnyCase::ChannelsBackward(ChannelsBackwardCase { forward: channels, ..Default::default() }),
    ]
}

/// Bad ids: how many were asked for, and those of them that are not reported yet, so that memory stays flat.
#[derive(Default)]
struct Ids {
    asked: u64,
    unreported: HashSet<u64>,
}

/// What all threads know.
struct Service {
    options: Options,
    begun: Instant,
    requests: Vec<(AnyCase, AnyOutput)>,
    ids: Mutex<Ids>,
}

impl Service {
    fn has_time(&self, served: usize) -> bool {
        match self.options.limit {
            Limit::Requests(most) => served < most,
            Limit::Time(time) => self.begun.elapsed() < time,
        }
    }

    /// Serves on one thread.
    fn serve<B: Backend>(&self, backend: &B, thread: u64, times: &Sender<f64>) -> Result<(), Failure> {
        // A generator of numbers that need not be good ones.
        let mut state = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for served in 0.. {
            if !self.has_time(served) {
                return Ok(());
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = (state >> 33) as usize % (self.requests.len() + 1);
            let begun = Instant::now();
            match self.requests.get(pick) {
                Some((case, expected)) => self.judge(case.run(backend), expected, case)?,
                None => self.look_up_outside(backend)?,
            }
            // Nobody listens any more where another thread has failed.
            let _ = times.send(begun.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn judge(
        &self,
        got: Result<AnyOutput, Failure>,
        expected: &AnyOutput,
        case: &AnyCase,
    ) -> Result<(), Failure> {
        match got {
            Ok(got) if got == *expected => Ok(()),
            Ok(_) => Err(Failure::new(format!("other bits than when it ran alone: {case:?}"))),
            Err(failure) if self.options.forks => Err(failure),
            Err(failure) => self.note(failure.error(), &failure.to_string()),
        }
    }

    /// Looks up a row that is not there and that nobody has asked for yet.
    fn look_up_outside<B: Backend>(&self, backend: &B) -> Result<(), Failure> {
        let id = {
            let mut ids = self.ids.lock().expect("no thread panics here");
            let id = u64::from(ROWS) + ids.asked;
            ids.asked += 1;
            ids.unreported.insert(id);
            id
        };
        let look_up = || -> longseq::Result<Vec<f32>> {
            let table = backend.upload(&[0.0f32; ROWS as usize])?;
            let tables = [Table::new(ROWS as usize, 1, TableData::F32(backend.view(&table)))];
            let ids = backend.upload(&[1, id as u32])?;
            let inputs = LookupInputs::new(backend.view(&ids), &tables);
            let (out, _) = backend.lookup(&Lookup::default(), Bags::Each, inputs)?;
            backend.download(backend.view(&out))
        };
        match look_up() {
            Err(Error::IndexOutOfRange { id: reported, .. }) if reported == id => self.count_report(id),
            // On a shared handle it was reported to another thread.
            Ok(_) if !self.options.forks => Ok(()),
            Err(error) if !self.options.forks => self.note(Some(&error), &error.to_string()),
            other => Err(Failure::new(format!("row {id} is not there, and the answer is {other:?}"))),
        }
    }

    /// An error that was reported to one of the threads that share a handle.
    fn note(&self, error: Option<&Error>, message: &str) -> Result<(), Failure> {
        match error {
            Some(Error::IndexOutOfRange { id, .. }) => self.count_report(*id),
            _ => Err(Failure::new(message)),
        }
    }

    fn count_report(&self, id: u64) -> Result<(), Failure> {
        let mut ids = self.ids.lock().expect("no thread panics here");
        if ids.unreported.remove(&id) {
            Ok(())
        } else {
            Err(Failure::new(format!("row {id} was reported twice, or nobody asked for it")))
        }
    }
}

/// Makes slices of times as they come, until all threads have finished.
fn slices(times: &Receiver<f64>, length: Duration, mut progress: impl FnMut(&Slice)) -> Vec<Slice> {
    let mut all = Vec::new();
    let (mut begun, mut some, mut open) = (Instant::now(), Vec::new(), true);
    while open {
        match times.recv_timeout(length.saturating_sub(begun.elapsed())) {
            Ok(time) => some.push(time),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => open = false,
        }
        if begun.elapsed() >= length || !open && all.is_empty() {
            let slice = Slice::of(std::mem::take(&mut some), begun.elapsed().as_secs_f64());
            progress(&slice);
            all.push(slice);
            begun = Instant::now();
        }
    }
    all
}

/// Serves, calling `progress` for each slice of time.
///
/// # Errors
/// The first answer that is wrong, error reported to the wrong thread, and call that failed.
pub fn serve<B: Backend + Sync>(
    backend: &B,
    options: Options,
    progress: &mut dyn FnMut(&Slice),
) -> Result<Vec<Slice>, Failure> {
    let alone = |case: AnyCase| case.run(backend).map(|output| (case, output));
    let cases = cases().into_iter().chain(gradients()).chain(selections());
    let requests = cases.map(alone).collect::<Result<_, Failure>>()?;
    let service = Service { options, begun: Instant::now(), requests, ids: Mutex::default() };
    let (sender, receiver) = channel();
    std::thread::scope(|threads| {
        let service = &service;
        let workers: Vec<_> = (0..options.threads as u64)
            .map(|thread| {
                let sender = sender.clone();
                threads.spawn(move || match options.forks {
                    true => service.serve(&backend.fork()?, thread, &sender),
                    false => service.serve(backend, thread, &sender),
                })
            })
            .collect();
        drop(sender);
        let slices = slices(&receiver, options.slice, progress);
        for worker in workers {
            worker.join().map_err(|_| Failure::new("a thread panicked"))??;
        }
        Ok(slices)
    })
}
