//! Query rows in the lanes of vectors: the candidates of a tile times the heads that share a key/value head.

use crate::cpu::vector::WideRows;
use crate::cpu::vector::{FEW, LANES, Lanes, Row, product, product_of_few};
use crate::element::Element;
use crate::host::Host;
use crate::ops::{TargetAttention, TargetAttentionInputs};

/// The inputs of target attention, whatever they are stored as.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct WideInputs<'a> {
    pub(in crate::cpu) queries: WideRows<'a>,
    pub(in crate::cpu) keys: WideRows<'a>,
    /// `None`: the keys are the values.
    pub(in crate::cpu) values: Option<WideRows<'a>>,
    pub(in crate::cpu) bias: Option<&'a [f32]>,
}

impl<'a> WideInputs<'a> {
    pub(in crate::cpu) fn new<T: Element>(inputs: &TargetAttentionInputs<'a, Host, T>) -> Self {
        Self {
            queries: WideRows::new(inputs.queries.as_slice()),
            keys: WideRows::new(inputs.keys.as_slice()),
            values: inputs.values.map(|values| WideRows::new(values.as_slice())),
            bias: inputs.bias.map(|bias| bias.as_slice()),
        }
    }
}

/// Up to [`LANES`] query rows, one per lane.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct LaneRows {
    pub(in crate::cpu) kv_head: usize,
    /// The first row, counted over the candidates of the tile and the heads that share the key/value head.
    pub(in crate::cpu) first: usize,
    pub(in crate::cpu) count: usize,
}

impl LaneRows {
    /// All query rows of `targets` candidates, by key/value head.
    pub(in crate::cpu) fn of(op: &TargetAttention, targets: usize) -> impl Iterator<Item = Self> {
        let rows = targets * (op.heads / op.kv_heads);
        let of_head = move |kv_head| {
            let lanes = move |first| Self { kv_head, first, count: LANES.min(rows - first) };
            (0..rows).step_by(LANES).map(lanes)
        };
        // Without rows there is nothing of any head, of which there may be any number.
        (0..if rows == 0 { 0 } else { op.kv_heads }).flat_map(of_head)
    }

    /// The index of a lane's row among the tile's rows `[targets, H]`.
    pub(in crate::cpu) fn row(&self, op: &TargetAttention, lane: usize) -> usize {
        let shared = op.heads / op.kv_heads;
        let row = self.first + lane;
        row / shared * op.heads + self.kv_head * shared + row % shared
    }

    /// Whether there are so few rows that lanes run along the width of the keys instead.
    pub(in crate::cpu) fn are_few(&self, width: usize) -> bool {
        self.count <= FEW && width.is_multiple_of(LANES)
    }

    /// The rows of `matrix`, `[targets, H, width]`: `[width]`, one lane per row, or `[FEW, width]` if there are few.
    pub(in crate::cpu) fn pack(
        &self,
        op: &TargetAttention,
        matrix: &[f32],
        width: usize,
        are_few: bool,
    ) -> Vec<Row> {
        let mut packed = vec![[0.0; LANES]; if are_few { FEW * width / LANES } else { width }];
        for lane in 0..self.count {
            let row = &matrix[self.row(op, lane) * width..][..width];
            let (start, step) = if are_few { (lane * width, 1) } else { (lane, LANES) };
            let place = packed.as_flattened_mut()[start..].iter_mut().step_by(step);
            place.zip(row).for_each(|(number, value)| *number = *value);
        }
        packed
    }

    /// The scores of a block of behaviours: `[behaviours]`, one lane per row of `queries`, which [`pack`](Self::pack) made.
    #[inline(always)]
    pub(in crate::cpu) fn scores<L: Lanes>(
        &self,
        l: L,
        op: &TargetAttention,
        queries: &[Row],
        block: KeyBlock<'_>,
        scores: &mut [Row],
    ) {
        // Scores are scaled, not queries, which the factor could push out of the range of f32.
        let scale = op.effective_scale();
        let (keys, stride) = (&block.keys[self.kv_head * op.width..], op.kv_heads * op.width);
        let count = scores.len();
        if self.are_few(op.width) {
            product_of_few(l, keys, stride, count, (queries, self.count), |i, dots| {
                scores[i][..FEW].copy_from_slice(&dots.map(|dot| scale * dot));
            });
        } else {
            product(l, keys, stride, count, queries, |i, sums| {
                l.store(&mut scores[i], l.mul(sums, l.splat(scale)));
            });
        }
        if let Some(bias) = block.bias {
            for (scores, bias) in scores.iter_mut().zip(bias[block.first * op.heads..].chunks(op.heads)) {
                for (lane, score) in scores[..self.count].iter_mut().enumerate() {
                    *score += bias[self.row(op, lane) % op.heads];
                }
            }
        }
    }
}

/// Consecutive behaviours.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct KeyBlock<'a> {
    /// `[behaviours, H_kv, d]`.
    pub(in crate::cpu) keys: &'a [f32],
    /// The bias of all behaviours, `[N, H]`.
    pub(in crate::cpu) bias: Option<&'a [f32]>,
    /// The first behaviour of the block.
    pub(in crate::cpu) first: usize,
}
