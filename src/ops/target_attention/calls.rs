//! The calls of target attention.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::ops::target_attention::backward::{
    PartialAttentionGradients, TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionSaved,
};
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

    /// The gradients of target attention; see [`TargetAttention`]. With the weights `P` and the scores `S` of one candidate and
    /// head, and `D = ⟨grad_out, out⟩`:
    ///
    /// ```text
    /// dP_l = ⟨grad_out, v_l⟩
    /// dS_l = P_l·(dP_l − D + grad_lse)       softmax
    /// dS_l = w′(S_l)·dP_l                    ReLU (0 at 0), SiLU, identity
    /// dv_l = Σ P_l·grad_out   dk_l = scale·Σ dS_l·q   dq = scale·Σ_l dS_l·k_l   dbias[l,h] = Σ_m dS_l
    /// ```
    ///
    /// The sums of `dv` and `dk` are over the user's candidates and the heads that share a key. Weights are computed again, from
    /// the saved `lse`; nothing has the size of candidates × behaviours. Only the gradients that are asked for are computed: all
    /// of them take 2.5 times the arithmetic of the forward pass.
    ///
    /// Every row of a user is overwritten: with zeros where nothing contributes, as for a behaviour that a score of `-∞` removes,
    /// whatever its value holds, or a user without candidates. Rows that belong to nobody are left as they are.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Jagged, TargetAttention, TargetAttentionInputs, TargetAttentionOutputs};
    /// use longseq::{TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionSaved};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
    /// let op = TargetAttention::new(1).with_scale(1.0);
    /// let (queries, keys, values) = ([0.0_f32], [1.0, 3.0], [2.0, 6.0]);
    /// let inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys)).with_values(Host::view(&values));
    /// let (mut out, mut lse) = ([0.0], [0.0]);
    /// let outputs = TargetAttentionOutputs::new(Host::view_mut(&mut out)).with_lse(Host::view_mut(&mut lse));
    /// backend.target_attention_into(&op, &batch, inputs, outputs)?;
    ///
    /// let saved = TargetAttentionSaved::new(Host::view(&out), Host::view(&lse));
    /// let grad_out = [1.0]; // the gradient of a loss that is the output itself
    /// let (mut dq, mut dv) = ([0.0], [0.0; 2]);
    /// let grads = TargetAttentionGradients::new()
    ///     .with_queries(Host::view_mut(&mut dq))
    ///     .with_values(Host::view_mut(&mut dv));
    /// let grad_out = TargetAttentionGradOut::new(Host::view(&grad_out));
    /// backend.target_attention_backward_into(&op, &batch, inputs, saved, grad_out, grads)?;
    /// assert!((dv[0] - 0.5).abs() < 1e-6 && (dv[1] - 0.5).abs() < 1e-6); // the weights
    /// assert!((dq[0] - 2.0).abs() < 1e-5); // Σ w·(v − out)·k = ½·(−2)·1 + ½·2·3
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// Source: FlashAttention, arXiv 2205.14135, appendix B.2, and the derivatives of the other weightings.
    ///
    /// # Errors
    /// Those of [`TargetAttention::check`] and [`TargetAttention::check_backward`]. `Cuda` takes keys and values of up to 256 numbers,
    /// and answers [`Unsupported`](crate::Error::Unsupported) to wider ones.
    fn target_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        batch: &Self::Batch,
        inputs: TargetAttentionInputs<'_, Self::Memory, T>,
        saved: TargetAttentionSaved<'_, Self::Memory, T>,
        grad_out: TargetAttentionGradOut<'_, Self::Memory, T>,
        grads: TargetAttentionGradients<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, saved, grad_out, grads);
        Err(unsupported(self, "target_attention_backward"))
    }

    /// The gradients of a merge, of its first and its second part. With the parts' weights `w_i = exp(lse_i − lse)`:
    ///
    /// ```text
    /// dout_i = w_i·grad_out            dlse_i = w_i·(⟨grad_out, out_i⟩ − ⟨grad_out, out⟩ + grad_lse)
    /// ```
    ///
    /// A part whose log-sum-exp is `-∞` gets zeros, whatever its row holds. Nothing is saved by the forward pass.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut};
    ///
    /// let backend = Cpu::new();
    /// let (first, second, lse, grad_out) = ([4.0_f32], [8.0], [0.0], [1.0]); // equal weights
    /// let (mut first_out, mut first_lse) = ([0.0], [0.0]);
    /// backend.merge_attention_backward_into(
    ///     &TargetAttention::new(1),
    ///     PartialAttention::new(Host::view(&first), Host::view(&lse)),
    ///     PartialAttention::new(Host::view(&second), Host::view(&lse)),
    ///     TargetAttentionGradOut::new(Host::view(&grad_out)),
    ///     PartialAttentionGradients::new()
    ///         .with_out(Host::view_mut(&mut first_out))
    ///         .with_lse(Host::view_mut(&mut first_lse)),
    ///     PartialAttentionGradients::<_, f32>::new(),
    /// )?;
    /// assert_eq!((first_out, first_lse), ([0.5], [-1.0])); // ½·(4 − 6)
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`TargetAttention::check_merge`] and [`TargetAttention::check_merge_backward`].
    fn merge_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Self::Memory, T>,
        second: PartialAttention<'_, Self::Memory, T>,
        grad_out: TargetAttentionGradOut<'_, Self::Memory, T>,
        first_grads: PartialAttentionGradients<'_, Self::Memory, G>,
        second_grads: PartialAttentionGradients<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, first, second, grad_out, first_grads, second_grads);
        Err(unsupported(self, "merge_attention_backward"))
    }
}
