//! Parameters, shape rules and costs of interest channels.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::interest_channels::inputs::{InterestChannelsInputs, InterestChannelsOutputs};
use crate::ops::selection::Selection;
use crate::ops::shape::{Dim, dim, elements, expect, product, size, sum};

pub(super) const NAME: &str = "interest_channels";

/// Interest channels: each behaviour goes to the one of a candidate's axes that it points along most, and each axis pools its best
/// behaviours. Several interests of a user, as a candidate sees them (DiffuMIN's orthogonal multi-interest extractor).
///
/// For candidate `m`, whose axes are the `c` columns of a matrix `W` of `d` rows, over the user's `L` behaviours `l`:
///
/// ```text
/// O·R = W                    OᵀO = 1, R upper triangular with a positive diagonal
/// A_li = ⟨e_l, O_i⟩
/// channel(l) = argmax_i A_li                                      ties: the lowest i
/// kept_i = the K behaviours of channel i of highest A_li           KeptAmong::Routed; ties by position
///        = the behaviours of channel i among the user's K of highest A_li      KeptAmong::All
/// r_i = (1/L) Σ_{l in kept_i} A_li · e_l
/// out[m,i,:] = r_i, or r_i / max(‖r_i‖, 1e-12) with `normalise`
/// ```
///
/// The signs of `R`'s diagonal make `O` unique: it is what Gram–Schmidt gives. (The published code leaves signs to the library's QR, so that
/// its channels depend on it.) The sum is divided by the length of the history, as published, not by how many are kept. An empty
/// history and a channel that keeps nothing give rows of zeros.
///
/// **Axes that depend on each other.** An axis depends on those before it where no more than [`DEPENDENT`](Self::DEPENDENT) of its length
/// is at right angles to them. By default the call returns an error that names the first such candidate and axis, and writes nothing (a GPU returns
/// it at the next wait, and may have written). With
/// [`DependentAxes::Zero`] there is no such channel: no behaviour goes to it, its row is zeros, its axis has no gradient, and the axes after it are as
/// if it were not there.
///
/// **NaN and infinity.** A candidate whose axes hold a number that is not finite keeps nothing, and its rows are NaN. A behaviour with such a
/// number has scores that count as NaN: it goes to the candidate's first channel and is the last to be kept there; where it is kept, it
/// gives NaN in that channel's row, of all the user's candidates. Nothing reaches other users' rows.
///
/// **Range.** `A`, and each sum of `A·e/L`, must be within `f32`.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Host, InterestChannels, InterestChannelsInputs, Jagged};
///
/// let backend = Cpu::new();
/// let batch = backend.batch(&Jagged::from_lengths(&[4])?, &Jagged::from_lengths(&[1])?)?;
/// // Two axes; at right angles they are (1, 0) and (0, 1).
/// let axes = [2.0_f32, 0.0, 5.0, 1.0];
/// let history = [3.0, 1.0, 0.0, 2.0, 8.0, 0.0, -1.0, 1.0];
/// let op = InterestChannels::new(2).with_channels(2).with_top_k(1);
/// let inputs = InterestChannelsInputs::new(Host::view(&axes), Host::view(&history));
/// // The first channel has the first and the third behaviour and keeps the third: 8·(8, 0)/4; the second keeps 2·(0, 2)/4.
/// assert_eq!(*backend.interest_channels(&op, &batch, inputs)?, [16.0, 0.0, 0.0, 1.0]);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: DiffuMIN, RecSys 2025, arXiv 2508.15311 (its extractor of orthogonal interests; the matrix is `reshape(W·target)`, which is a
/// layer of the caller's, and the diffusion over the channels is too). The published code keeps the best 100 among all behaviours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterestChannels {
    /// `d`: the width of a row. Default 64.
    pub width: usize,
    /// `c`: the number of a candidate's channels, 1 to `d`. Default 4.
    pub channels: usize,
    /// `K`: the most behaviours that a channel keeps. Default 100.
    pub top_k: usize,
    /// Among which behaviours a channel's are the best. Default [`KeptAmong::Routed`].
    pub among: KeptAmong,
    /// Whether each row is divided by its length. Default false.
    pub normalise: bool,
    /// What happens where axes depend on each other. Default [`DependentAxes::Error`].
    pub dependent: DependentAxes,
}

