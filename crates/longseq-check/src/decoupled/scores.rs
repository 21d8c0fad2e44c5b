//! Cases whose scores are given: one feature of width 1 whose attention row is the score.

/// The scores of a history, in its order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scores {
    /// From 1 down.
    Falling,
    /// From 0 up.
    Rising,
    /// Up, then down, each score twice.
    OrganPipe,
    /// Runs of 64 equal scores, falling.
    Blocks,
    /// All the same.
    All(f32),
    /// A number, and otherwise 1: the number at every position whose remainder by 7 is 0 or 5.
    Some(f32),
    /// A number and its negative in turn.
    Alternate(f32),
}

/// Whether [`Scores::Some`] gives this position its number.
pub(super) fn is_marked(position: usize) -> bool {
    [0, 5].contains(&(position % 7))
}

impl Scores {
    /// The score at a position of a history of this length.
    pub fn at(self, position: usize, length: usize) -> f32 {
        let share = |rank: usize| rank as f32 / length as f32;
        match self {
            Scores::Falling => share(length - position),
            Scores::Rising => share(position),
            Scores::OrganPipe => share(position.min(length - 1 - position)),
            Scores::Blocks => share(length - position / 64 * 64),
            Scores::All(number) => number,
            Scores::Some(number) if is_marked(position) => number,
            Scores::Some(_) => 1.0,
            Scores::Alternate(number) if position.is_multiple_of(2) => number,
            Scores::Alternate(number) => -number,
        }
    }
}
