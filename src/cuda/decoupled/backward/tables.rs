//! From gradients of candidates and behaviours to gradients of tables: sums by id, as look-ups have them. The ids of a feature are sorted
//! for its tables of both sets.

use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::lookup::backward::{Job, OwnSort, Runs, heads, jobs};
use crate::cuda::lookup::sort::Column;
use crate::cuda::memory::{CudaMemory, Region};
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{Table, TableGradient, total_width};

const WORD: u64 = size_of::<u32>() as u64;

/// The tables of one set, and where their gradients go.
pub(super) struct Asked<'a> {
    pub(super) tables: &'a [Table<'a, CudaMemory>],
    pub(super) jobs: Vec<Option<Job>>,
    /// Whether candidates read the tables.
    pub(super) with_candidates: bool,
}

/// Ids of candidates, `[C, F]`, and of behaviours or slots, `[n, F]`. Candidates have the first positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) candidates: u64,
    pub(super) behaviours: u64,
    /// C and n.
    pub(super) lengths: [usize; 2],
    pub(super) features: usize,
}

/// The rows that are summed, `[_, Σ width]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceRows {
    pub(super) rows: u64,
    /// Of each position its row and a factor; 0: positions are rows.
    pub(super) bags: u64,
}

/// Memory for sums by id.
pub(super) struct Summing {
    sort: OwnSort,
    heads: u64,
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        gpu: &Cuda,
        operation: &'static str,
        tables: &'a [Table<'a, CudaMemory>],
        gradients: &[Option<TableGradient<'_, CudaMemory>>],
        with_candidates: bool,
    ) -> Result<Self> {
        for table in tables {
            // An id is a key; the largest stands for none.
            fit(operation, "tables", table.rows)?;
        }
        let jobs = jobs(gpu, operation, tables, Region::new(0, 0), gradients)?;
        Ok(Self { tables, jobs, with_candidates })
    }

    pub(super) fn is_any(&self) -> bool {
        self.jobs.iter().any(Option::is_some)
    }

    /// The gradients that are asked for, with their features.
    pub(super) fn each(&self) -> impl Iterator<Item = (usize, &Job)> {
        self.jobs.iter().enumerate().filter_map(|(feature, job)| Some((feature, job.as_ref()?)))
    }

    pub(super) fn width(&self) -> usize {
        total_width(self.tables)
    }
}

impl Summing {
    /// For the gradients of some sets, and so many positions.
    pub(super) fn new(call: &mut Call<'_>, sets: &[&Asked<'_>], positions: usize) -> Result<Self> {
        let jobs: Vec<&Job> = sets.iter().flat_map(|asked| asked.each().map(|(_, job)| job)).collect();
        Ok(Self { sort: OwnSort::new(call, positions)?, heads: heads(call, &jobs, positions)? })
    }

    /// The ids of a feature in order.
    pub(super) fn sorted(
        &self,
        call: &Call<'_>,
        keys: &Keys,
        (feature, rows): (usize, usize),
        with_candidates: bool,
    ) -> Result<Runs> {
        let [candidates, behaviours] = keys.lengths;
        let (ids, more_ids, lengths) = match with_candidates {
            true => (keys.candidates, keys.behaviours, [candidates, candidates + behaviours]),
            false => (keys.behaviours, 0, [behaviours; 2]),
        };
        let features = keys.features;
        self.sort
            .sort_column(call, &Column { ids, more_ids, records: [0, 0], lengths, features, feature, rows })
    }

    /// Sums the rows of each id, and writes where `place` says, or does what else there is to do.
    pub(super) fn sum(
        &self,
        call: &Call<'_>,
        keys: &Keys,
        sets: &[(&Asked<'_>, SourceRows)],
        mut place: impl FnMut(&Call<'_>, &Job, &mut dyn FnMut(&Job) -> Result<Runs>) -> Result<()>,
    ) -> Result<()> {
        for feature in 0..keys.features {
            let mut runs: Option<(bool, Runs)> = None;
            for (asked, from) in sets {
                let Some(job) = asked.jobs.get(feature).and_then(Option::as_ref) else { continue };
                let sorted = match runs {
                    Some((with_candidates, sorted)) if with_candidates == asked.with_candidates => sorted,
                    _ => self.sorted(call, keys, (feature, job.rows), asked.with_candidates)?,
                };
                runs = Some((asked.with_candidates, sorted));
                // Candidates come first where there are any.
                let skipped = if asked.with_candidates { 0 } else { keys.lengths[0] as u64 };
                let stride = asked.width() as u64 * WORD;
                let (rows, bags) = match from.bags {
                    0 => (from.rows + skipped * stride, 0),
                    bags => (from.rows, bags + skipped * 2 * WORD),
                };
                let own = Job { grad: Region::new(rows + job.grad.pointer, 0), ..*job };
                place(call, &own, &mut |job| {
                    job.run(call, &sorted, bags, self.heads)?;
                    Ok(sorted)
                })?;
            }
        }
        Ok(())
    }
}
