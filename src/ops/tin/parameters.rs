//! Parameters, shape rules and costs of TIN.

use std::ops::Range;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::shape::{dim, elements, expect, product, size, sum};
use crate::ops::tin::inputs::{TinInputs, TinOutputs};

pub(super) const NAME: &str = "tin";

/// Temporal Interest Network: target attention over behaviours and candidates that know their position in time.
///
/// For candidate `m` of user `b`, over the user's behaviours `l`, with one table of positions `p` for both:
///
/// ```text
/// ẽ_l = e_l + p[f(l)]            ṽ_m = v_m + p[f(m)]
/// s_l = scale · ⟨ẽ_l, ṽ_m⟩       α = softmax(s)
/// a_m = Σ_l α_l · ẽ_l
/// out = ṽ_m ⊙ a_m                or a_m without `multiply_target`
/// ```
///
/// `f` counts from the newest behaviour (TTE-P): 1 for the newest, 2 for the one before, and so on, at most `P − 1`; candidates have 0.
/// Or positions are given, such as buckets of time gaps (TTE-T): then each must be below `P`.
///
/// The sums `e + p` are made as the history is read, in `f32`, block by block: there is no second copy of it. An empty history gives a row
/// of zeros and `lse = -∞`. A score of `-∞` removes a behaviour, whatever it holds.
///
/// **NaN and infinity.** A NaN in a behaviour's row or position, or in a candidate's, gives NaN in the rows of the candidates that read
/// it, and in no others.
///
/// **Range.** Sums `e + p`, `⟨ẽ, ṽ⟩` and `s` must be within `f32`; `a` is a mean, so rows may have any size.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Host, Jagged, Tin, TinInputs};
///
/// let backend = Cpu::new();
/// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let (targets, history) = ([1.0_f32], [5.0, 7.0]);
/// let positions = [1.0, -1.0, 1.0]; // of the candidate, the newest behaviour, and the one before
/// let inputs = TinInputs::new(Host::view(&targets), Host::view(&history), Host::view(&positions));
/// // ẽ = 6 and 6, so weights are equal; ṽ = 2.
/// assert_eq!(*backend.tin(&Tin::new(1).with_positions(3), &batch, inputs)?, [12.0]);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024, arXiv 2308.08487, §4 (its ⊕ is an addition, as in
/// the published code).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Tin {
    /// `d`: the width of a row. Default 64.
    pub width: usize,
    /// `P`: the number of positions, at least 1. Default 1: no position but that of candidates and behaviours alike.
    pub positions: usize,
    /// Factor of the dot product; `None` (the default) means `1/√d`.
    pub scale: Option<f32>,
    /// Whether the mean is multiplied by the candidate. Default true.
    pub multiply_target: bool,
}

impl Default for Tin {
    fn default() -> Self {
        Self { width: 64, positions: 1, scale: None, multiply_target: true }
    }
}

impl Tin {
    /// Rows of `width` numbers, one position, `scale = 1/√width`, a product with the candidate.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Sets the number of positions.
    pub fn with_positions(self, positions: usize) -> Self {
        Self { positions, ..self }
    }

    /// Sets the factor of the dot product.
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// Sets whether the mean is multiplied by the candidate.
    pub fn with_multiply_target(self, multiply_target: bool) -> Self {
        Self { multiply_target, ..self }
    }

