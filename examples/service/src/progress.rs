//! In place of `rank`'s progress bar, for the files of `rank` that are used here: nothing is shown.

/// Nothing.
pub(crate) struct Progress;

impl Progress {
    /// As in `rank`.
    #[cfg(test)]
    pub(crate) fn hidden() -> Self {
        Self
    }

    pub(crate) fn stage(&self, _: &'static str, _: usize) {}

    pub(crate) fn step(&self) {}
}
