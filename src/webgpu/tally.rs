//! For tests: how much a device was asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    Buffer,
    Upload,
    Dispatch,
    Copy,
    Clear,
    Submission,
}

/// The kinds of [`Asked`].
const KINDS: usize = 6;

/// Counts of one device, by kind.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; KINDS]);

impl Tally {
    pub(crate) fn add(&self, asked: Asked) {
        self.0[asked as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was asked for since the last time, in the order of [`Asked`].
    pub(crate) fn take(&self) -> [u64; KINDS] {
        self.0.each_ref().map(|count| count.swap(0, Ordering::Relaxed))
    }
}
