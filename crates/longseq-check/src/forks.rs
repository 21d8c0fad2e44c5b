//! Handles that share a device: each reports the errors of its own calls alone.

use std::time::Duration;

use longseq::*;

use crate::case::Rules;
use crate::registry::list_tests;
use crate::soak;

list_tests!("forks":
    reports_to_each_fork_its_own_errors,
    reports_to_concurrent_threads_their_own_errors,
    serves_mixed_requests_on_many_threads,
    lets_everything_be_dropped_in_any_order,
);

/// Looks up rows of a table of four.
fn rows<B: Backend>(backend: &B, ids: &[u32]) -> Result<Buffer<B, f32>> {
    let table = backend.upload(&[0.0_f32, 1.0, 2.0, 3.0])?;
    let tables = [Table::new(4, 1, TableData::F32(backend.view(&table)))];
    let ids = backend.upload(ids)?;
    let inputs = LookupInputs::new(backend.view(&ids), &tables);
    Ok(backend.lookup(&Lookup::default(), Bags::Each, inputs)?.0)
}

fn is_reported<T>(result: Result<T>, id: u64) -> bool {
    matches!(result, Err(Error::IndexOutOfRange { id: reported, bound: 4, .. }) if reported == id)
}

fn reports_to_each_fork_its_own_errors<B: Backend>(backend: &B, _: Rules) {
    let [one, other] = [(); 2].map(|()| backend.fork().expect("another handle"));
    let bad = rows(&one, &[1, 7]);
    let good = rows(&other, &[3, 2]).expect("good ids");
    assert_eq!(other.download(other.view(&good)), Ok(vec![3.0, 2.0]));
    assert!(is_reported(bad.and_then(|_| one.synchronize()), 7));
    // Reported once; and buffers of one handle can be read by another.
    assert_eq!(one.download(one.view(&good)), Ok(vec![3.0, 2.0]));
}

fn reports_to_concurrent_threads_their_own_errors<B: Backend + Sync>(backend: &B, _: Rules) {
    let serve = |thread: u32| {
        let fork = backend.fork().expect("another handle");
        for request in 0..20 {
            let id = 4 + thread * 100 + request;
            let (ids, bad) = if request % 2 == 0 { ([id % 4, 1], false) } else { ([2, id], true) };
            let answer = rows(&fork, &ids).and_then(|out| fork.download(fork.view(&out)));
            match bad {
                true => assert!(is_reported(answer.clone(), id.into()), "{id}: {answer:?}"),
                false => assert_eq!(answer, Ok(vec![ids[0] as f32, 1.0])),
            }
        }
    };
    std::thread::scope(|threads| {
        for thread in 0..4 {
            threads.spawn(move || serve(thread));
        }
    });
}

/// Few of the requests that `longseq-check soak` makes, on a handle for each thread and on one for all.
fn serves_mixed_requests_on_many_threads<B: Backend + Sync>(backend: &B, rules: Rules) {
    for forks in [true, false] {
        let limit = soak::Limit::Requests(if rules.slow { 4 } else { 25 });
        let options = soak::Options { threads: 8, forks, limit, slice: Duration::from_secs(60) };
        let backend = backend.fork().expect("another handle");
        if let Err(failure) = soak::serve(&backend, options, &mut |_| {}) {
            panic!("forks: {forks}: {failure}");
        }
    }
}

/// Anything that can be dropped.
trait Held {}

impl<T> Held for T {}

/// Handles, buffers and batches go in any order, with work on its way.
fn lets_everything_be_dropped_in_any_order<'b, B: Backend>(backend: &'b B, _: Rules) {
    let lengths = |rows| Jagged::from_lengths(&[rows]).expect("a small length");
    let op = TargetAttention::new(1);
    for order in 0..120 {
        let fork = backend.fork().expect("another handle");
        let keys = fork.upload(&[1.0f32, 2.0, 3.0]).expect("memory");
        let batch = fork.batch(&lengths(3), &lengths(1)).expect("a batch");
        let inputs =
            TargetAttentionInputs::new(fork.view(&keys).slice(0, 1).expect("inside"), fork.view(&keys));
        let out = fork.target_attention(&op, &batch, inputs).expect("a valid call");
        let again = fork.target_attention(&op, &batch, inputs).expect("a valid call");
        // Each of the five orders of what is left, by the digits of `order`.
        let mut left: Vec<Box<dyn Held + 'b>> = vec![Box::new(fork), Box::new(keys), Box::new(batch)];
        left.extend([Box::new(out) as Box<dyn Held + 'b>, Box::new(again)]);
        let mut digits = order;
        while !left.is_empty() {
            drop(left.swap_remove(digits % left.len()));
            digits /= left.len() + 1;
        }
    }
    backend.synchronize().expect("nothing failed");
}
