//! Rows of behaviours and candidates with the rows of their positions added.

use std::borrow::Cow;
use std::ops::Range;

use crate::cpu::vector::{Lanes, WideRows, add_lanes, sum_lanes};
use crate::element::Element;
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::{Tin, TinInputs};

/// Rows of behaviours and candidates, and of the positions that are added to them.
pub(super) struct PositionedRows<'a> {
    pub(super) op: &'a Tin,
    targets: WideRows<'a>,
    history: WideRows<'a>,
    /// `[P, d]`.
    positions: Cow<'a, [f32]>,
    history_positions: Option<&'a [u32]>,
    target_positions: Option<&'a [u32]>,
    /// For each candidate the end of its user's history.
    pub(super) ends: Vec<usize>,
}

impl<'a> PositionedRows<'a> {
    pub(super) fn new<T: Element>(op: &'a Tin, batch: &Batch, inputs: &TinInputs<'a, Host, T>) -> Self {
        let positions = match WideRows::new(inputs.positions.as_slice()) {
            WideRows::F32(rows) => Cow::Borrowed(rows),
            rows => Cow::Owned(rows.to_vec(0..op.positions * op.width)),
        };
        let ends = batch.requests().flat_map(|(history, targets)| targets.map(move |_| history.end));
        Self {
            op,
            targets: WideRows::new(inputs.targets.as_slice()),
            history: WideRows::new(inputs.history.as_slice()),
            positions,
            history_positions: inputs.history_positions.map(|positions| positions.as_slice()),
            target_positions: inputs.target_positions.map(|positions| positions.as_slice()),
            ends: ends.collect(),
        }
    }

    /// A row of the table of positions.
    #[inline(always)]
    fn position(&self, position: usize) -> &[f32] {
        &self.positions[position * self.op.width..][..self.op.width]
    }

    /// `f(m)`.
    #[inline(always)]
    pub(super) fn target_position(&self, m: usize) -> usize {
        self.target_positions.map_or(0, |positions| positions[m] as usize)
    }

    /// `f(l)` in a history that ends there.
    #[inline(always)]
    pub(super) fn behaviour_position(&self, l: usize, end: usize) -> usize {
        match self.history_positions {
            Some(positions) => positions[l] as usize,
            None => (end - l).min(self.op.positions - 1),
        }
    }

    /// `ṽ` of some candidates.
    #[inline(always)]
    pub(super) fn targets<L: Lanes>(&self, l: L, targets: Range<usize>) -> Vec<f32> {
        let width = self.op.width;
        let mut rows = self.targets.to_vec(targets.start * width..targets.end * width);
        for (m, row) in targets.zip(rows.chunks_exact_mut(width)) {
            add_lanes(l, row, self.position(self.target_position(m)));
        }
        rows
    }

    /// `ẽ` of some behaviours of a history that ends there.
    #[inline(always)]
    pub(super) fn behaviours<L: Lanes>(&self, l: L, rows: Range<usize>, end: usize, out: &mut [f32]) {
        let width = self.op.width;
        if let WideRows::F32(history) = self.history {
            let history = history[rows.start * width..rows.end * width].chunks_exact(width);
            for ((behaviour, row), out) in rows.zip(history).zip(out.chunks_exact_mut(width)) {
                sum_lanes(l, row, self.position(self.behaviour_position(behaviour, end)), out);
            }
            return;
        }
        self.history.widen_to(l, rows.start * width..rows.end * width, out);
        for (behaviour, out) in rows.zip(out.chunks_exact_mut(width)) {
            add_lanes(l, out, self.position(self.behaviour_position(behaviour, end)));
        }
    }
}