/// Among which behaviours the `K` of a channel are the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeptAmong {
    /// Those that go to the channel: it keeps `K` wherever it has so many.
    #[default]
    Routed,
    /// All of the user's: of the `K` with the highest scores along the axis, those that go to the channel. As the published code does.
    All,
}

/// What happens where an axis depends on those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DependentAxes {
    /// The call, or on a GPU the next wait, returns an error that names the candidate.
    #[default]
    Error,
    /// There is no such channel: its row is zeros.
    Zero,
}

impl Default for InterestChannels {
    fn default() -> Self {
        Self {
            width: 64,
            channels: 4,
            top_k: 100,
            among: KeptAmong::Routed,
            normalise: false,
            dependent: DependentAxes::Error,
        }
    }
}

impl InterestChannels {
    /// An axis of which no more than this part of its length is at right angles to the axes before it depends on them. What rounding leaves of
    /// an axis is far less, in `f32` too; of an axis just above it, `f32` arithmetic knows the direction to a few hundredths.
    pub const DEPENDENT: f64 = 1e-5;

    /// What a row's length is at least, where it is divided by it.
    pub const MIN_NORM: f64 = 1e-12;

    /// Rows of `width` numbers, four channels that keep a hundred of their own behaviours each.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Sets the number of channels.
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }

    /// Sets the most behaviours that a channel keeps.
    pub fn with_top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// Sets among which behaviours a channel's are the best.
    pub fn with_among(self, among: KeptAmong) -> Self {
        Self { among, ..self }
    }

    /// Sets whether rows are divided by their lengths.
    pub fn with_normalise(self, normalise: bool) -> Self {
        Self { normalise, ..self }
    }

    /// Sets what happens where axes depend on each other.
    pub fn with_dependent(self, dependent: DependentAxes) -> Self {
        Self { dependent, ..self }
    }

    /// `M·c·d`: the number of elements of the output.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length(&self, batch: &Batch) -> Result<usize> {
        elements(NAME, "out", &self.rows_of(batch))
    }

    /// `M·c·K`: the number of slots of what channels keep.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn kept_length(&self, batch: &Batch) -> Result<usize> {
        elements(NAME, "kept.positions", &self.slots_of(batch))
    }

    /// `[M, c, d]`.
    pub(super) fn rows_of(&self, batch: &Batch) -> [Dim; 3] {
        [dim("M", batch.targets().rows()), dim("c", self.channels), dim("d", self.width)]
    }

    /// `[M, c, K]`.
    fn slots_of(&self, batch: &Batch) -> [Dim; 3] {
        [dim("M", batch.targets().rows()), dim("c", self.channels), dim("K", self.top_k)]
    }

    /// Checks the parameters alone, for the call that is named.
    fn validate(&self, operation: &'static str) -> Result<()> {
        let sizes = [("width", self.width), ("channels", self.channels), ("top_k", self.top_k)];
        for (argument, size) in sizes {
            if size == 0 {
                let (expected, got) = ("at least 1".into(), "0".into());
                return Err(Error::Parameter { operation, argument, expected, got });
            }
        }
        if self.channels > self.width {
            let expected = format!("at most width = {}, as axes are at right angles", self.width);
            let got = self.channels.to_string();
            return Err(Error::Parameter { operation, argument: "channels", expected, got });
        }
        Ok(())
    }

    /// Checks parameters and inputs against a batch.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the width, the channels or `K` are 0, or there are more channels than a row has numbers; [`Error::Shape`] for an
    /// input of the wrong size; [`Error::Limit`] for sizes that exceed the address space. Axes that depend on each other are
    /// [`Error::Parameter`], which the call, or on a GPU the next wait, returns.
    pub fn check<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &InterestChannelsInputs<'_, S, T>,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &InterestChannelsInputs<'_, S, T>,
    ) -> Result<()> {
        self.validate(operation)?;
        expect(operation, "axes", inputs.axes.len(), &self.rows_of(batch))?;
        let shape = [dim("N", batch.histories().rows()), dim("d", self.width)];
        expect(operation, "history", inputs.history.len(), &shape).map(drop)
    }

    /// Checks the outputs against a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] for an output of the wrong size; [`Error::Limit`] if what is kept exceeds the address space.
    pub fn check_outputs<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        outputs: &InterestChannelsOutputs<'_, S, T>,
    ) -> Result<()> {
        expect(NAME, "out", outputs.out.len(), &self.rows_of(batch))?;
        match &outputs.kept {
            Some(kept) => {
                let lengths = [kept.positions.len(), kept.scores.len(), kept.counts.len()];
                self.check_kept(NAME, "kept", batch, lengths)
            }
            None => Ok(()),
        }
    }

    /// Checks the numbers of positions, scores and counts of what is kept.
    pub(super) fn check_kept(
        &self,
        operation: &'static str,
        argument: &'static str,
        batch: &Batch,
        lengths: [usize; 3],
    ) -> Result<()> {
        let names = match argument {
            "kept" => ["kept.positions", "kept.scores", "kept.counts"],
            _ => ["saved.kept.positions", "saved.kept.scores", "saved.kept.counts"],
        };
        let slots = self.slots_of(batch);
        expect(operation, names[0], lengths[0], &slots)?;
        expect(operation, names[1], lengths[1], &slots)?;
        expect(operation, names[2], lengths[2], &slots[..2]).map(drop)
    }

    /// Checks on the host that what is kept, which may be the caller's, is inside slots and histories.
    pub(crate) fn check_given(
        &self,
        operation: &'static str,
        batch: &Batch,
        kept: &Selection<'_, Host>,
    ) -> Result<()> {
        let lengths = [kept.positions.len(), kept.scores.len(), kept.counts.len()];
        self.check_kept(operation, "kept", batch, lengths)?;
        kept.check_host_lists(operation, batch, (self.channels, self.top_k))
    }

    /// The error of axis `i` of candidate `m`, which depends on those before it.
    pub(crate) fn dependent_axis(operation: &'static str, m: usize, i: usize) -> Error {
        Error::Parameter {
            operation,
            argument: "axes",
            expected: "axes that do not depend on each other (or DependentAxes::Zero)".into(),
            got: format!("axis {i} of candidate {m}, which depends on those before it"),
        }
    }

    /// The most behaviours that a candidate of a user with `length` behaviours keeps: each goes to one channel.
    fn most_kept(&self, length: usize) -> u64 {
        (length as u64).min(product(&[self.channels as u64, self.top_k as u64]))
    }

    /// `Σ` of a count for each of a user's candidates.
    fn for_each_candidate(batch: &Batch, count: impl Fn(usize) -> u64) -> u64 {
        sum(batch.requests().map(|(history, targets)| product(&[targets.len() as u64, count(history.len())])))
    }

    /// Multiplications and additions: `2·d` for each pair of an axis and a behaviour, for each behaviour that may be kept, and for each pair of a
    /// candidate's axes. This and the other counts are at most `u64::MAX`.
    pub fn flops(&self, batch: &Batch) -> u64 {
        let channels = self.channels as u64;
        let rows = |length: usize| {
            sum([product(&[channels, length as u64]), self.most_kept(length), product(&[channels, channels])])
        };
        product(&[2, self.width as u64, Self::for_each_candidate(batch, rows)])
    }

    /// The same of the backward pass with all gradients: `10·d` for each behaviour that may be kept, `6·d` for each pair of a candidate's
    /// axes.
    pub fn backward_flops(&self, batch: &Batch) -> u64 {
        let pairs = product(&[6, self.channels as u64, self.channels as u64]);
        let rows = |length: usize| sum([product(&[10, self.most_kept(length)]), pairs]);
        product(&[self.width as u64, Self::for_each_candidate(batch, rows)])
    }

    /// The fewest bytes to move: each behaviour, axis and output once.
    pub fn bytes<T: Element>(&self, batch: &Batch) -> u64 {
        let axes = product(&[2, batch.targets().total() as u64, self.channels as u64]);
        let rows = sum([batch.histories().total_length() as u64, axes]);
        product(&[rows, self.width as u64, size::<T>()])
    }
}
