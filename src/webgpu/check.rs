//! Checks of words on the device: ids against their tables, given signatures against the number of buckets.

use crate::element::Scalar;
use crate::error::Result;
use crate::gpu::{Bound, fit, has_unread_history, id_bound, lock};
use crate::jagged::Batch;
use crate::ops::{IdPolicy, Table};
use crate::webgpu::binding::Binding;
use crate::webgpu::faults::Report;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::tally::Asked;

params! {
    /// Twin of the struct in shaders/shared/check_words.wgsl.
    struct CheckWordsParams {
        base: u32,
        count: u32,
        columns: u32,
    }
}

params! {
    /// Twin of the struct in shaders/shared/fetch_word.wgsl.
    struct FetchWordParams {
        base: u32,
    }
}

fn check_kernel(bits: u32) -> Kernel {
    Kernel {
        name: "shared/check_words",
        params: &CheckWordsParams::BLOCK,
        threads: THREADS,
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
        name: "shared/fetch_word",
        params: &FetchWordParams::BLOCK,
        threads: 1,
        sources: &[include_str!("../../shaders/shared/fetch_word.wgsl")],
        constants: vec![],
        slots: vec![Slot::words("words", bits), Slot::write("report", "u32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [8, 16, 32].into_iter().flat_map(|bits| [check_kernel(bits), fetch_kernel(bits)]).collect()
}

impl Wgpu {
    /// A new report for one argument of one call. It counts once its word is [fetched](Self::fetch_word).
    pub(crate) fn report(
        &self,
        operation: &'static str,
        argument: &'static str,
        bound: Bound,
    ) -> Result<Report> {
        self.report_of_checks(operation, vec![(argument, bound)])
    }

    /// A new report for several checks of one call. It counts once it is [sent](Self::send).
    pub(crate) fn report_of_checks(
        &self,
        operation: &'static str,
        checks: Vec<(&'static str, Bound)>,
    ) -> Result<Report> {
        let buffer = self.allocate(operation, 16)?;
        self.shared.scopes.tally.add(Asked::Upload);
        self.shared.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&[u32::MAX, 0]));
        Ok(Report { binding: Binding::of_call(buffer, false), operation, checks })
    }

    /// Makes the next wait fail if one of the first `count` words of `words` is not below the limit of its column.
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
        let params = CheckWordsParams {
            base: words.base,
            count: fit(operation, argument, count)?,
            columns: limits.len() as u32,
        };
        let bindings = [&words, &list, &report.binding];
        self.dispatch(operation, &check_kernel(bits), &params, &bindings, groups_of(count))?;
        self.fetch_word(&words, bits, report)
    }

    /// Fetches the word at the position that a report found, and makes the next wait read the report. Not before the passes
    /// that fill it are recorded, or a wait of another thread could read it too early.
    pub(crate) fn fetch_word(&self, words: &Binding, bits: u32, report: Report) -> Result<()> {
        let params = FetchWordParams { base: words.base };
        self.dispatch(report.operation, &fetch_kernel(bits), &params, &[words, &report.binding], 1)?;
        self.send(report);
        Ok(())
    }

    /// Makes the next wait read a report, whose passes are all recorded.
    pub(crate) fn send(&self, report: Report) {
        match &self.call {
            Some(call) => lock(call).reports.push(report),
            None => self.push_report(report),
        }
    }

    /// The report for kernels that read these ids, if the policy asks for one.
    pub(crate) fn id_report(
        &self,
        operation: &'static str,
        argument: &'static str,
        policy: IdPolicy,
        tables: &[Table<'_, WgpuMemory>],
    ) -> Result<Option<Report>> {
        id_bound(policy, tables).map(|bound| self.report(operation, argument, bound)).transpose()
    }

    /// As [`id_report`](Self::id_report), for the behaviours of a batch, which kernels read only if their user has candidates.
    /// If a user has none, all ids are checked here, and there is no report.
    pub(crate) fn history_report(
        &self,
        operation: &'static str,
        policy: IdPolicy,
        batch: &Batch,
        ids: Region<'_, u32>,
        tables: &[Table<'_, WgpuMemory>],
    ) -> Result<Option<Report>> {
        if !has_unread_history(batch) {
            return self.id_report(operation, "history_ids", policy, tables);
        }
        self.check_ids(operation, "history_ids", policy, ids, batch.histories().total(), tables)?;
        Ok(None)
    }

    /// Checks ids that no kernel reads, if the policy asks for it.
    pub(crate) fn check_ids(
        &self,
        operation: &'static str,
        argument: &'static str,
        policy: IdPolicy,
        ids: Region<'_, u32>,
        rows: usize,
        tables: &[Table<'_, WgpuMemory>],
    ) -> Result<()> {
        if policy != IdPolicy::Error {
            return Ok(());
        }
        let limits: Vec<usize> = tables.iter().map(|table| table.rows).collect();
        self.check_words(operation, argument, ids, rows * tables.len(), &limits)
    }
}
