//! The backward pass of softmax attention for operations that gather their keys and values, a span at a time.

use std::ops::Range;

use crate::cpu::target_attention::backward::kernel::{SpanGradients, SpanKernel};
use crate::cpu::target_attention::backward::pass::{Pass, SpanRows};
use crate::cpu::target_attention::backward::softmax_state::SoftmaxState;
use crate::cpu::target_attention::lane_rows::WideInputs;
use crate::cpu::vector::{Instructions, NarrowRows, WideRows};
use crate::ops::TargetAttention;

/// What the candidates of all spans hold. Scores are `scale·⟨query, key⟩`.
pub(in crate::cpu) struct GatheredAttention<'a> {
    /// The widths of keys and of values.
    pub(in crate::cpu) widths: [usize; 2],
    pub(in crate::cpu) scale: f32,
    /// `[M, d]`.
    pub(in crate::cpu) queries: &'a [f32],
    /// `[M, d_v]`.
    pub(in crate::cpu) grad_out: &'a [f32],
    /// `[M, d_v]`: the output; not needed if the gradients of the values alone are asked for.
    pub(in crate::cpu) out: Option<&'a [f32]>,
    /// `[M]`: the largest score, and `Σ exp(score − max)`, over the whole history.
    pub(in crate::cpu) state: [&'a [f32]; 2],
}

/// The gradients that one span writes, where asked for.
pub(in crate::cpu) struct GatheredGradients<'a> {
    /// `[n, d]`.
    pub(in crate::cpu) keys: Option<&'a mut [f32]>,
    /// `[n, d_v]`.
    pub(in crate::cpu) values: Option<&'a mut [f32]>,
    /// Whether those of the queries are asked for.
    pub(in crate::cpu) queries: bool,
}

impl GatheredAttention<'_> {
    /// Writes the gradients of a span's keys `[n, d]` and values `[n, d_v]` (which are not read for gradients of values alone); returns what it adds to those of the user's queries,
    /// `[C, d]`, or nothing if they are not asked for.
    pub(in crate::cpu) fn span(
        &self,
        instructions: Instructions,
        targets: Range<usize>,
        (keys, values): (&[f32], &[f32]),
        out: GatheredGradients<'_>,
    ) -> Vec<f32> {
        let [width, value_width] = self.widths;
        let [max, sum] = self.state.map(|state| &state[targets.clone()]);
        let states: Vec<SoftmaxState> =
            max.iter().zip(sum).map(|(&max, &sum)| SoftmaxState::new(max, sum)).collect();
        let inputs = WideInputs {
            queries: WideRows::new(self.queries),
            keys: WideRows::new(keys),
            values: Some(WideRows::new(values)),
            bias: None,
        };
        let history = 0..keys.len() / width;
        let pass = Pass {
            op: &TargetAttention::new(width).with_value_width(value_width).with_scale(self.scale),
            inputs,
            // Without an output, what is computed from it is not used. The states stand for the log-sum-exp.
            saved: Some((WideRows::new(self.out.unwrap_or(self.grad_out)), self.state[0])),
            grad_out: WideRows::new(self.grad_out),
            grad_lse: None,
            queries: out.queries,
        };
        let out = SpanGradients {
            keys: out.keys.map(NarrowRows::new),
            values: out.values.map(NarrowRows::new),
            bias: None,
        };
        // Softmax does not depend on the length of the whole history.
        let rows = SpanRows { length: history.len(), history, targets };
        instructions.run(SpanKernel { pass: &pass, rows, states: Some(&states), out })
    }
}
