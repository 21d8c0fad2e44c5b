//! Clocks: each gives the time from some beginning on.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The time of day, as it were.
pub(crate) fn wall() -> Duration {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGINNING.elapsed()
}

/// What this thread had of its processor, so that a busy machine does not matter much; where nobody can say, `wall`.
#[cfg(unix)]
pub(crate) fn of_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What this thread had of its processor, so that a busy machine does not matter much; where nobody can say, `wall`.
#[cfg(not(unix))]
pub(crate) fn of_thread() -> Duration {
    wall()
}
