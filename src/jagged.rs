//! Jagged batches: which rows belong to which user. Offsets are validated here and nowhere else.

use std::ops::Range;

use crate::error::{Error, Result};

/// Rows of several users, one after the other: user `b` owns rows `offsets[b]..offsets[b + 1]`.
///
/// It describes behaviours (`N` rows of history), candidates (`M` rows of targets) or bags of ids alike. Nothing
/// is padded; a user may own no rows. Once built, offsets are known to start at 0, never to fall and to end
/// within the rows. Rows behind the last offset belong to nobody: operations neither read nor write them.
///
/// ```
/// use longseq::Jagged;
///
/// let histories = Jagged::new(&[0, 3, 3, 8], 8)?; // three users: 3, 0 and 5 behaviours
/// assert_eq!(histories, Jagged::from_lengths(&[3, 0, 5])?);
/// assert_eq!(histories.range(2), 3..8);
///
/// let error = Jagged::new(&[0, 5, 3], 8).unwrap_err();
/// assert_eq!(error.to_string(), "Jagged::new: offsets: expected offsets[2] >= offsets[1] = 5, got 3");
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jagged {
    offsets: Vec<usize>,
    rows: usize,
}

const NEW: &str = "Jagged::new";

impl Jagged {
    /// The most rows one user may own. A position in a history is a `u32`, and `u32::MAX` marks an empty slot.
    pub const MAX_LENGTH: usize = u32::MAX as usize;

    /// Takes offsets of any integer type (`[users + 1]`) into a buffer of `rows` rows. Rows behind the last
    /// offset belong to nobody.
    ///
    /// # Errors
    /// [`Error::Shape`] where the offsets are empty, do not start at 0, fall, or end behind `rows`;
    /// [`Error::Limit`] where one user owns more than [`MAX_LENGTH`](Self::MAX_LENGTH) rows.
    pub fn new<I>(offsets: &[I], rows: usize) -> Result<Self>
    where
        I: Copy + TryInto<usize> + std::fmt::Display,
    {
        let wrong = |expected: String, got: String| Error::Shape {
            operation: NEW,
            argument: "offsets",
            expected,
            got,
        };
        let Some(first) = offsets.first() else {
            return Err(wrong("users + 1 offsets, at least one".into(), "none".into()));
        };
        let mut checked = Vec::with_capacity(offsets.len());
        for (index, &offset) in offsets.iter().enumerate() {
            let value: usize = offset
                .try_into()
                .map_err(|_| wrong(format!("offsets[{index}] in 0..={rows}"), offset.to_string()))?;
            checked.push(value);
        }
        if checked[0] != 0 {
            return Err(wrong("offsets[0] = 0".into(), first.to_string()));
        }
        for (index, pair) in checked.windows(2).enumerate() {
            if pair[1] < pair[0] {
                let expected = format!("offsets[{}] >= offsets[{index}] = {}", index + 1, pair[0]);
                return Err(wrong(expected, pair[1].to_string()));
            }
            let (needed, limit) = ((pair[1] - pair[0]) as u64, Self::MAX_LENGTH as u64);
            if needed > limit {
                return Err(Error::Limit { operation: NEW, argument: "length of one user", needed, limit });
            }
        }
        let end = checked[checked.len() - 1];
        if end > rows {
            return Err(wrong(
                format!("a last offset of at most {rows}, the number of rows"),
                end.to_string(),
            ));
        }
        Ok(Self { offsets: checked, rows })
    }

    /// Takes each user's number of rows; the buffer has exactly as many rows as they add up to.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Limit`] too where the sum overflows.
    pub fn from_lengths(lengths: &[usize]) -> Result<Self> {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0usize;
        offsets.push(end);
        for &length in lengths {
            end = end.checked_add(length).ok_or(Error::Limit {
                operation: "Jagged::from_lengths",
                argument: "lengths",
                needed: u64::MAX,
                limit: usize::MAX as u64,
            })?;
            offsets.push(end);
        }
        Self::new(&offsets, end)
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.offsets.len() - 1
    }

    /// How many rows the buffers have, those that belong to nobody included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many rows belong to users.
    pub fn total(&self) -> usize {
        self.offsets[self.users()]
    }

    /// The rows of one user. Empty for a user that does not exist.
    pub fn range(&self, user: usize) -> Range<usize> {
        if user < self.users() {
            self.offsets[user]..self.offsets[user + 1]
        } else {
            self.total()..self.total()
        }
    }

    /// The rows of each user, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + Clone + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// The offsets, `[users + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The longest user's number of rows.
    pub fn max_length(&self) -> usize {
        self.ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }
}

/// The two sides of a batch of requests: every user's history and every user's candidates.
///
/// ```
/// use longseq::{Batch, Jagged};
///
/// // Two users: 1000 and 20 behaviours, 3 and 2 candidates.
/// let batch = Batch::new(Jagged::from_lengths(&[1000, 20])?, Jagged::from_lengths(&[3, 2])?)?;
/// assert_eq!(batch.users(), 2);
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    histories: Jagged,
    targets: Jagged,
}

impl Batch {
    /// Pairs histories with targets.
    ///
    /// # Errors
    /// [`Error::Shape`] where they count different users.
    pub fn new(histories: Jagged, targets: Jagged) -> Result<Self> {
        if histories.users() != targets.users() {
            return Err(Error::Shape {
                operation: "Batch::new",
                argument: "targets",
                expected: format!("{} users, as many as there are histories", histories.users()),
                got: format!("{} users", targets.users()),
            });
        }
        Ok(Self { histories, targets })
    }

    /// Which behaviours (rows of keys, values, history, ids) belong to which user.
    pub fn histories(&self) -> &Jagged {
        &self.histories
    }

    /// Which candidates (rows of queries, targets, outputs) belong to which user.
    pub fn targets(&self) -> &Jagged {
        &self.targets
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.histories.users()
    }

    /// For each user, the rows of the history and the rows of the targets.
    pub fn requests(&self) -> impl ExactSizeIterator<Item = (Range<usize>, Range<usize>)> + Clone + '_ {
        self.histories.ranges().zip(self.targets.ranges())
    }

    /// Σ over users of (behaviours × candidates): how many pairs an exact method looks at.
    pub fn pairs(&self) -> u64 {
        self.requests().map(|(history, targets)| history.len() as u64 * targets.len() as u64).sum()
    }
}

impl AsRef<Jagged> for Jagged {
    fn as_ref(&self) -> &Jagged {
        self
    }
}

impl AsRef<Batch> for Batch {
    fn as_ref(&self) -> &Batch {
        self
    }
}
