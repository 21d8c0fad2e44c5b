//! Parameters, shape rules and costs of target attention.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::shape::{dim, elements, expect, product, size, sum};
use crate::ops::target_attention::inputs::{PartialAttention, TargetAttentionInputs, TargetAttentionOutputs};

const NAME: &str = "target_attention";
const MERGE: &str = "merge_attention";

/// Dot-product attention of every candidate over its user's behaviours.
///
/// For candidate `m` of user `b` and head `h`, over the user's behaviours `l`, with `h' = h·H_kv/H` rounded down:
///
/// ```text
/// s_l = scale · ⟨q[m,h], k[l,h']⟩ + bias[l,h]
/// out[m,h,:] = Σ_l w_l · v[l,h',:]          w from s by `weighting`
/// ```
///
/// An empty history gives a row of zeros and `lse = -∞`. A score of `-∞` removes a behaviour (except with
/// [`Weighting::Identity`], where it is the weight): its value may hold anything, and a history whose behaviours are all
/// removed counts as empty. Nothing else removes: a finite bias, `f32::MIN` included, gives a score like any other.
///
/// **NaN and infinity.** A behaviour that is not removed counts even where its weight is 0, so a NaN in its value gives NaN
/// in that number of the output. A NaN score (from a query, a key, `NaN − ∞`, or a bias) or one of `+∞` with softmax gives
/// NaN in the candidate's row. An infinite value gives a number that is not finite. (On WGSL, which promises no arithmetic
/// on NaN, devices may give anything in those numbers.) Nothing reaches other candidates' rows.
///
/// **Range.** With softmax, the result is a mean of the values, so values may have any size. `⟨q, k⟩`, the score, and with the
/// other weightings each partial sum must be within `f32`, or the result is infinite or NaN.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Host, Jagged, TargetAttention, TargetAttentionInputs, Weighting};
///
/// let backend = Cpu::new();
/// // One user with two behaviours and one candidate.
/// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let (queries, keys) = ([2.0_f32, 0.0], [1.0, 0.0, 0.0, 1.0]);
/// let values = [10.0, 20.0, 30.0, 5.0, 6.0, 7.0];
/// let op = TargetAttention::new(2).with_value_width(3).with_scale(1.0).with_weighting(Weighting::Relu);
///
/// let inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys)).with_values(Host::view(&values));
/// let out = backend.target_attention(&op, &batch, inputs)?;
/// assert_eq!(*out, [20.0, 40.0, 60.0]); // scores 2 and 0: twice the first value
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: MHTA of long-sequence models (TWIN, arXiv 2302.02352, eq. 4; STCA, arXiv 2511.06077), SDPA of
/// "Attention Is All You Need", eq. 1, with one query row per candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TargetAttention {
    /// `H`: heads of a query. Default 1.
    pub heads: usize,
    /// `H_kv`: heads of a key and a value; must divide `heads`. Default 1.
    pub kv_heads: usize,
    /// `d`: width of one head of a query or key. Default 64.
    pub width: usize,
    /// `d_v`: width of one head of a value. Default 64.
    pub value_width: usize,
    /// Factor of the dot product; `None` (the default) means `1/√d`.
    pub scale: Option<f32>,
    /// How scores become weights. Default softmax.
    pub weighting: Weighting,
}

/// How the scores of one candidate become weights.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Weighting {
    /// `w_l = exp(s_l − lse)`, `lse = log Σ exp s_l`: the weights add up to 1 (MHTA, TWIN, TIN, STCA).
    ///
    /// A score more than 87.3 below the largest has a weight of less than 2⁻¹²⁶ of the largest weight. Devices may take it for 0, which shows
    /// only where thousands of such behaviours have values near `f32::MAX`.
    #[default]
    Softmax,
    /// `w_l = max(s_l, 0)` (QIN's adaptive sparse target attention, arXiv 2504.17699).
    Relu,
    /// `w_l = s_l·σ(s_l)/divisor` (HSTU, arXiv 2402.17152, eq. 2).
    Silu {
        /// Divides every weight.
        divisor: SiluDivisor,
    },
    /// `w_l = s_l` (linear attention).
    Identity,
}

impl Weighting {
    /// SiLU, each weight divided by a number.
    pub const fn silu(divisor: f32) -> Self {
        Self::Silu { divisor: SiluDivisor::Number(divisor) }
    }
}

