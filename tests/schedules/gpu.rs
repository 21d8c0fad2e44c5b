//! `src/gpu/sync.rs` with Shuttle's threads.

pub(crate) mod sync {
    use std::io;
    use std::task::Waker;
    use std::time::Duration;

    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, Weak};
    use shuttle::thread;

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no thread panics")
    }

    pub(crate) fn wake(waker: Waker) {
        waker.wake();
    }

    pub(crate) fn sleep(_: Duration) {
        thread::yield_now();
    }

    pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name(name.into()).spawn(run).map(drop)
    }
}
