//! Tests of the state against the reference, and against itself in other batches and after other ways to the same events.

use longseq::{Batch, Cpu, Host, reference};

use super::*;
use crate::log::{Log, Sizes as LogSizes};
use crate::store::NewEvent;

const WIDTH: usize = 20;

/// A store in a folder of its own, with one user of `long` events more than the synthetic ones.
struct Case {
    folder: std::path::PathBuf,
    store: Arc<Store>,
    model: Arc<Model>,
    metrics: Arc<Metrics>,
}

impl Case {
    fn new(name: &str, long: usize) -> Self {
        let folder = std::env::temp_dir().join(format!("longseq-service-{name}-{}", std::process::id()));
        // What an earlier run with this number has left.
        let _ = std::fs::remove_dir_all(&folder);
        let mut log = Log::synthetic(LogSizes { users: 12, items: 90, events: 600 }, 3);
        let more = (0..long).map(|i| NewEvent { user: 999, item: (i * i % 90) as u32, time: 1 });
        log.events.extend(more);
        let (store, model) = Store::open(&folder.join("store.redb"), WIDTH, || Ok(log)).unwrap();
        let (store, model, metrics) = (Arc::new(store), Arc::new(model), Arc::new(Metrics::new()));
        Self { folder, store, model, metrics }
    }

    fn state(&self, slots: usize, kept: usize, snapshots: bool) -> State {
        let shared = (self.model.clone(), self.store.clone(), self.metrics.clone());
        State::new(Cpu::new().into(), shared, Sizes { slots, kept }, snapshots).unwrap()
    }

