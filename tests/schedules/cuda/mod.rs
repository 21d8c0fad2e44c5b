//! The thread that does for `Cuda` what blocks.

#[path = "../../../src/cuda/waiter.rs"]
mod waiter;

use std::task::{Context, Waker};

use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use crate::SCHEDULES;
use crate::gpu::sync::lock;
use waiter::Waiter;

/// Each result arrives, in whatever order it is waited for.
#[test]
fn every_job_is_done_once() {
    let run = || {
        let (waiter, done) = (Arc::new(Waiter::default()), Arc::new(Mutex::new(0)));
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let (waiter, done) = (waiter.clone(), done.clone());
                thread::spawn(move || {
                    let outcomes: Vec<_> = (0..2)
                        .map(|job| {
                            let done = done.clone();
                            let count = move |_: &dyn Fn() -> bool| {
                                *lock(&done) += 1;
                                (thread, job)
                            };
                            waiter.wait(count, |_| panic!("it was waited for"))
                        })
                        .collect();
                    for (job, outcome) in outcomes.into_iter().enumerate().rev() {
                        assert_eq!(shuttle::future::block_on(outcome), Some((thread, job)));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(*lock(&done), 6);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

/// What a wait found that was dropped, before or after a poll, is given up once, or was never looked for.
#[test]
fn every_result_is_taken_or_given_up() {
    let run = || {
        let waiter = Arc::new(Waiter::default());
        let [found, given_up] = [(); 2].map(|()| Arc::new(Mutex::new(0)));
        let mut taken = 0;
        for polls in 0..3 {
            let (found, given_up) = (found.clone(), given_up.clone());
            let look = move |is_wanted: &dyn Fn() -> bool| is_wanted().then(|| *lock(&found) += 1).is_some();
            let give_up = move |is_found: bool| *lock(&given_up) += i32::from(is_found);
            let mut outcome = waiter.wait(look, give_up);
            for _ in 0..polls {
                thread::yield_now();
                if std::pin::Pin::new(&mut outcome).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    taken += 1;
                    break;
                }
            }
        }
        // Those before it are done when the last is.
        assert_eq!(shuttle::future::block_on(waiter.wait(|_| (), |()| ())), Some(()));
        let (found, given_up) = (*lock(&found), *lock(&given_up));
        assert_eq!(found, taken + given_up);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}
