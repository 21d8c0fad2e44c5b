//! Waits that do not block, of `Wgpu` and of `Cuda`, on threads whose steps [Shuttle](https://docs.rs/shuttle) interleaves as it chooses.
//!
//! The files under test are those of the library: [`webgpu`] and [`cuda`] include them. What they take from `wgpu` is modelled here, and what
//! they take from `std` to synchronise threads is Shuttle's.
#![cfg(test)]

extern crate self as wgpu;

#[allow(dead_code, reason = "what only waits that block use")]
mod cuda;
mod gpu;
#[allow(dead_code, reason = "what error messages need")]
mod webgpu;

use std::ops::RangeFull;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use gpu::sync::lock;
use webgpu::arrival::Arrival;
use webgpu::scope::{PollFailure, Scopes};
use webgpu::waiter::{Wait, Waiter};

/// Schedules for each test.
const SCHEDULES: usize = 2000;

/// `wgpu::SubmissionIndex`.
#[derive(Debug, Clone)]
struct SubmissionIndex;

/// `wgpu::PollType`.
enum PollType {
    Wait { submission_index: Option<SubmissionIndex>, timeout: Option<Duration> },
}

/// `wgpu::MapMode`.
enum MapMode {
    Read,
}

type Callback = Box<dyn FnOnce(Result<(), ()>) + Send>;

/// A device that works, or is lost.
#[derive(Default)]
struct Device {
    is_lost: bool,
    mapping: Mutex<Vec<Callback>>,
}

impl Device {
    /// As `wgpu` does, takes the callbacks first and calls them afterwards, when another thread may find none left. Some polls come
    /// too early.
    fn poll(&self) -> Result<(), PollFailure> {
        if self.is_lost {
            return Err(PollFailure::Lost);
        }
        if thread_rng().gen_bool(0.3) {
            thread::yield_now();
            return Err(PollFailure::Timeout);
        }
        let callbacks = std::mem::take(&mut *lock(&self.mapping));
        callbacks.into_iter().for_each(|callback| callback(Ok(())));
        Ok(())
    }
}

/// `wgpu::Buffer`.
struct Buffer(Arc<Device>);

impl Buffer {
    fn map_async(&self, _: MapMode, _: RangeFull, callback: impl FnOnce(Result<(), ()>) + Send + 'static) {
        lock(&self.0.mapping).push(Box::new(callback));
    }
}

/// A download: so many mappings, and the wait for them.
fn download(
    scopes: &Arc<Scopes>,
    waiter: &Arc<Waiter>,
    mappings: usize,
    timeout: Option<Duration>,
) -> (Vec<Arc<Arrival>>, Arc<Wait>) {
    let arrivals: Vec<_> = (0..mappings).map(|_| Arrival::map(&Buffer(scopes.0.clone()))).collect();
    let wait = Wait::new(arrivals.clone(), SubmissionIndex, timeout);
    waiter.look_after(scopes, &wait);
    (arrivals, wait)
}

fn wait_for(wait: &Wait) -> Result<(), PollFailure> {
    shuttle::future::block_on(std::future::poll_fn(|context| wait.poll(context)))
}

/// Runs three downloads, each on a thread, while another polls the device, too. Shuttle fails where a thread waits for ever, and
/// where the waiter's own does not end.
fn download_on_threads(
    is_lost: bool,
    timeout: Option<Duration>,
    judge: fn(&[Arc<Arrival>], Result<(), PollFailure>),
) {
    let device = Arc::new(Device { is_lost, ..Default::default() });
    let (scopes, waiter) = (Arc::new(Scopes(device)), Arc::new(Waiter::default()));
    let mut threads: Vec<_> = (0..3)
        .map(|thread| {
            let (scopes, waiter) = (scopes.clone(), waiter.clone());
            thread::spawn(move || {
                let (arrivals, wait) = download(&scopes, &waiter, thread, timeout);
                judge(&arrivals, wait_for(&wait));
            })
        })
        .collect();
    threads.push(thread::spawn(move || drop(scopes.0.poll())));
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

#[test]
fn every_wait_ends() {
    let judge = |arrivals: &[Arc<Arrival>], result| {
        assert_eq!(result, Ok(()));
        assert!(arrivals.iter().all(|arrival| arrival.succeeded()));
    };
    shuttle::check_random(move || download_on_threads(false, None, judge), SCHEDULES);
    shuttle::check_pct(move || download_on_threads(false, None, judge), SCHEDULES, 3);
}

/// Each wait, whoever's submission the thread was polling for.
#[test]
fn every_wait_on_a_lost_device_fails() {
    let judge = |arrivals: &[Arc<Arrival>], result| {
        let nothing = arrivals.is_empty();
        assert_eq!(result, if nothing { Ok(()) } else { Err(PollFailure::Lost) });
    };
    shuttle::check_random(move || download_on_threads(true, None, judge), SCHEDULES);
}

/// A wait whose time is over fails, or the copy has come in time.
#[test]
fn every_wait_has_a_deadline() {
    let judge = |arrivals: &[Arc<Arrival>], result| match result {
        Ok(()) => assert!(arrivals.iter().all(|arrival| arrival.succeeded())),
        Err(failure) => assert_eq!(failure, PollFailure::Timeout),
    };
    shuttle::check_random(move || download_on_threads(false, Some(Duration::ZERO), judge), SCHEDULES);
}

/// Waits that nobody is interested in any more end the thread, and a later one starts another.
#[test]
fn dropped_waits_end_the_thread() {
    let run = || {
        let scopes = Arc::new(Scopes(Arc::default()));
        let waiter = Arc::new(Waiter::default());
        drop(download(&scopes, &waiter, 1, None));
        thread::yield_now();
        let (arrivals, wait) = download(&scopes, &waiter, 2, None);
        assert_eq!(wait_for(&wait), Ok(()));
        assert!(arrivals.iter().all(|arrival| arrival.succeeded()));
    };
    shuttle::check_random(run, SCHEDULES);
}
