//! The calls of DIN's local activation unit.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::din::backward::{DinGradients, DinStatistics};
use crate::ops::din::inputs::DinInputs;
use crate::ops::din::parameters::Din;

/// DIN's local activation unit on a device; see [`Din`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait DinOps: DeviceOps {
    /// DIN's local activation unit into a given output `[M, d]`; see [`Din`].
    ///
    /// # Errors
    /// Those of [`Din::check`].
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "din"))
    }

    /// DIN's local activation unit, `[M, d]`; see [`Din`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Activation, Cpu, Din, DinInputs, DinLayer, DinPooling, Host, Jagged};
    ///
    /// let backend = Cpu::new();
    /// // Two users with 2 and 0 behaviours, one candidate each; width 2, two hidden layers of 3 and 2 units.
    /// let batch = backend.batch(&Jagged::from_lengths(&[2, 0])?, &Jagged::from_lengths(&[1, 1])?)?;
    /// let (targets, history) = ([0.5_f32; 4], [1.0, 2.0, 3.0, 4.0]);
    /// let (w1, b1, w2, b2) = ([0.0_f32; 3 * 8], [0.0; 3], [0.0_f32; 2 * 3], [0.0; 2]);
    /// let hidden = [
    ///     DinLayer::new(Host::view(&w1), Host::view(&b1), Activation::Sigmoid),
    ///     DinLayer::new(Host::view(&w2), Host::view(&b2), Activation::Prelu { alpha: Host::view(&[0.25]) }),
    /// ];
    /// let (w3, b3) = ([1.0_f32; 2], [0.0]);
    /// let inputs = DinInputs::new(
    ///     Host::view(&targets),
    ///     Host::view(&history),
    ///     &hidden,
    ///     Host::view(&w3),
    ///     Host::view(&b3),
    /// );
    /// let op = Din::new(2).with_pooling(DinPooling::Softmax);
    /// let out = backend.din(&op, &batch, inputs)?;
    /// assert_eq!(*out, [2.0, 3.0, 0.0, 0.0]); // equal scores: the mean; an empty history: zeros
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`din_into`](Self::din_into).
    fn din<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.din_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// The gradients of [`din`](Self::din) that `grads` asks for, from that of its output, `grad_out: [M, d]`.
    ///
    /// For a candidate `q` with `da_l` the gradient of the network's output for its behaviour `s_l`, and `y`, `x` the numbers of
    /// a layer before and after its activation `f`:
    ///
    /// ```text
    /// dw_l = ⟨grad_out, s_l⟩
    /// da_l = dw_l                              sum
    /// da_l = w_l·(dw_l − D), D = Σ_i w_i·dw_i  softmax
    /// dW_out = Σ da·x   db_out = Σ da   dx = W_outᵀ·da        over all pairs of the batch
    /// dy = f′(y)·dx   dW = Σ dy ⊗ x   db = Σ dy   dx = Wᵀ·dy  from the last hidden layer to the first
    /// dq = Σ_l (dx_1 + dx_3 + dx_4 ⊙ s_l)                     with the blocks dx = [dx_1 ; dx_2 ; dx_3 ; dx_4] of the first layer
    /// ds_l = Σ_m (w_l·grad_out + dx_2 − dx_3 + dx_4 ⊙ q)
    /// ```
    ///
    /// `f′` is 0 at 0 for ReLU, and `α` at 0 for PReLU. PReLU: `dα = Σ dx·min(y, 0)`, over all channels where they share one.
    /// Dice, with `p = σ(gain·y + shift)` and `r = p·(1 − p)·(1 − α)`:
    ///
    /// ```text
    /// f′ = p + α(1 − p) + y·r·gain   dα = Σ dx·y·(1 − p)   dgain = Σ dx·y²·r   dshift = Σ dx·y·r
    /// ```
    ///
    /// Gradients have the type of what they belong to, or `f32`; sums are `f32`, in parts. What is not asked for is not computed.
    /// What is asked for is overwritten: zeros for a user without candidates, for an empty history and for a behaviour that a
    /// score of `-∞` removes, whatever it holds. Rows that belong to no user are left unchanged. A gradient is NaN or infinite
    /// where its sums exceed `f32`, and NaN where an input that it depends on is.
    ///
    /// Nothing is saved by the forward pass, and nothing of size `L×C` is stored: the layers are computed again, for a few
    /// behaviours at a time. With softmax, a first pass over a long history (on `Cpu`, of more than about a thousand behaviours)
    /// computes every candidate's largest score, sum of exponentials and `D`. Multiplications: three times the network's (four times with softmax over a long history), with
    /// the first layer folded as in the forward pass: with `G_m = Σ_l dy ⊗ s_l` of a candidate, the gradients of the first layer's
    /// blocks are `Σ_m G_m` and `Σ_m G_m·diag(q_m)`, and `dx_4 ⊙ s_l` sums to the columns of `W_4 ⊙ G_m`.
    ///
    /// On every backend. `Cuda` and `Wgpu` compute the pairs in parts whose layers take at most 16 MiB; beyond inputs and outputs they also
    /// keep an `f32` row for each candidate (`Wgpu` only where gradients are stored in 16 bits), and, with softmax, 16 bytes.
    ///
    /// Source: backpropagation through [`Din`]'s formula.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Activation, Cpu, Din, DinGradients, DinInputs, DinLayer, DinLayerGradients, Host, Jagged};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
    /// let (targets, history) = ([1.0_f32], [2.0, 3.0]);
    /// // One hidden unit over [q ; s ; q − s ; q ⊙ s], whose weights select q ⊙ s: out = Σ (q·s + 0.5)·s.
    /// let (weight, bias) = ([0.0_f32, 0.0, 0.0, 1.0], [0.0]);
    /// let hidden = [DinLayer::new(Host::view(&weight), Host::view(&bias), Activation::Relu)];
    /// let (output_weight, output_bias) = ([1.0_f32], [0.5]);
    /// let inputs = DinInputs::new(
    ///     Host::view(&targets),
    ///     Host::view(&history),
    ///     &hidden,
    ///     Host::view(&output_weight),
    ///     Host::view(&output_bias),
    /// );
    /// let (mut grad_history, mut grad_weight) = ([0.0_f32; 2], [0.0_f32; 4]);
    /// let mut layers = [DinLayerGradients::new().with_weight(Host::view_mut(&mut grad_weight))];
    /// let grads =
    ///     DinGradients::new().with_history(Host::view_mut(&mut grad_history)).with_hidden(&mut layers);
    /// backend.din_backward_into(&Din::new(1), &batch, inputs, Host::view(&[1.0]), grads)?;
    /// assert_eq!(grad_history, [2.0 * 2.0 + 0.5, 2.0 * 3.0 + 0.5]); // 2·q·s + 0.5
    /// assert_eq!(grad_weight[3], 2.0 * 2.0 + 3.0 * 3.0); // Σ s·(q·s)
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Din::check_backward`]; nothing is written then. On `Cuda` and `Wgpu` [`Limit`](crate::Error::Limit) for a hidden layer of
    /// more than 256 units, as in the forward pass.
    fn din_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
        grad_out: View<'_, Self::Memory, T>,
        grads: DinGradients<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, grad_out, grads);
        Err(unsupported(self, "din_backward"))
    }

    /// Statistics of the numbers `y` of one hidden layer (0 is the first) before its activation, over all pairs of a candidate
    /// and a behaviour of its user.
    ///
    /// ```text
    /// count = Σ_users L·C     mean = Σ y / count     centred_squares = Σ (y − mean)²
    /// ```
    ///
    /// `count` is [`Batch::pairs`](crate::Batch::pairs), known without a call. Dice in training mode normalises by `mean` and
    /// `var = centred_squares / count` (`count − 1`: unbiased). The layers before the asked one are computed as they are given,
    /// so a network with several Dice layers takes the statistics of one layer after the other, folding each
    /// ([`fold_dice`](crate::fold_dice)) before the next; the layers after it are not computed.
    /// [`din_backward_into`](Self::din_backward_into) gives the gradients of `gain` and `shift`, from which those through the
    /// statistics follow.
    ///
    /// A NaN in any pair makes its channel NaN. Without pairs, all are zeros. On every backend.
    ///
    /// Source: Dice is eq. 3 of "Deep Interest Network", arXiv 1706.06978; parts are merged as in Chan, Golub and LeVeque,
    /// "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Activation, Cpu, Din, DinInputs, DinLayer, DinStatistics, Host, Jagged};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
    /// let (targets, history) = ([1.0_f32], [2.0, 4.0]);
    /// let (weight, bias) = ([0.0_f32, 1.0, 0.0, 0.0], [0.0]); // y = s
    /// let hidden = [DinLayer::new(Host::view(&weight), Host::view(&bias), Activation::Relu)];
    /// let output = ([1.0_f32], [0.0]);
    /// let inputs = DinInputs::new(
    ///     Host::view(&targets),
    ///     Host::view(&history),
    ///     &hidden,
    ///     Host::view(&output.0),
    ///     Host::view(&output.1),
    /// );
    /// let (mut mean, mut squares) = ([0.0], [0.0]);
    /// let out = DinStatistics::new(Host::view_mut(&mut mean), Host::view_mut(&mut squares));
    /// backend.din_statistics_into(&Din::new(1), &batch, inputs, 0, out)?;
    /// assert_eq!((mean, squares), ([3.0], [2.0]));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Din::check_statistics`].
    fn din_statistics_into<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
        layer: usize,
        out: DinStatistics<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, layer, out);
        Err(unsupported(self, "din_statistics"))
    }
}