/// What the weights of SiLU are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum SiluDivisor {
    /// The same number for every user. (HSTU's published code takes the length that histories are padded to.)
    Number(f32),
    /// The length of the user's own history, behaviours that a score of `-∞` removes included, as `f32`.
    HistoryLength,
}

impl SiluDivisor {
    /// The divisor for a user with so many behaviours.
    pub fn value(self, behaviours: usize) -> f32 {
        match self {
            Self::Number(number) => number,
            Self::HistoryLength => behaviours as f32,
        }
    }
}

impl From<f32> for SiluDivisor {
    fn from(number: f32) -> Self {
        Self::Number(number)
    }
}

impl Default for TargetAttention {
    fn default() -> Self {
        Self { heads: 1, kv_heads: 1, width: 64, value_width: 64, scale: None, weighting: Weighting::Softmax }
    }
}

impl TargetAttention {
    /// One head, keys and values of the same width, softmax, `scale = 1/√width`.
    pub fn new(width: usize) -> Self {
        Self { width, value_width: width, ..Self::default() }
    }

    /// Sets the number of heads of queries, and of keys and values.
    pub fn with_heads(self, heads: usize, kv_heads: usize) -> Self {
        Self { heads, kv_heads, ..self }
    }

    /// Sets the width of a value.
    pub fn with_value_width(self, value_width: usize) -> Self {
        Self { value_width, ..self }
    }

    /// Sets the factor of the dot product. Its product with the dot product must be within `f32`; that with the query need
    /// not.
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// Sets how scores become weights.
    pub fn with_weighting(self, weighting: Weighting) -> Self {
        Self { weighting, ..self }
    }

