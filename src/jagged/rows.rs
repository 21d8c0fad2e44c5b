//! The rows of each user. Offsets and sub-ranges are validated only here.

use std::fmt::Display;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::jagged::slots::Slots;
use crate::jagged::sub_ranges::SubRanges;

/// The rows of several users in one buffer: concatenated, so that user `b` owns rows `offsets[b]..offsets[b + 1]`, or
/// [sub-ranges](Self::from_starts) anywhere in it.
///
/// It describes behaviours (`N` rows of history), candidates (`M` rows of targets) or bags of ids. Nothing is padded, and
/// a user may own no rows. Rows after [`total`](Self::total), the last that a user owns, belong to no user: operations neither read
/// nor write them.
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
///
/// # Sub-ranges
///
/// Histories (and bags of look-ups) may also be any ranges of the rows, with gaps between them and in any order: the last 200
/// behaviours of each user ([`newest`](Self::newest)), or a store that holds users in slots. Nothing is copied. Ranges of several users
/// may overlap: several requests of one user share a history. A position in a history is counted from the start of its range.
///
/// - Forward passes, and the gradients of tables from a selection, take any ranges.
/// - Gradients that are written by row of the history take ranges that share no rows; others are [`Error::Shape`] for `histories`.
///   Rows in gaps get zeros.
/// - Results do not depend on rows in gaps, but ids, positions and signatures there may be checked like all others, so they must be valid.
/// - Candidates, and the bags of `lookup_backward`, are one user after the other.
/// - Backends may take fewer: they answer [`Error::Unsupported`]. `Wgpu` takes no bags that are sub-ranges, nor does `Cuda` for means that
///   skip ids.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Jagged, TargetAttention, TargetAttentionInputs};
///
/// // Seven rows of width 1. The first two requests are of one user, of whom the second has not seen the last behaviour.
/// let rows = [5.0_f32, 1.0, 2.0, 3.0, 0.0, 0.0, 8.0];
/// let histories = Jagged::from_starts(&[1, 1, 6], &[3, 2, 1], 7)?;
/// assert_eq!((histories.range(0), histories.range(1), histories.range(2)), (1..4, 1..3, 6..7));
///
/// let backend = longseq::Cpu::new();
/// let batch = backend.batch(&histories, &Jagged::from_lengths(&[1, 1, 1])?)?;
/// let (rows, candidates) = (backend.upload(&rows)?, backend.upload(&[0.0_f32; 3])?);
/// let inputs = TargetAttentionInputs::new(backend.view(&candidates), backend.view(&rows));
/// let out = backend.target_attention(&TargetAttention::new(1), &batch, inputs)?;
/// assert_eq!(backend.download(backend.view(&out))?, [2.0, 1.5, 8.0]); // candidates of zeros: means
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jagged {
    layout: Layout,
    rows: usize,
    /// Which kept entries the ranges write, if they were named.
    pub(super) slots: Option<Slots>,
}

/// Where the rows of each user are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    /// One user after the other: `[users + 1]`.
    Offsets(Vec<usize>),
    Anywhere(SubRanges),
}

const NEW: &str = "Jagged::new";
const FROM_STARTS: &str = "Jagged::from_starts";

/// An index as `usize`.
fn index_of<I: Copy + TryInto<usize> + Display>(
    operation: &'static str,
    argument: &'static str,
    (place, value): (usize, I),
    most: usize,
) -> Result<usize> {
    value.try_into().map_err(|_| Error::Shape {
        operation,
        argument,
        expected: format!("{argument}[{place}] in 0..={most}"),
        got: value.to_string(),
    })
}