    fn write(&self, events: &[(u64, u32)]) -> Vec<Written> {
        let new: Vec<NewEvent> =
            events.iter().map(|&(user, item)| NewEvent { user, item, time: 5 }).collect();
        self.store.write(&new, &[]).unwrap()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ranked(state: &mut State, requests: &[(u64, &[u32])]) -> Vec<Vec<u32>> {
    requests.iter().for_each(|request| state.ensure(request.0).unwrap());
    let scores = state.rank(requests).unwrap();
    scores.into_iter().map(|scores| scores.into_iter().map(f32::to_bits).collect()).collect()
}

/// The documented formula, in `f64` from the user's events.
fn expected(case: &Case, user: u64, kept: usize, candidates: &[u32]) -> Vec<f64> {
    let items: Vec<u32> = case.store.events(user, 0).unwrap().into_iter().map(|event| event.0).collect();
    let rows = |items: &[u32]| -> Vec<f32> {
        items.iter().flat_map(|&item| case.model.row(item)).copied().collect()
    };
    let (all, newest) = (rows(&items), rows(&items[items.len().saturating_sub(kept)..]));
    let targets = rows(candidates);
    let lengths = |rows: &[f32]| Jagged::from_lengths(&[rows.len() / WIDTH]).unwrap();
    let batch = Batch::new(lengths(&newest), lengths(&targets)).unwrap();
    let inputs = TargetAttentionInputs::new(Host::view(&targets), Host::view(&newest));
    let attended = reference::target_attention(&TargetAttention::new(WIDTH), &batch, &inputs).unwrap().out;
    let hash = Hash::Rotations(Host::view(&case.model.arrays.rotations));
    let batch = Batch::new(lengths(&all), lengths(&targets)).unwrap();
    let inputs =
        longseq::SdimAttendInputs::new(Host::view(&all), hash, hash).with_targets(Host::view(&targets));
    let interests = reference::sdim_attend(&Sdim::new(WIDTH), &batch, &inputs).unwrap();
    let dot = |m: usize, other: &[f64]| -> f64 {
        let row = targets[m * WIDTH..(m + 1) * WIDTH].iter();
        row.zip(&other[m * WIDTH..]).map(|(&a, b)| f64::from(a) * b).sum()
    };
    let width = WIDTH as f64;
    let score = |m| dot(m, &attended) / width + dot(m, &interests) / width.sqrt();
    (0..candidates.len()).map(score).collect()
}

#[test]
fn scores_are_those_of_the_formula() {
    let case = Case::new("formula", 300);
    let mut state = case.state(8, 40, false);
    let candidates: Vec<u32> = (0..90).step_by(7).collect();
    let users = [999, 3, 5, 12, 1];
    users.iter().for_each(|&user| state.ensure(user).unwrap());
    for user in users {
        let events = case.write(&[(user, 4), (user, 50), (user, 4)]);
        state.apply(&events);
    }
    let requests: Vec<(u64, &[u32])> = users.iter().map(|&user| (user, &candidates[..])).collect();
    for (scores, user) in state.rank(&requests).unwrap().iter().zip(users) {
        let expected = expected(&case, user, 40, &candidates);
        for (&score, expected) in scores.iter().zip(&expected) {
            assert!((f64::from(score) - expected).abs() < 1e-5, "user {user}: {score} against {expected}");
        }
        assert!(expected.iter().any(|score| score.abs() > 0.1), "user {user}: {expected:?}");
    }
}

#[test]
fn users_without_events_score_zero_and_take_no_slot() {
    let case = Case::new("unknown", 0);
    let mut state = case.state(8, 40, false);
    assert_eq!(ranked(&mut state, &[(77, &[1, 2])]), [[0, 0]]);
    assert_eq!(state.slots.users(), 0);
}

/// Histories as long as may be, in batches and alone: the same bits. The first batch is so large that a device's plan would cut longer
/// histories elsewhere than it does for a request alone.
#[test]
fn a_batch_changes_no_bit() {
    let case = Case::new("batch", 3000);
    let mut state = case.state(16, LONGEST, false);
    let lists: Vec<Vec<u32>> = (0..20_u32)
        .map(|i| (0..1 + 23 * i % 80).map(|j| (i + 11 * j) % 90).collect())
        .chain((0..520).map(|i| vec![i % 90]))
        .collect();
    let users = (0..20).map(|i| if i % 5 == 0 { 999 } else { i % 14 }).chain([999; 520]);
    let requests: Vec<(u64, &[u32])> = users.zip(&lists).map(|(user, list)| (user, &list[..])).collect();
    let together = ranked(&mut state, &requests);
    for index in (0..20).chain((20..540).step_by(40)) {
        let alone = ranked(&mut state, &requests[index..=index]);
        assert_eq!(alone[0], together[index], "request {index}");
    }
    for (requests, together) in requests[..42].chunks(7).zip(together.chunks(7)) {
        assert_eq!(ranked(&mut state, requests), together);
    }
}

/// One event at a time, many at a time, evicted in between, from snapshots and from the log alone: the same bits.
#[test]
fn the_way_to_the_events_changes_no_bit() {
    let case = Case::new("way", 500);
    let (mut single, mut many) = (case.state(4, 60, true), case.state(16, 60, true));
    let candidates: Vec<u32> = (0..90).collect();
    for user in [999, 3, 4] {
        single.ensure(user).unwrap();
        many.ensure(user).unwrap();
    }
    let mut events = Vec::new();
    for i in 0..400_u32 {
        let user = [999, 3, 3, 4, 999][i as usize % 5];
        let event = case.write(&[(user, i * 7 % 90)]);
        single.apply(&event);
        events.extend(event);
        if i % 50 == 0 {
            // More users than slots, so that others are evicted; snapshots of whoever is there.
            (5..10).for_each(|other| single.ensure(other).unwrap());
            let snapshots = single.unsaved(3, Duration::ZERO).unwrap();
            case.store.write(&[], &snapshots).unwrap();
        }
    }
    many.apply(&events);
    // Events that were read back with their user are not added again.
    many.apply(&events);
    let requests: Vec<(u64, &[u32])> = [999, 3, 4].map(|user| (user, &candidates[..])).to_vec();
    let expected = ranked(&mut case.state(16, 60, false), &requests);
    assert_eq!(ranked(&mut single, &requests), expected);
    assert_eq!(ranked(&mut many, &requests), expected);
    assert_eq!(ranked(&mut case.state(16, 60, true), &requests), expected);
    assert!(case.metrics.evictions.load(Relaxed) > 10);
    assert!(case.metrics.snapshots_read.load(Relaxed) > 3);
}

/// A batch of as many users as there are slots.
#[test]
fn users_of_a_batch_do_not_evict_each_other() {
    let case = Case::new("slots", 0);
    let mut state = case.state(4, 40, false);
    let first: Vec<(u64, &[u32])> = [1, 2, 3, 4].map(|user| (user, &[5, 6][..])).to_vec();
    let other: Vec<(u64, &[u32])> = [5, 6, 2, 7].map(|user| (user, &[5, 6][..])).to_vec();
    let all = [&first[..], &other].concat();
    let expected = ranked(&mut case.state(16, 40, false), &all);
    assert_eq!(ranked(&mut state, &first), expected[..4]);
    assert_eq!(ranked(&mut state, &other), expected[4..]);
    assert_eq!(ranked(&mut state, &first), expected[..4]);
    assert_eq!(state.users.len(), 4);
}

#[test]
fn a_damaged_snapshot_is_refused_and_built_again() {
    let case = Case::new("damaged", 100);
    let mut state = case.state(16, 40, true);
    let candidates: Vec<u32> = (0..90).collect();
    let requests: Vec<(u64, &[u32])> = vec![(999, &candidates)];
    let expected = ranked(&mut state, &requests);
    let mut snapshots = state.unsaved(usize::MAX, Duration::ZERO).unwrap();
    assert_eq!((snapshots.len(), snapshots[0].user), (1, 999));
    assert_eq!(state.unsaved(usize::MAX, Duration::ZERO).unwrap().len(), 0);
    snapshots[0].bytes[500] ^= 1;
    case.store.write(&[], &snapshots).unwrap();
    assert_eq!(ranked(&mut case.state(16, 40, true), &requests), expected);
    assert_eq!(case.metrics.snapshots_refused.load(Relaxed), 1);
    // Whole, but of more events than there are.
    let table = vec![1.0; state.sdim.table_length(1).unwrap()];
    let bytes = snapshot::encode(&case.model.arrays, state.fingerprint, 101, &table).unwrap();
    case.store.write(&[], &[Snapshot { user: 999, bytes }]).unwrap();
    assert_eq!(ranked(&mut case.state(16, 40, true), &requests), expected);
    assert_eq!(case.metrics.snapshots_refused.load(Relaxed), 2);
}
