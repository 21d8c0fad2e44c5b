//! Waits that do not block: they give what a wait that blocks gives, and lose no error.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use longseq::*;

use crate::case::Rules;
use crate::registry::list_tests;

list_tests!("waits":
    downloads_without_blocking,
    reports_errors_without_blocking,
    leaves_errors_of_dropped_waits_to_the_next,
    downloads_on_many_threads,
);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The result of a future, for which this thread sleeps.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

/// A row of a table of four rows.
fn look_up<B: Backend>(backend: &B, id: u32) -> Result<Buffer<B, f32>> {
    let table = backend.upload(&[0.0f32, 1.0, 2.0, 3.0])?;
    let tables = [Table::new(4, 1, TableData::F32(backend.view(&table)))];
    let ids = backend.upload(&[id])?;
    let inputs = LookupInputs::new(backend.view(&ids), &tables);
    backend.lookup(&Lookup::default(), Bags::Each, inputs).map(|(out, _)| out)
}

fn downloads_without_blocking<B: Backend>(backend: &B, _: Rules) {
    let buffers: Vec<_> = (0..20).map(|i| backend.upload(&[i, i + 1, i + 2u32]).expect("memory")).collect();
    let part = |i: usize| backend.view(&buffers[i]).slice(1, 2).expect("a part");
    let futures: Vec<_> = (0..20).map(|i| Box::pin(backend.download_async(part(i)))).collect();
    // In another order than they were made.
    for (i, future) in futures.into_iter().enumerate().rev() {
        let i = i as u32;
        assert_eq!(block_on(future), Ok(vec![i + 1, i + 2]));
    }
    assert_eq!(block_on(backend.download_async(part(0).slice(2, 0).expect("nothing"))), Ok(vec![]));
    // What calls before it have enqueued.
    let row = look_up(backend, 3).expect("a row");
    assert_eq!(block_on(backend.download_async(backend.view(&row))), Ok(vec![3.0]));
    assert_eq!(block_on(backend.synchronize_async()), Ok(()));
}

/// Whether this is the error of a look-up of a row; no other may come instead.
fn is_out_of_range<T: std::fmt::Debug>(result: Result<T>, row: u64) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::IndexOutOfRange { id, bound: 4, .. }) if id == row => true,
        Err(error) => panic!("{error}"),
    }
}

fn reports_errors_without_blocking<B: Backend>(backend: &B, _: Rules) {
    for row in [4, 9] {
        let looked_up = look_up(backend, row as u32);
        let (first, second) = match looked_up {
            // Where calls are done when they return, they have said so.
            Err(error) => (Err(error), block_on(backend.synchronize_async())),
            Ok(out) if row == 4 => (
                block_on(backend.download_async(backend.view(&out))).map(drop),
                block_on(backend.synchronize_async()),
            ),
            Ok(_) => (block_on(backend.synchronize_async()), backend.synchronize()),
        };
        assert!(is_out_of_range(first, row));
        assert_eq!(second, Ok(()), "reported once");
    }
}

fn leaves_errors_of_dropped_waits_to_the_next<B: Backend>(backend: &B, _: Rules) {
    for attempt in 0..30 {
        let row = 4 + attempt;
        let Ok(out) = look_up(backend, row as u32) else { continue };
        let mut found = false;
        {
            let mut download = pin!(backend.download_async(backend.view(&out)));
            // Dropped before it has been polled, while the wait is under way, and when it is over.
            if attempt % 3 > 0 {
                if attempt % 3 == 2 {
                    thread::sleep(std::time::Duration::from_millis(3));
                }
                if let Poll::Ready(result) = download.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    found = is_out_of_range(result, row);
                }
            }
        }
        assert!(found || is_out_of_range(backend.synchronize(), row), "attempt {attempt}: nothing is lost");
        assert_eq!(backend.synchronize(), Ok(()), "attempt {attempt}: nothing is reported twice");
    }
}

fn downloads_on_many_threads<B: Backend + Sync>(backend: &B, _: Rules) {
    thread::scope(|threads| {
        for thread in 0..6 {
            threads.spawn(move || {
                let own = backend.fork().expect("a fork");
                for row in 0..8 {
                    let Ok(out) = look_up(&own, row) else { continue };
                    let got = block_on(own.download_async(own.view(&out)));
                    match row {
                        0..4 => assert_eq!(got, Ok(vec![row as f32]), "thread {thread}"),
                        _ => assert!(is_out_of_range(got, row.into()), "thread {thread}"),
                    }
                }
            });
        }
    });
}
