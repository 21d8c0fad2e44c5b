//! Checks of words on the device: ids against their tables, given signatures against the number of buckets.

use crate::element::Scalar;
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::webgpu::Wgpu;
use crate::webgpu::faults::Report;
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::memory::Region;
use crate::webgpu::shader::{Kernel, Slot};

fn check_kernel(bits: u32) -> Kernel {
    Kernel {
        name: "check_words",
        sources: &[include_str!("../../shaders/shared/check_words.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::words("words", bits),
            Slot::plain("limits", "u32"),
            Slot::write("report", "atomic<u32>"),
        ],
    }
}

fn fetch_kernel(bits: u32) -> Kernel {
    Kernel {
        name: "fetch_word",
        sources: &[include_str!("../../shaders/shared/fetch_word.wgsl")],
        constants: vec![],
        slots: vec![Slot::words("words", bits), Slot::write("report", "u32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [8, 16, 32].into_iter().flat_map(|bits| [check_kernel(bits), fetch_kernel(bits)]).collect()
}

impl Wgpu {
    /// Has the next wait fail if one of the first `count` words of `words` is not below the limit of its column.
    pub(crate) fn check_words<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        words: Region<'_, T>,
        count: usize,
        limits: &[usize],
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let words = self.bind(operation, argument, &words.rows(0, count, 1))?;
        let highest = |&limit: &usize| u32::try_from(limit).unwrap_or(u32::MAX);
        let list = self.list(operation, &limits.iter().map(highest).collect::<Vec<_>>())?;
        let bound = Bound::Columns(limits.iter().map(|&limit| limit as u64).collect());
        let report = self.report(operation, argument, bound)?;
        let bits = 8 * size_of::<T>() as u32;
        let params =
            Params::default().u32s(&[words.base, fit(operation, argument, count)?, limits.len() as u32]);
        let bindings = [&words, &list, &report.binding];
        self.dispatch(&check_kernel(bits), params, &bindings, count.div_ceil(64) as u64)?;
        self.fetch_word(&words, bits, report)
    }

    /// Notes the word at the position that a report found, and has the next wait look at the report: no earlier, or
    /// another thread's wait would read it before the passes that fill it.
    pub(crate) fn fetch_word(&self, words: &Binding, bits: u32, report: Report) -> Result<()> {
        let params = Params::default().u32s(&[words.base]);
        self.dispatch(&fetch_kernel(bits), params, &[words, &report.binding], 1)?;
        self.reports.push(report);
        Ok(())
    }
}
