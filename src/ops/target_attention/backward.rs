//! Gradients of target attention and of its merge: what comes in, what goes out, and their shape rules.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::{copy_views, dim, expect, product, sum};
use crate::ops::target_attention::inputs::{PartialAttention, TargetAttentionInputs};
use crate::ops::target_attention::parameters::{TargetAttention, Weighting};

const NAME: &str = "target_attention_backward";
const MERGE: &str = "merge_attention_backward";

/// What the backward pass takes from the forward pass.
#[non_exhaustive]
pub struct TargetAttentionSaved<'a, S: Memory, T: Element> {
    /// `[M, H, d_v]`: the output; needed with softmax.
    pub out: Option<View<'a, S, T>>,
    /// `[M, H]`: the log-sum-exp; needed with softmax.
    pub lse: Option<View<'a, S, f32>>,
}

/// The gradients that come into the backward pass.
#[non_exhaustive]
pub struct TargetAttentionGradOut<'a, S: Memory, T: Element> {
    /// `[M, H, d_v]`: of the output.
    pub out: View<'a, S, T>,
    /// `[M, H]`: of the log-sum-exp, where it was used; only with softmax.
    pub lse: Option<View<'a, S, f32>>,
}

/// The gradients that the backward pass writes: those that are asked for. `G` is the storage type of the inputs, or `f32`.
#[non_exhaustive]
pub struct TargetAttentionGradients<'a, S: Memory, G: Element> {
    /// `[M, H, d]`.
    pub queries: Option<ViewMut<'a, S, G>>,
    /// `[N, H_kv, d]`; where the keys are the values, the sum of both gradients.
    pub keys: Option<ViewMut<'a, S, G>>,
    /// `[N, H_kv, d_v]`; only with values of their own.
    pub values: Option<ViewMut<'a, S, G>>,
    /// `[N, H]`; only with a bias.
    pub bias: Option<ViewMut<'a, S, f32>>,
}

/// The gradients of one of two merged parts: those that are asked for.
#[non_exhaustive]
pub struct PartialAttentionGradients<'a, S: Memory, G: Element> {
    /// `[M, H, d_v]`.
    pub out: Option<ViewMut<'a, S, G>>,
    /// `[M, H]`.
    pub lse: Option<ViewMut<'a, S, f32>>,
}

copy_views!(TargetAttentionSaved<T>, TargetAttentionGradOut<T>);

impl<'a, S: Memory, T: Element> TargetAttentionSaved<'a, S, T> {
    /// The output and the log-sum-exp of the forward pass, for softmax.
    pub fn new(out: View<'a, S, T>, lse: View<'a, S, f32>) -> Self {
        Self { out: Some(out), lse: Some(lse) }
    }

    /// Nothing: enough for every weighting but softmax.
    pub fn none() -> Self {
        Self { out: None, lse: None }
    }
}

impl<'a, S: Memory, T: Element> TargetAttentionGradOut<'a, S, T> {
    /// The gradient of the output.
    pub fn new(out: View<'a, S, T>) -> Self {
        Self { out, lse: None }
    }

    /// Sets the gradient of the log-sum-exp, `[M, H]`.
    pub fn with_lse(self, lse: View<'a, S, f32>) -> Self {
        Self { lse: Some(lse), ..self }
    }
}

impl<'a, S: Memory, G: Element> TargetAttentionGradients<'a, S, G> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { queries: None, keys: None, values: None, bias: None }
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
}

impl<S: Memory, G: Element> Default for TargetAttentionGradients<'_, S, G> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, S: Memory, G: Element> PartialAttentionGradients<'a, S, G> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { out: None, lse: None }
    }

    /// Asks for the gradient of the part's output, `[M, H, d_v]`.
    pub fn with_out(self, out: ViewMut<'a, S, G>) -> Self {
        Self { out: Some(out), ..self }
    }

    /// Asks for the gradient of the part's log-sum-exp, `[M, H]`.
    pub fn with_lse(self, lse: ViewMut<'a, S, f32>) -> Self {
        Self { lse: Some(lse), ..self }
    }
}

impl<S: Memory, G: Element> Default for PartialAttentionGradients<'_, S, G> {
    fn default() -> Self {
        Self::new()
    }
}

