//! What synchronises threads. `tests/schedules` compiles files that take it from here with a model of threads in its place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
#[cfg(feature = "wgpu")]
pub(crate) use std::sync::Weak;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
#[cfg(all(feature = "wgpu", not(target_arch = "wasm32")))]
pub(crate) use std::thread::sleep;

/// Locks a mutex whose data stay valid even if a thread panicked while it held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes a task. A waker is the caller's: its panic must not end a thread on which others wait.
pub(crate) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// Starts a thread that nobody joins.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(run).map(drop)
}