    /// The factor of the dot product, with the default resolved.
    pub fn effective_scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| (1.0 / (self.width as f64).sqrt()) as f32)
    }

    /// The key/value head that serves a query head below `heads`.
    pub fn kv_head(&self, head: usize) -> usize {
        // In valid parameters `kv_heads` divides `heads`: the product of `head` and `kv_heads` could overflow.
        head / (self.heads / self.kv_heads.max(1)).max(1)
    }

    /// `M·H·d_v`: the number of elements of the output.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length(&self, batch: &Batch) -> Result<usize> {
        let shape = [dim("M", batch.targets().rows()), dim("H", self.heads), dim("d_v", self.value_width)];
        elements(NAME, "out", &shape)
    }

    /// Checks the parameters alone.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a head count or width is 0, `kv_heads` does not divide `heads`, or a factor is
    /// not finite (a divisor also not 0).
    pub fn validate(&self) -> Result<()> {
        self.validate_in(NAME)
    }

    /// The same for the call that is named.
    fn validate_in(&self, operation: &'static str) -> Result<()> {
        let wrong = |argument, expected: &str, got: String| {
            Err(Error::Parameter { operation, argument, expected: expected.into(), got })
        };
        let sizes = [
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("width", self.width),
            ("value_width", self.value_width),
        ];
        for (argument, size) in sizes {
            if size == 0 {
                return wrong(argument, "at least 1", "0".into());
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of heads = {}", self.heads);
            return wrong("kv_heads", &expected, self.kv_heads.to_string());
        }
        if let Some(scale) = self.scale.filter(|scale| !scale.is_finite()) {
            return wrong("scale", "a finite number", scale.to_string());
        }
        match self.weighting {
            Weighting::Silu { divisor: SiluDivisor::Number(divisor) }
                if !divisor.is_finite() || divisor == 0.0 =>
            {
                wrong("divisor", "a finite number other than 0", divisor.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Checks parameters and inputs against a batch.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); [`Error::Shape`] for an input of the wrong size, or without values if `d_v ≠ d`;
    /// [`Error::Limit`] for sizes that exceed the address space.
    pub fn check<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &TargetAttentionInputs<'_, S, T>,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &TargetAttentionInputs<'_, S, T>,
    ) -> Result<()> {
        self.validate_in(operation)?;
        let (n, m) = (dim("N", batch.histories().rows()), dim("M", batch.targets().rows()));
        let (heads, kv_heads) = (dim("H", self.heads), dim("H_kv", self.kv_heads));
        expect(operation, "queries", inputs.queries.len(), &[m, heads, dim("d", self.width)])?;
        expect(operation, "keys", inputs.keys.len(), &[n, kv_heads, dim("d", self.width)])?;
        match &inputs.values {
            Some(values) => {
                expect(operation, "values", values.len(), &[n, kv_heads, dim("d_v", self.value_width)])?;
            }
            None if self.value_width != self.width => {
                return Err(Error::Shape {
                    operation,
                    argument: "values",
                    expected: format!(
                        "values of their own, as d_v = {} is not d = {}",
                        self.value_width, self.width
                    ),
                    got: "none (the keys as values)".into(),
                });
            }
            None => {}
        }
        if let Some(bias) = &inputs.bias {
            expect(operation, "bias", bias.len(), &[n, heads])?;
        }
        Ok(())
    }

    /// Checks the outputs against a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] for an output of the wrong size; [`Error::Unsupported`] for an `lse` without softmax.
    pub fn check_outputs<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        outputs: &TargetAttentionOutputs<'_, S, T>,
    ) -> Result<()> {
        let (m, heads) = (dim("M", batch.targets().rows()), dim("H", self.heads));
        expect(NAME, "out", outputs.out.len(), &[m, heads, dim("d_v", self.value_width)])?;
        if let Some(lse) = &outputs.lse {
            expect(NAME, "lse", lse.len(), &[m, heads])?;
            if self.weighting != Weighting::Softmax {
                return Err(Error::Unsupported {
                    operation: NAME,
                    what: format!("lse with {:?} weights", self.weighting),
                    supported: "lse with Softmax weights".into(),
                });
            }
        }
        Ok(())
    }

    /// Checks the two results of a merge and returns their number of rows (candidates × heads).
    ///
    /// # Errors
    /// [`Error::Shape`] if their sizes do not match; [`Error::Parameter`] as [`validate`](Self::validate).
    pub fn check_merge<S: Memory, T: Element>(
        &self,
        first: &PartialAttention<'_, S, T>,
        second: &PartialAttention<'_, S, T>,
    ) -> Result<usize> {
        self.check_merge_in(MERGE, first, second)
    }

    /// The same for the call that is named.
    pub(crate) fn check_merge_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        first: &PartialAttention<'_, S, T>,
        second: &PartialAttention<'_, S, T>,
    ) -> Result<usize> {
        self.validate_in(operation)?;
        let rows = first.lse.len();
        let shape = [dim("M·H", rows), dim("d_v", self.value_width)];
        expect(operation, "first.out", first.out.len(), &shape)?;
        expect(operation, "second.lse", second.lse.len(), &shape[..1])?;
        expect(operation, "second.out", second.out.len(), &shape)?;
        Ok(rows)
    }

    /// Checks the outputs of a merge of `rows` rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if their sizes do not match.
    pub fn check_merge_outputs<S: Memory, T: Element>(
        &self,
        rows: usize,
        outputs: &TargetAttentionOutputs<'_, S, T>,
    ) -> Result<()> {
        let shape = [dim("M·H", rows), dim("d_v", self.value_width)];
        expect(MERGE, "out", outputs.out.len(), &shape)?;
        if let Some(lse) = &outputs.lse {
            expect(MERGE, "lse", lse.len(), &shape[..1])?;
        }
        Ok(())
    }

    /// Multiplications and additions (exponentials not counted): `2·C·H·L·(d + d_v)`, summed over users. This and the other
    /// counts are at most `u64::MAX`.
    pub fn flops(&self, batch: &Batch) -> u64 {
        product(&[2, batch.pairs(), self.heads as u64, sum([self.width as u64, self.value_width as u64])])
    }

    /// Operations of a merge of `rows` rows (exponentials not counted): two products and a sum per element.
    pub fn merge_flops(&self, rows: usize) -> u64 {
        product(&[3, rows as u64, self.value_width as u64])
    }

    /// The fewest bytes that a merge of `rows` rows moves: two results read, one written, each with its `lse`.
    pub fn merge_bytes<T: Element>(&self, rows: usize) -> u64 {
        let row = sum([product(&[self.value_width as u64, size::<T>()]), size::<f32>()]);
        product(&[3, rows as u64, row])
    }

    /// The fewest bytes to move: each key, value, query and output once. `aliased` says that the keys are the values.
    pub fn bytes<T: Element>(&self, batch: &Batch, aliased: bool) -> u64 {
        let side = |rows: usize, heads: usize, value_width: usize| {
            product(&[rows as u64, heads as u64, sum([self.width as u64, value_width as u64])])
        };
        let history =
            side(batch.histories().total_length(), self.kv_heads, if aliased { 0 } else { self.value_width });
        let targets = side(batch.targets().total(), self.heads, self.value_width);
        product(&[sum([history, targets]), size::<T>()])
    }
}
