//! Handles that share a device: each reports the errors of its own calls alone.

use longseq::*;

use crate::case::Rules;
use crate::registry::list_tests;

list_tests!("forks": reports_to_each_fork_its_own_errors, reports_to_concurrent_threads_their_own_errors);

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
