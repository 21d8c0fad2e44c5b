//! Jagged batches: the rows of each user. Offsets are validated only here.

use std::ops::Range;

use crate::error::{Error, Result};

/// The concatenated rows of several users: user `b` owns rows `offsets[b]..offsets[b + 1]`.
///
/// It describes behaviours (`N` rows of history), candidates (`M` rows of targets) or bags of ids. Nothing is padded, and
/// a user may own no rows. The offsets of a `Jagged` always start at 0, never decrease and end within the rows. Rows
/// after the last offset belong to no user: operations neither read nor write them.
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
    /// The largest number of rows of one user. Positions in a history are `u32`, and `u32::MAX` marks an empty slot.
    pub const MAX_LENGTH: usize = u32::MAX as usize;

    /// From offsets of any integer type (`[users + 1]`) into a buffer of `rows` rows. Rows after the last offset belong to
    /// no user.
    ///
    /// # Errors
    /// [`Error::Shape`] if the offsets are empty, do not start at 0, decrease, or end past `rows`;
    /// [`Error::Limit`] if one user owns more than [`MAX_LENGTH`](Self::MAX_LENGTH) rows.
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

    /// From each user's number of rows, for a buffer that has exactly their sum of rows.
    ///
    /// # Errors
    /// As [`new`](Self::new); also [`Error::Limit`] if the sum overflows.
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

    /// The number of users.
    pub fn users(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of rows of the buffers, including those that belong to no user.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of rows that belong to users.
    pub fn total(&self) -> usize {
        self.offsets[self.users()]
    }

    /// The rows of one user; empty if there is no such user.
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

    /// The largest number of rows of any user.
    pub fn max_length(&self) -> usize {
        self.ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }
}

/// A batch of requests: the histories and the candidates of the same users.
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
    /// [`Error::Shape`] if they have different numbers of users.
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

    /// The behaviours (rows of keys, values, history, ids) of each user.
    pub fn histories(&self) -> &Jagged {
        &self.histories
    }

    /// The candidates (rows of queries, targets, outputs) of each user.
    pub fn targets(&self) -> &Jagged {
        &self.targets
    }

    /// The number of users.
    pub fn users(&self) -> usize {
        self.histories.users()
    }

    /// For each user, the rows of the history and the rows of the targets.
    pub fn requests(&self) -> impl ExactSizeIterator<Item = (Range<usize>, Range<usize>)> + Clone + '_ {
        self.histories.ranges().zip(self.targets.ranges())
    }

    /// The number of pairs of a candidate and a behaviour of its user: Σ over users of behaviours × candidates; at most
    /// `u64::MAX`.
    pub fn pairs(&self) -> u64 {
        let pairs = self.requests().map(|(history, targets)| history.len() as u64 * targets.len() as u64);
        pairs.fold(0, u64::saturating_add)
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
