//! The systems: how a user's history becomes one interest vector for each candidate. All else of the model is the same for all of them.
//!
//! To add one: a file here with a type that implements [`Interest`]; a variant of [`System`] with its name; a line in [`System::build`].
//! DiffuMIN has its place there.

mod attention;
mod dare;
mod din;
mod mean;
mod muse;
mod qin;
mod sdim;
mod searched;
mod tin;

use candle_core::{D, Device, Result, Tensor};
use clap::ValueEnum;
use longseq::SelectedAttention;

use crate::contents::Contents;
use crate::inputs::{Inputs, Padded};
use crate::table::Table;
use crate::weights::Weights;

/// A system to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// The mean of all behaviours.
    Mean,
    /// Target attention over the last 20 behaviours.
    #[value(name = "last-20")]
    LastTwenty,
    /// Target attention.
    TargetAttention,
    /// DIN's activation unit.
    Din,
    /// SDIM's hashing.
    Sdim,
    /// DARE's decoupled embeddings.
    Dare,
    /// TIN's target attention with temporal positions.
    Tin,
    /// QIN's attention with ReLU.
    Qin,
    /// TWIN's two stages with one score.
    Twin,
    /// ETA's search by hashes.
    Eta,
    /// MUSE's search by contents.
    Muse,
}

/// What the systems have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// The number of items.
    pub(crate) items: usize,
    /// The width of their embeddings.
    pub(crate) width: usize,
    /// The most behaviours of a user.
    pub(crate) history: usize,
}

/// How a history becomes interest.
pub(crate) trait Interest {
    /// The interest of each candidate's user in it, `[M, d]`, by longseq.
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor>;

    /// The same in candle's own operations on padded histories, `[B, C, d]`.
    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor>;

    /// Embedding tables besides those of the items.
    fn tables(&self) -> Vec<&Table> {
        Vec::new()
    }
}

/// The prefix of the names of a system's own weights.
const PREFIX: &str = "interest";

impl System {
    pub(crate) const ALL: [Self; 11] = [
        Self::Mean,
        Self::LastTwenty,
        Self::TargetAttention,
        Self::Din,
        Self::Sdim,
        Self::Dare,
        Self::Tin,
        Self::Qin,
        Self::Twin,
        Self::Eta,
        Self::Muse,
    ];

    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean pooling",
            Self::LastTwenty => "target attention, last 20",
            Self::TargetAttention => "target attention",
            Self::Din => "DIN",
            Self::Sdim => "SDIM",
            Self::Dare => "DARE",
            Self::Tin => "TIN",
            Self::Qin => "QIN",
            Self::Twin => "TWIN",
            Self::Eta => "ETA",
            Self::Muse => "MUSE",
        }
    }

    /// The name on the command line, and of the weights in a file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::LastTwenty => "last-20",
            Self::TargetAttention => "target-attention",
            Self::Din => "din",
            Self::Sdim => "sdim",
            Self::Dare => "dare",
            Self::Tin => "tin",
            Self::Qin => "qin",
            Self::Twin => "twin",
            Self::Eta => "eta",
            Self::Muse => "muse",
        }
    }

    /// How many of the newest behaviours the system reads, of those it is given.
    pub(crate) fn newest(self) -> usize {
        match self {
            Self::LastTwenty => 20,
            _ => usize::MAX,
        }
    }

    /// Whether the system reads the contents of items.
    pub(crate) fn needs_contents(self) -> bool {
        self == Self::Muse
    }

    /// The system with its first weights.
    pub(crate) fn build(
        self,
        sizes: Sizes,
        contents: Option<&Contents>,
        weights: &Weights,
    ) -> Result<Box<dyn Interest>> {
        let interest: Box<dyn Interest> = match self {
            Self::Mean => Box::new(mean::Mean),
            Self::LastTwenty | Self::TargetAttention => Box::new(attention::Attention::new(sizes, weights)?),
            Self::Din => Box::new(din::Din::new(sizes, weights)?),
            Self::Sdim => Box::new(sdim::Sdim::new(sizes, weights)?),
            Self::Dare => Box::new(dare::Dare::new(sizes, weights)?),
            Self::Tin => Box::new(tin::Tin::new(sizes, weights)?),
            Self::Qin => Box::new(qin::Qin::new(sizes, weights)?),
            Self::Twin => Box::new(searched::Twin::new(sizes, weights)?),
            Self::Eta => Box::new(searched::Eta::new(sizes, weights)?),
            Self::Muse => Box::new(muse::Muse::new(sizes, contents, weights)?),
            // Here: DiffuMIN, which has losses of its own.
        };
        Ok(interest)
    }
}

/// `softmax(scores)·rows` of candle's operations, `[B, C, d]`: of scores `[B, C, L]` and rows `[B, L, d]`, of which only the real ones count.
fn attend(scores: &Tensor, padded: &Padded<'_>, rows: &Tensor) -> Result<Tensor> {
    let scores = scores.broadcast_add(&padded.mask)?;
    candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(rows)
}

/// The same of only those behaviours of each candidate whose `keep` is largest, the older of equal ones first.
fn attend_to_best(
    keep: &Tensor,
    scores: &Tensor,
    padded: &Padded<'_>,
    rows: &Tensor,
    count: usize,
) -> Result<Tensor> {
    let (users, longest, width) = rows.dims3()?;
    let candidates = scores.dim(1)?;
    let count = count.min(longest);
    let order = keep.broadcast_add(&padded.mask)?.arg_sort_last_dim(false)?;
    let best = order.narrow(2, 0, count)?.contiguous()?; // [B, C, K]
    let scores = scores.broadcast_add(&padded.mask)?.gather(&best, 2)?;
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    let starts: Vec<u32> = (0..users).map(|user| (user * longest) as u32).collect();
    let starts = Tensor::from_vec(starts, (users, 1, 1), &Device::Cpu)?;
    let places = best.broadcast_add(&starts)?.flatten_all()?;
    let kept = rows.reshape((users * longest, width))?.index_select(&places, 0)?;
    let kept = kept.reshape((users, candidates, count, width))?;
    weights.unsqueeze(3)?.broadcast_mul(&kept)?.sum(2)
}

/// A projection of a system's layer, without a bias, of rows `[B, R, width]`.
fn project(weights: &Weights, rows: &Tensor, name: &str) -> Result<Tensor> {
    let (users, count, width) = rows.dims3()?;
    let weight = weights.tensor(&format!("{PREFIX}.{name}.weight"))?;
    let projected = rows.reshape((users * count, width))?.matmul(&weight.t()?)?;
    projected.reshape((users, count, weight.dim(0)?))
}

/// The scores of an attention with projections, `[B, C, L]`.
fn scores(
    op: &SelectedAttention,
    weights: &Weights,
    padded: &Padded<'_>,
    history: &Tensor,
) -> Result<Tensor> {
    let queries = project(weights, &padded.targets, "query")?;
    let keys = project(weights, history, "key")?;
    queries.matmul(&keys.transpose(1, 2)?)? * f64::from(op.effective_scale())
}
