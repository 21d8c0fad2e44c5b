//! The ways to make an interest of a history.

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The mean of the last few behaviours.
    LastMean,
    /// Softmax attention of each candidate over the whole history.
    TargetAttention,
    /// DIN's activation unit over the whole history; trained only.
    Din,
    /// A look-up in prebuilt bucket tables.
    Sdim,
    /// Top-K search by attention embeddings, then aggregation of representation embeddings.
    Decoupled,
}

/// Number of behaviours that [`Method::LastMean`] averages.
pub(crate) const RECENT: usize = 20;

impl Method {
    /// Those that need no training.
    pub(crate) const UNTRAINED: [Self; 4] =
        [Self::LastMean, Self::TargetAttention, Self::Sdim, Self::Decoupled];
}
