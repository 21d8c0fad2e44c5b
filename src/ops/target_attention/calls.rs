//! The calls of target attention.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::Element;
use crate::error::Result;
use crate::ops::target_attention::inputs::{PartialAttention, TargetAttentionInputs, TargetAttentionOutputs};
use crate::ops::target_attention::parameters::TargetAttention;

/// Target attention on a device; see [`TargetAttention`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait TargetAttentionOps: DeviceOps {
    /// Target attention into given outputs; see [`TargetAttention`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Jagged, TargetAttention, TargetAttentionInputs, TargetAttentionOutputs};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
    /// let (queries, keys, bias) = ([1.0_f32], [1.0, 2.0], [0.0, f32::NEG_INFINITY]); // removes the second behaviour
    /// let inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys)).with_bias(Host::view(&bias));
    /// let (mut out, mut lse) = ([0.0], [0.0]);
    /// let outputs = TargetAttentionOutputs::new(Host::view_mut(&mut out)).with_lse(Host::view_mut(&mut lse));
    /// backend.target_attention_into(&TargetAttention::new(1), &batch, inputs, outputs)?;
    /// assert_eq!((out, lse), ([1.0], [1.0]));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`TargetAttention::check`] and [`TargetAttention::check_outputs`].
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Self::Batch,
        inputs: TargetAttentionInputs<'_, Self::Memory, T>,
        outputs: TargetAttentionOutputs<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, outputs);
        Err(unsupported(self, "target_attention"))
    }

    /// Target attention, `[M, H, d_v]`; see [`TargetAttention`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Jagged, TargetAttention, TargetAttentionInputs, half::f16};
    ///
    /// let backend = Cpu::new();
    /// // Two users: 2 and 0 behaviours, one candidate each; two heads of width 1.
    /// let batch = backend.batch(&Jagged::from_lengths(&[2, 0])?, &Jagged::from_lengths(&[1, 1])?)?;
    /// let queries = backend.upload(&[0.0, 0.0, 0.0, 0.0].map(f16::from_f32))?;
    /// let keys = backend.upload(&[1.0, 10.0, 3.0, 30.0].map(f16::from_f32))?;
    /// let op = TargetAttention::new(1).with_heads(2, 2);
    ///
    /// let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys));
    /// let out = backend.target_attention(&op, &batch, inputs)?;
    /// // Equal scores: the mean. An empty history: zeros.
    /// assert_eq!(*out, [2.0, 20.0, 0.0, 0.0].map(f16::from_f32));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`target_attention_into`](Self::target_attention_into).
    fn target_attention<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Self::Batch,
        inputs: TargetAttentionInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        let outputs = TargetAttentionOutputs { out: self.view_mut(&mut out), lse: None };
        self.target_attention_into(op, batch, inputs, outputs)?;
        Ok(out)
    }

    /// Merges the results of softmax attention over two disjoint spans of the same histories, exactly:
    /// `lse = log(exp lse_a + exp lse_b)`, `out = exp(lse_a − lse)·out_a + exp(lse_b − lse)·out_b`. Any number of results
    /// can be merged, two at a time, in any order. `op` gives the width of a value.
    ///
    /// A part whose `lse` is `-∞` counts for nothing, whatever its row holds; if both are, the row is zeros. An `lse` of `+∞` or
    /// NaN gives NaN in the row and its `lse`. Any other part counts, even where its weight is 0. Rows may have any size.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, PartialAttention, TargetAttention, TargetAttentionOutputs};
    ///
    /// let backend = Cpu::new();
    /// // One candidate: the weights of the first span add up to three times those of the second.
    /// let (first, second) = ([4.0_f32, 0.0], [0.0, 8.0]);
    /// let (first_lse, second_lse) = ([3.0_f32.ln()], [0.0]);
    /// let mut out = [0.0; 2];
    /// backend.merge_attention_into(
    ///     &TargetAttention::new(2),
    ///     PartialAttention::new(Host::view(&first), Host::view(&first_lse)),
    ///     PartialAttention::new(Host::view(&second), Host::view(&second_lse)),
    ///     TargetAttentionOutputs::new(Host::view_mut(&mut out)),
    /// )?;
    /// assert!((out[0] - 3.0).abs() < 1e-6 && (out[1] - 2.0).abs() < 1e-6);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`TargetAttention::check_merge`].
    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Self::Memory, T>,
        second: PartialAttention<'_, Self::Memory, T>,
        outputs: TargetAttentionOutputs<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, first, second, outputs);
        Err(unsupported(self, "merge_attention"))
    }
}
