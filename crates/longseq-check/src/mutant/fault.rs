//! The faults that backends have on purpose.

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Users see their histories shifted by one behaviour.
    HistoryShifted,
    /// Sub-ranges are read as if they were one after the other.
    GapsClosed,
    /// The factor on the dot product is dropped.
    ScaleDropped,
    /// The bias is ignored.
    BiasIgnored,
    /// All query heads read the first key head.
    HeadsMixed,
    /// `lse` is a binary logarithm.
    LseInBits,
    /// A merge averages instead of weighing.
    MergeAverages,
    /// One number past the end of the output is written.
    WritesBehind,
    /// The last number of the output is not written.
    LeavesOut,
    /// DIN's third block is `s − q`.
    DifferenceReversed,
    /// DIN's softmax is left out.
    SoftmaxForgotten,
    /// PReLU and Dice use `α = 0`.
    AlphaDropped,
    /// A projection of exactly 0 gives bit 1.
    ZeroIsPositive,
    /// The first bit of a signature is the highest.
    BitsReversed,
    /// The mean is normalised, not each bucket row.
    NormalisedAfterMean,
    /// Rows that belong to no user go into the last user's buckets.
    PaddingHashed,
    /// Whose table a request reads is ignored.
    OwnTable,
    /// The first tables are written, whichever slots are named.
    SlotsIgnored,
    /// Each user's table is that of the next user.
    SlotOfNeighbour,
    /// `encode` clears the tables of all slots.
    OtherTablesCleared,
    /// The items of rows are ignored: the first row has the signatures of the first item, and so on.
    ItemsIgnored,
    /// A row has the signatures of the next row's item.
    ItemOfNeighbour,
    /// `append` replaces the table.
    AppendReplaces,
    /// `remove` adds.
    RemoveAdds,
    /// Each user's table is multiplied by the factor of the next user.
    FactorOfNeighbour,
    /// The mean of a bag is its sum.
    MeanIsSum,
    /// Equal scores are ordered by descending position.
    TiesReversed,
    /// One behaviour less is kept.
    KeepsOneLess,
    /// The product with the candidate's representation is left out.
    TargetForgotten,
    /// An id outside its table reads the last row.
    IdsClamped,
    /// The weights of ids, or of behaviours, count as 1.
    WeightsIgnored,
    /// An id has the weight of the next one.
    WeightOfNeighbour,
    /// Ids that are skipped count in means.
    SkippedCounted,
    /// Scores below `-1e38` count as removed.
    LowScoresRemoved,
    /// A NaN in keys counts as 0.
    NanDropped,
    /// A merge counts parts whose log-sum-exp is `-∞`.
    DeadPartsCount,
    /// A search keeps at most so many.
    KeepsAtMost(u32),
    /// A bag ends after 65,535 ids.
    LongBagsCut,
    /// `D`, the mean gradient of the weights, is left out of the softmax Jacobian.
    MeanGradientDropped,
    /// Where the keys are the values, their gradient lacks the values' part.
    AliasedValuesForgotten,
    /// Of the heads that share a key, only the last gives it a gradient.
    HeadsNotSummed,
    /// A gradient comes from the newest part of the history instead of the sum over all parts.
    NewestPartial,
    /// The gradient of `lse` is ignored.
    LseGradientIgnored,
    /// The gradient of a normalised row keeps its part along the row.
    ProjectionDropped,
    /// One group of signatures gives no gradient.
    GroupForgotten,
    /// A bucket row that is shorter than the floor of its length gets a gradient.
    FloorIgnored,
    /// Equal ids are in the reverse order of their positions.
    SortUnstable,
    /// Of equal ids only the last one's gradient arrives.
    DuplicatesOverwritten,
    /// Of a long run of equal ids only the last chunk's gradients arrive.
    NewestPartialTaken,
    /// The last of a run of equal ids is left out.
    LastOfRunDropped,
    /// The state of an optimiser counts as zeros.
    StateIgnored,
    /// Adam's moments are not corrected.
    BiasCorrectionLeftOut,
    /// Rows that have no gradient decay too.
    AllRowsDecay,
    /// The softmax Jacobian lacks the factor of the weight.
    JacobianTermDropped,
    /// An activation's slope counts as 1.
    SlopeForgotten,
    /// The gradient of a candidate's attention row is left out.
    CandidateHalfForgotten,
    /// The gradients of the behaviours' attention rows are left out.
    BehaviourHalfForgotten,
    /// The gradient of the candidate's own representation is left out.
    TargetGradientForgotten,
    /// Behaviours that a score of `-∞` removes have rows in gradients.
    RemovedGetRows,
    /// The gradient of a bias comes from the last candidate alone.
    BiasOfOneCandidate,
    /// The gradient of PReLU's and Dice's `α` is zeros.
    AlphaGradientMissing,
    /// The history's gradient lacks the part of what is pooled.
    PooledGradientForgotten,
    /// The offsets of 8-bit rows are ignored.
    OffsetsIgnored,
    /// A cosine keeps rows of zeros.
    ZerosKept,
    /// A cosine is not divided by the candidate's length.
    QueryNotNormalised,
    /// Bits past the width of packed signs count.
    PastBitsCounted,
    /// Attention over a selection leaves similarities out.
    SimilaritiesIgnored,
    /// It leaves the product of score and similarity out.
    ProductDropped,
    /// Slots of a selection that are empty count, as the first behaviour.
    EmptySlotsCount,
    /// A gradient comes from each user's last candidate alone.
    OneReaderOnly,
    /// Similarities are rounded down to bins.
    BinsRoundedDown,
    /// Positions count from the oldest behaviour.
    OldestIsFirst,
    /// Candidates add no position.
    PositionsOfKeysAlone,
    /// A histogram of the newest behaviours counts older ones, too.
    OldestCount,
    /// Axes of interest channels are made as long as 1 alone.
    AxesNotAtRightAngles,
    /// They are put at right angles alone.
    AxesNotOfLengthOne,
    /// Every second one points the other way, as a library's QR may have it.
    SignsOfAxesFlipped,
    /// A behaviour goes to the channel along which its score is largest in magnitude.
    MagnitudesRouted,
    /// Of channels with equal scores, a behaviour goes to the last.
    LastOfEqualChannels,
    /// A channel keeps behaviours of others.
    RoutingForgotten,
    /// A channel keeps the best of its own instead of those among the best of all, and the other way round.
    KeptAmongOthers,
    /// A channel's sum is divided by how many it keeps.
    DividedByKept,
    /// A channel's sum is of rows that are not multiplied by their scores.
    ScoresNotMultiplied,
    /// Behaviours go to channels that there are not.
    ZeroChannelsRouted,
    /// The gradient of axes is that of the axes at right angles.
    TriangleForgotten,
    /// What goes through the scores of behaviours is left out of their gradient.
    SlopesForgotten,
    /// Weights of SiLU are divided by the length of the longest history.
    DividedByLongest,
}
