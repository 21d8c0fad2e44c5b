//! Times modelled from counts.

use std::fmt;

use super::{Occupancy, Resources, Target};
use crate::exec::{Class, Counts};

/// Warp schedulers per multiprocessor; each issues one warp instruction per clock.
const SCHEDULERS: f64 = 4.0;
/// Sectors that L1 cache and shared memory transfer per clock; a pass over the banks takes one clock as well.
const SECTORS_A_CLOCK: f64 = 4.0;
const SECTOR: f64 = 32.0;

/// A unit of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The schedulers: every instruction takes an issue slot.
    Issue,
    /// Integer arithmetic, logic and moves.
    Integer,
    /// f32 arithmetic.
    Float,
    /// f64 arithmetic.
    Double,
    /// Packed f16 and bf16 arithmetic.
    Half,
    /// Special functions and conversions.
    Special,
    /// Loads, stores, atomics, shuffles: one warp instruction per clock.
    LoadStore,
    /// The data path that shared memory and L1 cache share.
    Data,
    /// Tensor cores.
    Matrix,
}

/// Occupancy and modelled times of one launch on one GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The GPU's name.
    pub target: &'static str,
    /// The figures printed by ptxas.
    pub resources: Resources,
    /// Blocks and warps on one multiprocessor.
    pub occupancy: Occupancy,
    /// Waves: how often the GPU is filled with blocks, the last time possibly in part.
    pub waves: f64,
    /// Modelled: clocks for which each unit of the busiest multiprocessor is busy.
    pub clocks: Vec<(Unit, f64)>,
    /// Modelled: seconds for which the busiest unit is busy.
    pub issue_seconds: f64,
    /// Modelled: seconds of the longest block, or of as many blocks one after the other as each of those that run at a time has; 0 unless
    /// the counts have it. Blocks do not slow each other down in this model, which the other times bound.
    pub latency_seconds: f64,
    /// Modelled: seconds in which device memory transfers all requested sectors, without any cache.
    pub memory_seconds: f64,
    /// Modelled: the same, if every instruction requested the minimum number of sectors.
    pub memory_seconds_minimum: f64,
}

impl Report {
    /// The report of a launch of `blocks` blocks of `threads` threads, with the counts taken by the emulator.
    ///
    /// - clocks of a unit = sum over its classes of warp instructions × 32 / results per clock; for the data path:
    ///   passes over shared memory + sectors / 4; for tensor cores: multiply-adds / rate; for the schedulers: all
    ///   instructions / 4
    /// - the busiest multiprocessor has ⌈blocks / multiprocessors⌉ / blocks of the work
    /// - issue seconds = clocks of its busiest unit / clock rate
    /// - memory seconds = 32 bytes × sectors / bandwidth
    pub fn new(target: &Target, resources: Resources, blocks: u64, threads: u32, counts: &Counts) -> Self {
        Self::with_dynamic_shared(target, resources, blocks, threads, 0, counts)
    }

    /// The same for a launch with dynamic shared memory.
    pub fn with_dynamic_shared(
        target: &Target,
        resources: Resources,
        blocks: u64,
        threads: u32,
        dynamic_shared: u32,
        counts: &Counts,
    ) -> Self {
        let shared = resources.shared + dynamic_shared;
        let occupancy = Occupancy::new(&target.limits, threads, resources.registers, shared);
        let blocks = blocks.max(1);
        let at_once = f64::from(occupancy.blocks) * f64::from(target.multiprocessors);
        let in_turn = if at_once > 0.0 { counts.block_clocks as f64 / at_once } else { 0.0 };
        let latency = in_turn.max(counts.longest_block as f64);
        let share = blocks.div_ceil(target.multiprocessors.into()) as f64 / blocks as f64;
        let clocks: Vec<_> = totals(target, counts).map(|(unit, clocks)| (unit, clocks * share)).into();
        let busiest = clocks.iter().map(|(_, clocks)| *clocks).fold(0.0, f64::max);
        let memory = |sectors: u64| sectors as f64 * SECTOR / target.bandwidth;
        Self {
            target: target.name,
            resources,
            occupancy,
            waves: if at_once > 0.0 { (blocks as f64 / at_once).ceil() } else { f64::INFINITY },
            clocks,
            issue_seconds: busiest / target.clock,
            latency_seconds: latency / target.clock,
            memory_seconds: memory(counts.global_sectors),
            memory_seconds_minimum: memory(counts.global_sectors_minimum),
        }
    }

    /// The unit that is busy longest.
    pub fn busiest(&self) -> Unit {
        let longest = self.clocks.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        longest.map_or(Unit::Issue, |(unit, _)| *unit)
    }
}

/// Clocks of each unit, if one multiprocessor did all the work.
fn totals(target: &Target, counts: &Counts) -> [(Unit, f64); 9] {
    let clocks = |classes: &[Class]| {
        let of = |class: &Class| counts.of(*class) as f64 * target.clocks(*class).unwrap_or(0.0);
        classes.iter().map(of).sum::<f64>()
    };
    let load_store =
        [Class::Global, Class::Shared, Class::Local, Class::Atomic, Class::AsyncCopy, Class::Warp];
    [
        (Unit::Issue, counts.total() as f64 / SCHEDULERS),
        (Unit::Integer, clocks(&[Class::Integer, Class::Move])),
        (Unit::Float, clocks(&[Class::Float])),
        (Unit::Double, clocks(&[Class::Double])),
        (Unit::Half, clocks(&[Class::Half])),
        (Unit::Special, clocks(&[Class::Special, Class::Convert])),
        (Unit::LoadStore, clocks(&load_store)),
        (Unit::Data, counts.shared_passes as f64 + counts.global_sectors as f64 / SECTORS_A_CLOCK),
        (Unit::Matrix, counts.matrix_multiply_adds as f64 / target.matrix),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resources { registers, spill_stores, spill_loads, shared, .. } = self.resources;
        writeln!(
            f,
            "{}: {registers} registers, {spill_stores}+{spill_loads} bytes spilled, {shared} bytes shared",
            self.target
        )?;
        writeln!(
            f,
            "  {} blocks, {} of {} warps per multiprocessor (limited by {:?}), {} waves",
            self.occupancy.blocks,
            self.occupancy.warps,
            self.occupancy.warps_possible,
            self.occupancy.restriction,
            self.waves
        )?;
        write!(
            f,
            "  modelled, not measured: at least {:.1} us in {:?}, {:.1} us in device memory ({:.1} us at best)",
            self.issue_seconds * 1e6,
            self.busiest(),
            self.memory_seconds * 1e6,
            self.memory_seconds_minimum * 1e6
        )
    }
}