    /// The factor of the dot product, with the default resolved.
    pub fn effective_scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| (1.0 / (self.width as f64).sqrt()) as f32)
    }

    /// The position of behaviour `l` of a history, where none is given: counted from the newest.
    pub fn position(&self, history: &Range<usize>, l: usize) -> usize {
        (history.end - l).min(self.positions.saturating_sub(1))
    }

    /// `M·d`: the number of elements of the output.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length(&self, batch: &Batch) -> Result<usize> {
        elements(NAME, "out", &[dim("M", batch.targets().rows()), dim("d", self.width)])
    }

    /// Checks the parameters alone, for the call that is named.
    fn validate(&self, operation: &'static str) -> Result<()> {
        let wrong = |argument, expected: &str, got: String| {
            Err(Error::Parameter { operation, argument, expected: expected.into(), got })
        };
        for (argument, size) in [("width", self.width), ("positions", self.positions)] {
            if size == 0 {
                return wrong(argument, "at least 1", "0".into());
            }
        }
        match self.scale {
            Some(scale) if !scale.is_finite() => wrong("scale", "a finite number", scale.to_string()),
            _ => Ok(()),
        }
    }

    /// Checks parameters and inputs against a batch.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the width or the number of positions is 0, or the scale is not finite; [`Error::Shape`] for an input of the
    /// wrong size; [`Error::Limit`] for sizes that exceed the address space. A given position that is not below `P` is
    /// [`Error::IndexOutOfRange`], which the call, or on a GPU the next wait, returns.
    pub fn check<S: Memory, T: Element>(&self, batch: &Batch, inputs: &TinInputs<'_, S, T>) -> Result<()> {
        self.check_in(NAME, batch, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &TinInputs<'_, S, T>,
    ) -> Result<()> {
        self.validate(operation)?;
        let (n, m) = (dim("N", batch.histories().rows()), dim("M", batch.targets().rows()));
        let d = dim("d", self.width);
        expect(operation, "targets", inputs.targets.len(), &[m, d])?;
        expect(operation, "history", inputs.history.len(), &[n, d])?;
        expect(operation, "positions", inputs.positions.len(), &[dim("P", self.positions), d])?;
        if let Some(positions) = &inputs.history_positions {
            expect(operation, "history_positions", positions.len(), &[n])?;
        }
        if let Some(positions) = &inputs.target_positions {
            expect(operation, "target_positions", positions.len(), &[m])?;
        }
        Ok(())
    }

    /// Checks the outputs against a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] for an output of the wrong size.
    pub fn check_outputs<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        outputs: &TinOutputs<'_, S, T>,
    ) -> Result<()> {
        let shape = [dim("M", batch.targets().rows()), dim("d", self.width)];
        expect(NAME, "out", outputs.out.len(), &shape)?;
        if let Some(pooled) = &outputs.pooled {
            expect(NAME, "pooled", pooled.len(), &shape)?;
        }
        if let Some(lse) = &outputs.lse {
            expect(NAME, "lse", lse.len(), &shape[..1])?;
        }
        Ok(())
    }

    /// Checks on the host that given positions of behaviours and candidates that belong to users are below `P`.
    pub(crate) fn check_host_positions<T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &TinInputs<'_, Host, T>,
    ) -> Result<()> {
        let given = [
            ("history_positions", &inputs.history_positions, batch.histories().total()),
            ("target_positions", &inputs.target_positions, batch.targets().total()),
        ];
        for (argument, positions, used) in given {
            let used = positions.as_ref().map_or(&[][..], |positions| &positions[..used]);
            if let Some(place) = used.iter().position(|&position| position as usize >= self.positions) {
                return Err(Error::IndexOutOfRange {
                    operation,
                    argument,
                    position: place as u64,
                    id: used[place].into(),
                    bound: self.positions as u64,
                });
            }
        }
        Ok(())
    }

    /// Multiplications and additions (exponentials not counted): `4·C·L·d`, and `d` for each behaviour and candidate whose position is
    /// added, summed over users. This and the other counts are at most `u64::MAX`.
    pub fn flops(&self, batch: &Batch) -> u64 {
        let rows = sum([batch.histories().total_length() as u64, batch.targets().total() as u64]);
        product(&[self.width as u64, sum([product(&[4, batch.pairs()]), rows])])
    }

    /// The fewest bytes to move: each behaviour, candidate, position and output once.
    pub fn bytes<T: Element>(&self, batch: &Batch) -> u64 {
        let targets = product(&[2, batch.targets().total() as u64]);
        let rows = sum([batch.histories().total_length() as u64, targets, self.positions as u64]);
        product(&[rows, self.width as u64, size::<T>()])
    }
}