/// Fails for a user with more rows than positions can count.
fn check_length(operation: &'static str, length: usize) -> Result<()> {
    let (needed, limit) = (length as u64, Jagged::MAX_LENGTH as u64);
    if needed > limit {
        return Err(Error::Limit { operation, argument: "length of one user", needed, limit });
    }
    Ok(())
}

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
        I: Copy + TryInto<usize> + Display,
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
        let value = |offset: (usize, I)| index_of(NEW, "offsets", offset, rows);
        let checked: Vec<usize> = offsets.iter().copied().enumerate().map(value).collect::<Result<_>>()?;
        if checked[0] != 0 {
            return Err(wrong("offsets[0] = 0".into(), first.to_string()));
        }
        for (index, pair) in checked.windows(2).enumerate() {
            if pair[1] < pair[0] {
                let expected = format!("offsets[{}] >= offsets[{index}] = {}", index + 1, pair[0]);
                return Err(wrong(expected, pair[1].to_string()));
            }
            check_length(NEW, pair[1] - pair[0])?;
        }
        let end = checked[checked.len() - 1];
        if end > rows {
            return Err(wrong(
                format!("a last offset of at most {rows}, the number of rows"),
                end.to_string(),
            ));
        }
        Ok(Self { layout: Layout::Offsets(checked), rows, slots: None })
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

    /// From where each user's rows start, and how many they are, in a buffer of `rows` rows: [sub-ranges](Self#sub-ranges), which may
    /// leave gaps, overlap and be in any order. Where they are one after the other from 0, it equals what [`new`](Self::new) makes.
    ///
    /// ```
    /// use longseq::Jagged;
    ///
    /// let jagged = Jagged::from_starts(&[4, 0], &[2, 3], 10)?;
    /// assert_eq!((jagged.range(0), jagged.range(1), jagged.total()), (4..6, 0..3, 6));
    /// let error = Jagged::from_starts(&[4, 9], &[2, 3], 10).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "Jagged::from_starts: lengths: expected lengths[1] <= 1, the rows from starts[1] = 9 on, got 3"
    /// );
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many lengths as starts, or a range does not end within `rows`;
    /// [`Error::Limit`] if one user owns more than [`MAX_LENGTH`](Self::MAX_LENGTH) rows.
    pub fn from_starts<I>(starts: &[I], lengths: &[I], rows: usize) -> Result<Self>
    where
        I: Copy + TryInto<usize> + Display,
    {
        let wrong = |argument, expected: String, got: String| {
            Err(Error::Shape { operation: FROM_STARTS, argument, expected, got })
        };
        if lengths.len() != starts.len() {
            let expected = format!("{}, as many as there are starts", starts.len());
            return wrong("lengths", expected, lengths.len().to_string());
        }
        let mut ranges = Vec::with_capacity(starts.len());
        for (place, (&start, &length)) in starts.iter().zip(lengths).enumerate() {
            let start = index_of(FROM_STARTS, "starts", (place, start), rows)?;
            let length = index_of(FROM_STARTS, "lengths", (place, length), rows)?;
            // Neither sum nor difference may overflow.
            let Some(left) = rows.checked_sub(start) else {
                return wrong("starts", format!("starts[{place}] in 0..={rows}"), start.to_string());
            };
            if length > left {
                let expected =
                    format!("lengths[{place}] <= {left}, the rows from starts[{place}] = {start} on");
                return wrong("lengths", expected, length.to_string());
            }
            check_length(FROM_STARTS, length)?;
            ranges.push(start..start + length);
        }
        Ok(Self::from_ranges(ranges, rows))
    }

    /// From ranges that end within `rows`.
    pub(crate) fn from_ranges(ranges: Vec<Range<usize>>, rows: usize) -> Self {
        let layout = match SubRanges::or_offsets(ranges) {
            Ok(ranges) => Layout::Anywhere(ranges),
            Err(offsets) => Layout::Offsets(offsets),
        };
        Self { layout, rows, slots: None }
    }

    /// The newest `count` rows of each user, or all if there are fewer, in the same buffer. No row is copied, and users keep their
    /// [slots](Self::with_slots).
    ///
    /// ```
    /// let newest = longseq::Jagged::from_lengths(&[1000, 20])?.newest(200);
    /// assert_eq!((newest.range(0), newest.range(1), newest.rows()), (800..1000, 1000..1020, 1020));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    pub fn newest(&self, count: usize) -> Self {
        let newest = |rows: Range<usize>| rows.end - count.min(rows.len())..rows.end;
        let slots = self.slots.clone();
        Self { slots, ..Self::from_ranges(self.ranges().map(newest).collect(), self.rows) }
    }

    /// The rows of some of the users, in this order and where they are: a batch of requests over the histories of all users copies none
    /// of them. A user may be asked for more than once, unless users have [slots](Self::with_slots), which they keep.
    ///
    /// ```
    /// let store = longseq::Jagged::from_lengths(&[3, 5, 4])?; // three users, whose histories are on the device
    /// let requests = store.of_users(&[2, 0, 2])?;
    /// assert_eq!((requests.range(0), requests.range(1), requests.range(2)), (8..12, 0..3, 8..12));
    /// assert_eq!(requests.newest(2).range(0), 10..12);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] for a user that is not there; [`Error::Parameter`] for one with a slot who is asked for twice.
    pub fn of_users(&self, users: &[u32]) -> Result<Self> {
        let (operation, bound) = ("Jagged::of_users", self.users());
        let range = |(position, &user): (usize, &u32)| {
            if (user as usize) < bound {
                return Ok(self.range(user as usize));
            }
            let (position, id, bound) = (position as u64, user.into(), bound as u64);
            Err(Error::IndexOutOfRange { operation, argument: "users", position, id, bound })
        };
        let ranges = users.iter().enumerate().map(range).collect::<Result<_>>()?;
        let slots = self.slots_of(operation, users)?;
        Ok(Self { slots, ..Self::from_ranges(ranges, self.rows) })
    }

    /// The number of users.
    pub fn users(&self) -> usize {
        match &self.layout {
            Layout::Offsets(offsets) => offsets.len() - 1,
            Layout::Anywhere(SubRanges { ranges, .. }) => ranges.len(),
        }
    }

    /// The number of rows of the buffers, including those that belong to no user.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where the last rows of users end: the largest end of a [`range`](Self::range). Without sub-ranges it is the number of rows that
    /// belong to users.
    pub fn total(&self) -> usize {
        match &self.layout {
            Layout::Offsets(offsets) => offsets[offsets.len() - 1],
            Layout::Anywhere(SubRanges { end, .. }) => *end,
        }
    }

    /// The sum of the lengths of all users. It is more than [`total`](Self::total) if users share rows, and less if there are gaps.
    /// At most `usize::MAX`.
    pub fn total_length(&self) -> usize {
        match &self.layout {
            Layout::Offsets(_) => self.total(),
            Layout::Anywhere(SubRanges { ranges, .. }) => {
                ranges.iter().map(|range| range.len()).fold(0, usize::saturating_add)
            }
        }
    }

    /// The rows of one user; empty if there is no such user.
    pub fn range(&self, user: usize) -> Range<usize> {
        match &self.layout {
            _ if user >= self.users() => self.total()..self.total(),
            Layout::Offsets(offsets) => offsets[user]..offsets[user + 1],
            Layout::Anywhere(SubRanges { ranges, .. }) => ranges[user].clone(),
        }
    }

    /// The rows of each user, in the order of users.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + Clone + '_ {
        (0..self.users()).map(move |user| self.range(user))
    }

    /// The offsets, `[users + 1]`; `None` if the rows of users are not one after the other ([sub-ranges](Self#sub-ranges)).
    pub fn offsets(&self) -> Option<&[usize]> {
        match &self.layout {
            Layout::Offsets(offsets) => Some(offsets),
            Layout::Anywhere(_) => None,
        }
    }

    /// The largest number of rows of any user.
    pub fn max_length(&self) -> usize {
        self.ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }

    /// Fails if two users share a row, where a call writes one result for each row of a history.
    pub(crate) fn check_disjoint(&self, operation: &'static str) -> Result<()> {
        match &self.layout {
            Layout::Anywhere(SubRanges { shared: Some(([first, second], row)), .. }) => Err(Error::Shape {
                operation,
                argument: "histories",
                expected: "ranges that share no rows, as gradients are written by row".into(),
                got: format!("users {first} and {second}, who share row {row}"),
            }),
            _ => Ok(()),
        }
    }

    /// Fails for sub-ranges and for slots, where an operation takes rows of one user after the other alone.
    pub(crate) fn check_offsets(&self, operation: &'static str, argument: &'static str) -> Result<&[usize]> {
        self.check_no_slots(operation, argument)?;
        self.offsets().ok_or_else(|| Error::Shape {
            operation,
            argument,
            expected: "the rows of one user after the other, from 0 on".into(),
            got: "sub-ranges".into(),
        })
    }

    /// The rows before [`total`](Self::total) that belong to no user, of ranges that share no rows.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(crate) fn gaps(&self) -> Vec<Range<usize>> {
        match &self.layout {
            Layout::Offsets(_) => Vec::new(),
            Layout::Anywhere(ranges) => ranges.gaps(),
        }
    }

    /// Edges of the rows in ascending order, of ranges that share no rows: the rows of each user lie between two neighbours, as those of
    /// no user do. Without sub-ranges they are the offsets.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(crate) fn edges(&self) -> Vec<usize> {
        match &self.layout {
            Layout::Offsets(offsets) => offsets.clone(),
            Layout::Anywhere(ranges) => {
                let edges = ranges.ascending().into_iter().flat_map(|range| [range.start, range.end]);
                std::iter::once(0).chain(edges).collect()
            }
        }
    }
}

impl AsRef<Jagged> for Jagged {
    fn as_ref(&self) -> &Jagged {
        self
    }
}
