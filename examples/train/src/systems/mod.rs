//! The systems: how a user's history becomes one interest vector for each candidate. All else of the model is the same for all of them.
//!
//! To add one: a file here with a type that implements [`Interest`]; a variant of [`System`] with its name; a line in [`System::build`].
//! MUSE, QIN, DiffuMIN, TWIN and ETA have their places there.

mod attention;
mod dare;
mod din;
mod mean;
mod sdim;
mod tin;

use candle_core::{D, Result, Tensor};
use clap::ValueEnum;

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
    pub(crate) const ALL: [Self; 7] =
        [Self::Mean, Self::LastTwenty, Self::TargetAttention, Self::Din, Self::Sdim, Self::Dare, Self::Tin];

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
        }
    }

    /// How many of the newest behaviours the system reads, of those it is given.
    pub(crate) fn newest(self) -> usize {
        match self {
            Self::LastTwenty => 20,
            _ => usize::MAX,
        }
    }

    /// The system with its first weights.
    pub(crate) fn build(self, sizes: Sizes, weights: &Weights) -> Result<Box<dyn Interest>> {
        let interest: Box<dyn Interest> = match self {
            Self::Mean => Box::new(mean::Mean),
            Self::LastTwenty | Self::TargetAttention => Box::new(attention::Attention::new(sizes, weights)?),
            Self::Din => Box::new(din::Din::new(sizes, weights)?),
            Self::Sdim => Box::new(sdim::Sdim::new(sizes, weights)?),
            Self::Dare => Box::new(dare::Dare::new(sizes, weights)?),
            Self::Tin => Box::new(tin::Tin::new(sizes, weights)?),
            // Here: MUSE, QIN, DiffuMIN, TWIN, ETA.
        };
        Ok(interest)
    }
}

/// `softmax(scores)·rows` of candle's operations, `[B, C, d]`: of scores `[B, C, L]` and rows `[B, L, d]`, of which only the real ones count.
fn attend(scores: &Tensor, padded: &Padded<'_>, rows: &Tensor) -> Result<Tensor> {
    let scores = scores.broadcast_add(&padded.mask)?;
    candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(rows)
}
