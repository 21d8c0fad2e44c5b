//! The progress bar on stderr, and printing to stdout while it is shown.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Outcome;

/// A progress bar for the current stage. It draws nothing if stderr is not a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self::on(ProgressDrawTarget::stderr())
    }

    #[cfg(test)]
    pub(crate) fn hidden() -> Self {
        Self::on(ProgressDrawTarget::hidden())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template("{spinner} {msg:36} [{bar:20}] {pos}/{len} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    /// Starts a stage of `steps` steps.
    pub(crate) fn stage(&self, message: &'static str, steps: usize) {
        self.bar.set_message(message);
        self.bar.set_position(0);
        self.bar.set_length(steps as u64);
    }

    /// Completes one step.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// Writes to stdout without disturbing the bar.
    ///
    /// # Errors
    /// If stdout is closed.
    pub(crate) fn print(&self, text: &str) -> Outcome<()> {
        Ok(self.bar.suspend(|| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        })?)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
