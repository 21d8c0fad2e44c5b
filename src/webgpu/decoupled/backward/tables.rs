//! From gradients of candidates and behaviours to gradients of tables: sums by id, as look-ups have them. The ids of a feature are sorted
//! for its tables of both sets.

use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{Table, TableGradient, total_width};
use crate::webgpu::binding::Binding;
use crate::webgpu::lookup::backward::{jobs, sorted_runs};
use crate::webgpu::lookup::runs::Runs;
use crate::webgpu::lookup::sort::{IdList, Sort};
use crate::webgpu::lookup::table_gradient::Job;
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::state::Wgpu;

/// The tables of one set, and where their gradients go.
pub(super) struct Asked<'a> {
    pub(super) tables: &'a [Table<'a, WgpuMemory>],
    pub(super) jobs: Vec<Option<Job>>,
    /// Whether candidates read the tables.
    pub(super) with_candidates: bool,
}

/// Ids of candidates, `[C, F]`, and of behaviours or slots, `[n, F]`. Candidates have the first positions.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) candidates: Binding,
    pub(super) behaviours: Binding,
    /// C and n.
    pub(super) lengths: [usize; 2],
    pub(super) features: usize,
}

/// The rows that are summed, `[_, Σ width]`.
pub(super) struct SourceRows {
    pub(super) rows: Binding,
    /// Of each position of the set its row and a factor; `None`: positions are rows.
    pub(super) bags: Option<Binding>,
}

impl<'a> Asked<'a> {
    /// Gradients of at most `most` ids each, of which no kernel that writes them also reads one of `read`.
    pub(super) fn new(
        gpu: &Wgpu,
        operation: &'static str,
        tables: &'a [Table<'a, WgpuMemory>],
        gradients: &[Option<TableGradient<'_, WgpuMemory>>],
        (with_candidates, most): (bool, usize),
        read: &[&wgpu::Buffer],
    ) -> Result<Self> {
        for table in tables {
            // An id is a key; the largest stands for none.
            fit(operation, "tables", table.rows)?;
        }
        let jobs = jobs(gpu, operation, tables, (gpu.nothing(), most), gradients, read)?;
        Ok(Self { tables, jobs, with_candidates })
    }

    pub(super) fn is_any(&self) -> bool {
        self.jobs.iter().any(Option::is_some)
    }

    pub(super) fn width(&self) -> usize {
        total_width(self.tables)
    }

    /// Checks that the device counts and holds what sums of so many positions need, before anything is written.
    pub(super) fn check_room(&self, gpu: &Wgpu, positions: usize) -> Result<()> {
        self.jobs.iter().flatten().try_for_each(|job| job.check_room(gpu, positions))
    }

    /// Ends the outputs.
    pub(super) fn finish(self, gpu: &Wgpu) -> Result<()> {
        self.jobs.into_iter().flatten().try_for_each(|job| job.finish(gpu))
    }
}

/// A binding from so many words on.
pub(super) fn from_word(binding: &Binding, words: usize) -> Binding {
    Binding { base: binding.base + words as u32, ..binding.clone() }
}

/// The ids of a feature in order.
pub(super) fn sorted(
    gpu: &Wgpu,
    operation: &'static str,
    keys: &Keys,
    (feature, rows): (usize, usize),
    with_candidates: bool,
) -> Result<Runs> {
    let ([candidates, behaviours], features) = (keys.lengths, keys.features);
    let first = if with_candidates { candidates } else { 0 };
    let sort = Sort::new(gpu, operation, first + behaviours, rows)?;
    let list = |ids, first, length| IdList { ids, features, feature, first, length, report: None };
    if with_candidates {
        sort.load(&list(&keys.candidates, 0, candidates))?;
    }
    sort.load(&list(&keys.behaviours, first, behaviours))?;
    sorted_runs(&sort, [first + behaviours, rows])
}

/// Sorts the ids of each feature that is asked for, gives the jobs their rows, and does `work`, with set and feature and
/// the bags of the positions.
pub(super) fn sum(
    gpu: &Wgpu,
    operation: &'static str,
    keys: &Keys,
    sets: &mut [(&mut Asked<'_>, SourceRows)],
    mut work: impl FnMut([usize; 2], &Job, &Runs, Option<&Binding>) -> Result<()>,
) -> Result<()> {
    // The scratch memory of a feature serves the next.
    let mut of_feature = |feature: usize| {
        let mut runs: Option<(bool, Runs)> = None;
        for (set, (asked, from)) in sets.iter_mut().enumerate() {
            let (width, with_candidates) = (asked.width(), asked.with_candidates);
            let rows = asked.tables.get(feature).map_or(0, |table| table.rows);
            let Some(job) = asked.jobs.get_mut(feature).and_then(Option::as_mut) else { continue };
            let sorted = match runs {
                Some((of_candidates, sorted)) if of_candidates == with_candidates => sorted,
                _ => sorted(gpu, operation, keys, (feature, rows), with_candidates)?,
            };
            job.grad = from.rows.clone();
            // Rows of candidates come first where there are any.
            if !with_candidates && from.bags.is_none() {
                job.grad = from_word(&job.grad, keys.lengths[0] * width);
            }
            work([set, feature], job, &sorted, from.bags.as_ref())?;
            runs = Some((with_candidates, sorted));
        }
        Ok(())
    };
    (0..keys.features).try_for_each(|feature| gpu.part(|| of_feature(feature)))
}
