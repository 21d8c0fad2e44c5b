//! Clocks: each returns the time since some beginning.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Wall-clock time.
pub(super) fn wall() -> Duration {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGINNING.elapsed()
}

/// The processor time of this thread, so that a busy machine matters little; wall-clock time where there is no such clock.
#[cfg(unix)]
pub fn of_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The processor time of this thread, so that a busy machine matters little; wall-clock time where there is no such clock.
#[cfg(not(unix))]
pub fn of_thread() -> Duration {
    wall()
}
