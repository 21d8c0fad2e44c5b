//! The backward pass of attention over a selection: what comes in, what is asked for, and their checks.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::selected::inputs::SelectedAttentionInputs;
use crate::ops::selected::parameters::SelectedAttention;
use crate::ops::shape::{copy_views, dim, expect, product, sum};

const NAME: &str = "selected_attention_backward";

/// The gradients that come into the backward pass of attention over a selection.
#[non_exhaustive]
pub struct SelectedAttentionGradOut<'a, S: Memory, T: Element> {
    /// `[M, H, d_v]`: of the output.
    pub out: View<'a, S, T>,
    /// `[M, H]`: of the log-sum-exp, where it was used.
    pub lse: Option<View<'a, S, f32>>,
}

/// The gradients that the backward pass writes: those that are asked for. `G` is the storage type of the inputs, or `f32`.
#[non_exhaustive]
pub struct SelectedAttentionGradients<'a, S: Memory, G: Element> {
    /// `[M, H, d]`.
    pub queries: Option<ViewMut<'a, S, G>>,
    /// `[N, H_kv, d]`; where the keys are the values, the sum of both gradients. Zeros for behaviours that no candidate keeps.
    pub keys: Option<ViewMut<'a, S, G>>,
    /// `[N, H_kv, d_v]`; only with values of their own.
    pub values: Option<ViewMut<'a, S, G>>,
    /// `[N, H]`; only with a bias.
    pub bias: Option<ViewMut<'a, S, f32>>,
    /// `[H, 3]`, the sum over all candidates; only with `gammas`.
    pub gammas: Option<ViewMut<'a, S, f32>>,
    /// `[M, K]`: of the selection's scores; zeros in empty slots and where a behaviour is removed.
    pub similarities: Option<ViewMut<'a, S, f32>>,
}

copy_views!(SelectedAttentionGradOut<T>);

impl<'a, S: Memory, T: Element> SelectedAttentionGradOut<'a, S, T> {
    /// The gradient of the output.
    pub fn new(out: View<'a, S, T>) -> Self {
        Self { out, lse: None }
    }

    /// Sets the gradient of the log-sum-exp, `[M, H]`.
    pub fn with_lse(self, lse: View<'a, S, f32>) -> Self {
        Self { lse: Some(lse), ..self }
    }
}