impl TargetAttention {
    /// Checks parameters, inputs, what comes into the backward pass and what it is to write.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Shape`] for a view of the wrong size, a saved value that softmax needs and that is missing, a gradient asked
    /// for of an input that is not there, and histories that share rows; [`Error::Unsupported`] for the gradient of `lse` without softmax.
    pub fn check_backward<S: Memory, T: Element, G: Element>(
        &self,
        batch: &Batch,
        inputs: &TargetAttentionInputs<'_, S, T>,
        saved: &TargetAttentionSaved<'_, S, T>,
        grad_out: &TargetAttentionGradOut<'_, S, T>,
        grads: &TargetAttentionGradients<'_, S, G>,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)?;
        batch.histories().check_disjoint(NAME)?;
        let m = [dim("M", batch.targets().rows()), dim("H", self.heads), dim("d_v", self.value_width)];
        let softmax = self.weighting == Weighting::Softmax;
        expect_saved("saved.out", saved.out.map(|out| out.len()), &m, softmax)?;
        expect_saved("saved.lse", saved.lse.map(|lse| lse.len()), &m[..2], softmax)?;
        expect(NAME, "grad_out.out", grad_out.out.len(), &m)?;
        if let Some(lse) = &grad_out.lse {
            expect(NAME, "grad_out.lse", lse.len(), &m[..2])?;
            if !softmax {
                return Err(Error::Unsupported {
                    operation: NAME,
                    what: format!("grad_out.lse with {:?} weights", self.weighting),
                    supported: "grad_out.lse with Softmax weights".into(),
                });
            }
        }
        let asked = |argument, asked: Option<usize>, input: Option<usize>| match (asked, input) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Error::Shape {
                operation: NAME,
                argument,
                expected: "no gradient of an input that is not given".into(),
                got: "a view to write it to".into(),
            }),
            (Some(got), Some(needed)) => expect(NAME, argument, got, &[dim("input", needed)]).map(drop),
        };
        asked("grads.queries", length(&grads.queries), Some(inputs.queries.len()))?;
        asked("grads.keys", length(&grads.keys), Some(inputs.keys.len()))?;
        asked("grads.values", length(&grads.values), inputs.values.map(|values| values.len()))?;
        asked("grads.bias", length(&grads.bias), inputs.bias.map(|bias| bias.len()))
    }

    /// Checks parts, what comes into the backward pass of their merge and what it is to write, and returns the number of rows.
    ///
    /// # Errors
    /// Those of [`check_merge`](Self::check_merge); [`Error::Shape`] for a view of the wrong size.
    pub fn check_merge_backward<S: Memory, T: Element, G: Element>(
        &self,
        parts: [&PartialAttention<'_, S, T>; 2],
        grad_out: &TargetAttentionGradOut<'_, S, T>,
        grads: [&PartialAttentionGradients<'_, S, G>; 2],
    ) -> Result<usize> {
        let rows = self.check_merge_in(MERGE, parts[0], parts[1])?;
        let shape = [dim("M·H", rows), dim("d_v", self.value_width)];
        let check = |argument, length: Option<usize>, shape| {
            length.map_or(Ok(0), |length| expect(MERGE, argument, length, shape))
        };
        let [first, second] = grads;
        expect(MERGE, "grad_out.out", grad_out.out.len(), &shape)?;
        check("grad_out.lse", grad_out.lse.map(|lse| lse.len()), &shape[..1])?;
        check("first_grads.out", length(&first.out), &shape)?;
        check("first_grads.lse", length(&first.lse), &shape[..1])?;
        check("second_grads.out", length(&second.out), &shape)?;
        check("second_grads.lse", length(&second.lse), &shape[..1])?;
        Ok(rows)
    }

    /// Multiplications and additions of the backward pass with all gradients (exponentials not counted): scores and
    /// `⟨grad_out, v⟩` again, and the gradients of queries, keys and values, `2·C·H·L·(3·d + 2·d_v)`, summed over users.
    pub fn backward_flops(&self, batch: &Batch) -> u64 {
        let widths = sum([product(&[3, self.width as u64]), product(&[2, self.value_width as u64])]);
        product(&[2, batch.pairs(), self.heads as u64, widths])
    }

    /// The fewest bytes that a backward pass with all gradients moves, with gradients of type `G`: what the forward pass moves
    /// ([`bytes`](Self::bytes)), the gradient of the output, and the gradients of queries, keys and values.
    pub fn backward_bytes<T: Element, G: Element>(&self, batch: &Batch, aliased: bool) -> u64 {
        let targets = product(&[batch.targets().total() as u64, self.heads as u64]);
        let outputs = product(&[targets, self.value_width as u64]);
        let (read, written) = (self.bytes::<T>(batch, aliased), self.bytes::<G>(batch, aliased));
        let written = written.saturating_sub(product(&[outputs, size_of::<G>() as u64]));
        sum([read, product(&[outputs, size_of::<T>() as u64]), written])
    }
}

fn length<S: Memory, T: Element>(view: &Option<ViewMut<'_, S, T>>) -> Option<usize> {
    view.as_ref().map(ViewMut::len)
}

/// Checks a value of the forward pass, which must be there if it is `needed`.
fn expect_saved(
    argument: &'static str,
    length: Option<usize>,
    shape: &[crate::ops::shape::Dim],
    needed: bool,
) -> Result<()> {
    match length {
        Some(length) => expect(NAME, argument, length, shape).map(drop),
        None if needed => Err(Error::Shape {
            operation: NAME,
            argument,
            expected: "what the forward pass wrote, which softmax needs".into(),
            got: "none".into(),
        }),
        None => Ok(()),
    }
}