impl<'a, S: Memory, G: Element> SelectedAttentionGradients<'a, S, G> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { queries: None, keys: None, values: None, bias: None, gammas: None, similarities: None }
    }

    /// Asks for the gradient of the queries, `[M, H, d]`.
    pub fn with_queries(self, queries: ViewMut<'a, S, G>) -> Self {
        Self { queries: Some(queries), ..self }
    }

    /// Asks for the gradient of the keys, `[N, H_kv, d]`.
    pub fn with_keys(self, keys: ViewMut<'a, S, G>) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// Asks for the gradient of the values, `[N, H_kv, d_v]`.
    pub fn with_values(self, values: ViewMut<'a, S, G>) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Asks for the gradient of the bias, `[N, H]`.
    pub fn with_bias(self, bias: ViewMut<'a, S, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Asks for the gradient of `γ₁`, `γ₂`, `γ₃`, `[H, 3]`.
    pub fn with_gammas(self, gammas: ViewMut<'a, S, f32>) -> Self {
        Self { gammas: Some(gammas), ..self }
    }

    /// Asks for the gradient of the similarities, `[M, K]`.
    pub fn with_similarities(self, similarities: ViewMut<'a, S, f32>) -> Self {
        Self { similarities: Some(similarities), ..self }
    }
}

impl<S: Memory, G: Element> Default for SelectedAttentionGradients<'_, S, G> {
    fn default() -> Self {
        Self::new()
    }
}

impl SelectedAttention {
    /// Checks parameters, inputs, what comes into the backward pass and what it is to write.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Shape`] for a view of the wrong size, a gradient asked for of an input that is
    /// not there, and histories that share rows.
    pub fn check_backward<S: Memory, T: Element, G: Element>(
        &self,
        batch: &Batch,
        inputs: &SelectedAttentionInputs<'_, S, T>,
        grad_out: &SelectedAttentionGradOut<'_, S, T>,
        grads: &SelectedAttentionGradients<'_, S, G>,
    ) -> Result<()> {
        self.check_backward_in(batch, inputs, grad_out.out.len(), grad_out.lse.map(|lse| lse.len()))?;
        batch.histories().check_disjoint(NAME)?;
        let asked = |argument, asked, input| expect_gradient(NAME, argument, asked, input);
        asked("grads.queries", length(&grads.queries), Some(inputs.queries.len()))?;
        asked("grads.keys", length(&grads.keys), Some(inputs.keys.len()))?;
        asked("grads.values", length(&grads.values), inputs.values.map(|values| values.len()))?;
        asked("grads.bias", length(&grads.bias), inputs.bias.map(|bias| bias.len()))?;
        asked("grads.gammas", length(&grads.gammas), inputs.gammas.map(|gammas| gammas.len()))?;
        asked("grads.similarities", length(&grads.similarities), Some(inputs.selection.scores.len()))
    }

    /// The same without what it is to write, from the lengths of the gradients that come in.
    pub(crate) fn check_backward_in<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &SelectedAttentionInputs<'_, S, T>,
        grad_out: usize,
        grad_lse: Option<usize>,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)?;
        self.check_grad_out(NAME, batch, grad_out, grad_lse)
    }

    /// Checks the lengths of the gradients that come in.
    pub(crate) fn check_grad_out(
        &self,
        operation: &'static str,
        batch: &Batch,
        grad_out: usize,
        grad_lse: Option<usize>,
    ) -> Result<()> {
        let m = [dim("M", batch.targets().rows()), dim("H", self.heads), dim("d_v", self.value_width)];
        expect(operation, "grad_out.out", grad_out, &m)?;
        grad_lse.map_or(Ok(()), |lse| expect(operation, "grad_out.lse", lse, &m[..2]).map(drop))
    }

    /// Multiplications and additions of the backward pass with all gradients (exponentials not counted): scores and `⟨grad_out, v⟩`
    /// again, and the gradients of queries, keys and values, `2·C·K·H·(3·d + 2·d_v)`, summed over users.
    pub fn backward_flops(&self, batch: &Batch) -> u64 {
        let widths = sum([product(&[3, self.width as u64]), product(&[2, self.value_width as u64])]);
        product(&[2, self.kept(batch), self.heads as u64, widths])
    }

    /// The fewest bytes that a backward pass with all gradients moves, with gradients of type `G`: what the forward pass moves
    /// ([`bytes`](Self::bytes)), and the gradients of queries, and of the keys and values of all behaviours, most of which are zeros.
    pub fn backward_bytes<T: Element, G: Element>(&self, batch: &Batch, aliased: bool) -> u64 {
        let value_width = if aliased { 0 } else { self.value_width as u64 };
        let history = product(&[self.kv_heads as u64, sum([self.width as u64, value_width])]);
        let written = sum([
            product(&[batch.histories().total_length() as u64, history]),
            product(&[batch.targets().total() as u64, self.heads as u64, self.width as u64]),
        ]);
        sum([self.bytes::<T>(batch, aliased), product(&[written, size_of::<G>() as u64])])
    }
}

/// Checks that a gradient that is asked for, of so many numbers, is that of an input, of as many.
pub(super) fn expect_gradient(
    operation: &'static str,
    argument: &'static str,
    asked: Option<usize>,
    input: Option<usize>,
) -> Result<()> {
    match (asked, input) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Error::Shape {
            operation,
            argument,
            expected: "no gradient of an input that is not given".into(),
            got: "a view to write it to".into(),
        }),
        (Some(got), Some(needed)) => expect(operation, argument, got, &[dim("input", needed)]).map(drop),
    }
}

fn length<S: Memory, T: Element>(view: &Option<ViewMut<'_, S, T>>) -> Option<usize> {
    view.as_ref().map(ViewMut::len)
}
