//! Where the kept histories of users are: a slot for each user, and rings of rows in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::host::{filled, reserve};
use crate::jagged::Jagged;
use crate::ops::{dim, elements};

const NEW: &str = "UserSlots::new";
const APPEND: &str = "UserSlots::append";
const COMMIT: &str = "UserSlots::commit";
const HISTORIES: &str = "UserSlots::histories";

/// Slots for the kept state of users, by their ids: which rows of a buffer hold the newest behaviours of each.
///
/// It is bookkeeping on the host, and owns no rows: any number of buffers (embeddings, ids, signatures) share it, each of
/// [`rows`](Self::rows) rows, and tables with one entry per slot. A slot is a ring of `kept + spare` behaviours. Each behaviour is written
/// twice, one ring apart, so that the newest are always one range, which operations read in place ([`histories`](Self::histories)).
///
/// An append has three steps: [`append`](Self::append) says what goes where, the caller copies, and [`commit`](Self::commit) makes it
/// so. Until then nothing that is read is overwritten: where a copy fails, the append is dropped, and everything is as before.
///
/// Tables are no rings: what is added to them stays. Add to them last, once the append is committed, or take back what was added to tables
/// of an append that is dropped.
///
/// Slot 0 is nobody's: users without state read it, for example a table of zeros.
///
/// Tables of SDIM with an entry per slot take the new behaviours of all users of an append in one call: [`SlotAppend::slots`] are the tables
/// that [`Jagged::with_slots`] names. Those of [`new_slots`](SlotAppend::new_slots) are cleared first.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Hash, Jagged, Sdim, SdimEncodeInputs, TargetAttention, TargetAttentionInputs, UserSlots};
///
/// # let backend = Cpu::new();
/// // Up to 1000 users, the newest 4 behaviours of each, of which 2 at most come at a time.
/// let mut slots = UserSlots::new(1000, 4, 2)?;
/// let mut kept = backend.zeros::<f32>(slots.rows())?; // rows of width 1
///
/// // Two behaviours of user 70, one of user 80.
/// let events = backend.upload(&[1.0_f32, 3.0, 8.0])?;
/// let append = slots.append(&[70, 80], &Jagged::from_lengths(&[2, 1])?)?;
/// for step in append.copies() {
///     let to = backend.view_mut(&mut kept).slice(step.to, step.rows)?;
///     backend.copy(backend.view(&events).slice(step.from, step.rows)?, to)?;
/// }
/// // The tables of the same users: one call, whichever slots they have.
/// let op = Sdim::new(1).with_groups(1, 1); // two buckets
/// let mut tables = backend.zeros::<f32>(op.table_length(slots.slots())?)?;
/// let signatures = backend.upload(&[0_u8, 1, 1])?;
/// let behaviours = SdimEncodeInputs::new(backend.view(&events), Hash::Signatures8(backend.view(&signatures)));
/// let new = backend.jagged(&Jagged::from_lengths(&[2, 1])?.with_slots(append.slots(), slots.slots())?)?;
/// slots.commit(append)?;
/// backend.sdim_append(&op, &new, behaviours, backend.view_mut(&mut tables))?;
/// let of_user = 2 * slots.slot(70) as usize;
/// assert_eq!(backend.download(backend.view(&tables).slice(of_user, 2)?)?, [1.0, 3.0]);
///
/// // Two requests of user 70, and one of a user without history.
/// let histories = slots.histories(&[70, 70, 5], 4)?;
/// let batch = backend.batch(&histories, &Jagged::from_lengths(&[1, 1, 1])?)?;
/// let candidates = backend.upload(&[0.0_f32; 3])?;
/// let inputs = TargetAttentionInputs::new(backend.view(&candidates), backend.view(&kept));
/// let out = backend.target_attention(&TargetAttention::new(1), &batch, inputs)?;
/// assert_eq!(backend.download(backend.view(&out))?, [2.0, 2.0, 0.0]);
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct UserSlots {
    slots: HashMap<u64, u32>,
    /// Behaviours ever written to each slot.
    written: Vec<u64>,
    free: Vec<u32>,
    kept: usize,
    ring: usize,
    /// Another one after each change: an append belongs to the state that it was made from, be it this one's or a clone's.
    state: Arc<State>,
}

/// What a state is known by. Not of size 0, so that each has an address of its own.
#[derive(Debug)]
struct State(#[expect(dead_code, reason = "its address counts")] u8);

impl State {
    fn new() -> Arc<Self> {
        Arc::new(Self(0))
    }
}

/// Rows of an append, to be copied in each buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCopy {
    /// The first row among the new ones.
    pub from: usize,
    /// The first row in the buffer.
    pub to: usize,
    /// How many rows.
    pub rows: usize,
}

/// What [`UserSlots::append`] plans and [`UserSlots::commit`] makes so.
#[derive(Debug)]
#[must_use = "nothing is appended until it is committed"]
pub struct SlotAppend {
    users: Vec<u64>,
    lengths: Vec<u64>,
    slots: Vec<u32>,
    taken: Vec<u32>,
    copies: Vec<RowCopy>,
    state: Arc<State>,
}

impl SlotAppend {
    /// The rows to copy, into distinct rows of the buffer.
    pub fn copies(&self) -> &[RowCopy] {
        &self.copies
    }

    /// The slot of each user of the append, each once: those of [`Jagged::with_slots`].
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Those of users without a slot before: what they hold is of users that were evicted, or of appends that were dropped.
    pub fn new_slots(&self) -> &[u32] {
        &self.taken
    }
}

impl UserSlots {
    /// Slots for so many users, which keep the newest `kept` behaviours of each. At most `spare` behaviours of a user are appended at a time.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a number is 0; [`Error::Limit`] if there are 2³² slots or more, more kept behaviours than
    /// [`Jagged::MAX_LENGTH`], or more rows than an address space has; [`Error::OutOfMemory`].
    pub fn new(users: usize, kept: usize, spare: usize) -> Result<Self> {
        for (argument, number) in [("users", users), ("kept", kept), ("spare", spare)] {
            if number == 0 {
                let (expected, got) = ("at least 1".into(), "0".into());
                return Err(Error::Parameter { operation: NEW, argument, expected, got });
            }
        }
        let limits = [("users", users, u32::MAX as usize - 1), ("kept", kept, Jagged::MAX_LENGTH)];
        for (argument, number, limit) in limits {
            if number > limit {
                let (needed, limit) = (number as u64, limit as u64);
                return Err(Error::Limit { operation: NEW, argument, needed, limit });
            }
        }
        let ring = kept.checked_add(spare).and_then(|ring| ring.checked_mul(2)).map(|rows| rows / 2);
        let limit = (usize::MAX / 2) as u64;
        let ring = ring.ok_or(Error::Limit { operation: NEW, argument: "kept", needed: u64::MAX, limit })?;
        elements(NEW, "rows", &[dim("slots", users + 1), dim("rows", 2 * ring)])?;
        let mut free = reserve(NEW, users)?;
        // Taken from the end: the lowest first.
        free.extend((1..=users as u32).rev());
        Ok(Self {
            slots: HashMap::new(),
            written: filled(NEW, users + 1, 0)?,
            free,
            kept,
            ring,
            state: State::new(),
        })
    }

    /// Rows of a buffer that holds the behaviours of all slots.
    pub fn rows(&self) -> usize {
        self.written.len() * 2 * self.ring
    }

    /// Slots, slot 0 included: the number of tables.
    pub fn slots(&self) -> usize {
        self.written.len()
    }

    /// Users that have a slot.
    pub fn users(&self) -> usize {
        self.slots.len()
    }

    /// The slot of a user; 0 for one without state.
    pub fn slot(&self, user: u64) -> u32 {
        self.slots.get(&user).copied().unwrap_or(0)
    }

    /// How many behaviours of a user are kept.
    pub fn length(&self, user: u64) -> usize {
        self.length_of(self.slot(user))
    }

    fn length_of(&self, slot: u32) -> usize {
        usize::try_from(self.written[slot as usize]).map_or(self.kept, |written| written.min(self.kept))
    }

    /// The first row of the newest behaviours of a slot, and how many there are.
    fn newest(&self, slot: u32, most: usize) -> (usize, usize) {
        let length = self.length_of(slot).min(most);
        let place = ((self.written[slot as usize] - length as u64) % self.ring as u64) as usize;
        (self.first_row(slot) + place, length)
    }

    fn first_row(&self, slot: u32) -> usize {
        slot as usize * 2 * self.ring
    }

    /// Plans an append of new behaviours, oldest first: those of `users[i]` are `new`'s rows of user `i`. Users without a slot get one.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one id for each user of `new`; [`Error::Parameter`] if an id is there twice;
    /// [`Error::Limit`] if there are more new users than free slots, or more behaviours of a user than `spare`;
    /// [`Error::OutOfMemory`].
    pub fn append(&self, users: &[u64], new: &Jagged) -> Result<SlotAppend> {
        new.check_no_slots(APPEND, "new")?;
        if users.len() != new.users() {
            let (expected, got) = (format!("{} ids, one per user", new.users()), users.len().to_string());
            return Err(Error::Shape { operation: APPEND, argument: "users", expected, got });
        }
        let mut seen = HashSet::new();
        if let Some(&user) = users.iter().find(|&&user| !seen.insert(user)) {
            let (expected, got) = ("each user once".into(), format!("{user} twice"));
            return Err(Error::Parameter { operation: APPEND, argument: "users", expected, got });
        }
        let mut append = SlotAppend {
            users: reserve(APPEND, users.len())?,
            lengths: reserve(APPEND, users.len())?,
            slots: reserve(APPEND, users.len())?,
            taken: Vec::new(),
            copies: reserve(APPEND, 4 * users.len())?,
            state: self.state.clone(),
        };
        append.users.extend_from_slice(users);
        let spare = self.ring - self.kept;
        for (&user, rows) in users.iter().zip(new.ranges()) {
            if rows.len() > spare {
                let (needed, limit) = (rows.len() as u64, spare as u64);
                return Err(Error::Limit { operation: APPEND, argument: "new", needed, limit });
            }
            let slot = match self.slots.get(&user) {
                Some(&slot) => slot,
                None => self.take(&mut append.taken)?,
            };
            self.copy(slot, rows.start, rows.len(), &mut append.copies);
            append.slots.push(slot);
            append.lengths.push(rows.len() as u64);
        }
        Ok(append)
    }

    /// The next free slot after those that are taken.
    fn take(&self, taken: &mut Vec<u32>) -> Result<u32> {
        let (limit, needed) = (self.free.len() as u64, taken.len() as u64 + 1);
        let index = self.free.len().checked_sub(taken.len() + 1);
        let slot = index.map(|index| self.free[index]);
        let slot = slot.ok_or(Error::Limit { operation: APPEND, argument: "users", needed, limit })?;
        taken.push(slot);
        Ok(slot)
    }

    /// Where rows go that are appended to a slot: both halves, each in one or two pieces.
    fn copy(&self, slot: u32, from: usize, rows: usize, copies: &mut Vec<RowCopy>) {
        let place = (self.written[slot as usize] % self.ring as u64) as usize;
        let first = rows.min(self.ring - place);
        let half = self.first_row(slot);
        for half in [half, half + self.ring] {
            for (from, to, rows) in [(from, half + place, first), (from + first, half, rows - first)] {
                if rows > 0 {
                    copies.push(RowCopy { from, to, rows });
                }
            }
        }
    }

    /// Makes an append so, once its rows are copied.
    ///
    /// # Errors
    /// [`Error::Parameter`] if something was committed or evicted since it was planned, or if it was planned by other slots.
    pub fn commit(&mut self, append: SlotAppend) -> Result<()> {
        if !Arc::ptr_eq(&append.state, &self.state) {
            let expected = "one that was planned here after the last change".into();
            let got = "one of another state".into();
            return Err(Error::Parameter { operation: COMMIT, argument: "append", expected, got });
        }
        self.state = State::new();
        self.free.truncate(self.free.len() - append.taken.len());
        for ((user, slot), length) in append.users.into_iter().zip(append.slots).zip(append.lengths) {
            self.slots.insert(user, slot);
            self.written[slot as usize] += length;
        }
        Ok(())
    }

    /// Gives up the slots of users, and returns them: what tables hold there is to be cleared before it is added to.
    pub fn evict(&mut self, users: &[u64]) -> Vec<u32> {
        self.state = State::new();
        let gone: Vec<u32> = users.iter().filter_map(|user| self.slots.remove(user)).collect();
        gone.iter().for_each(|&slot| self.written[slot as usize] = 0);
        self.free.extend_from_slice(&gone);
        gone
    }

    /// The newest behaviours of users, at most `most` of each, in place: user `i` of the batch is `users[i]`. Users may be there several times;
    /// those without state have none.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn histories(&self, users: &[u64], most: usize) -> Result<Jagged> {
        let (mut starts, mut lengths) = (reserve(HISTORIES, users.len())?, reserve(HISTORIES, users.len())?);
        for &user in users {
            let (start, length) = self.newest(self.slot(user), most);
            starts.push(start);
            lengths.push(length);
        }
        Jagged::from_starts(&starts, &lengths, self.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that need not be random ones.
    fn next(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    /// Random appends and evictions, of which some are dropped before they are committed, against lists that grow.
    #[test]
    fn newest_behaviours_are_one_range() {
        for (kept, spare) in [(1, 1), (5, 3), (4, 9)] {
            let mut slots = UserSlots::new(4, kept, spare).expect("small numbers");
            let mut buffer = vec![-1; slots.rows()];
            let mut expected: HashMap<u64, Vec<i32>> = HashMap::new();
            let (mut state, mut clock) = (7, 0);
            for round in 0..2000 {
                let mut users: Vec<u64> = (0..6).filter(|_| next(&mut state, 3) == 0).collect();
                if round % 7 == 0 {
                    users.truncate(1);
                    let gone = slots.evict(&users);
                    let had = users.iter().filter(|user| expected.remove(user).is_some()).count();
                    assert_eq!(gone.len(), had);
                }
                let lengths: Vec<usize> =
                    users.iter().map(|_| next(&mut state, spare as u64 + 1) as usize).collect();
                let new = Jagged::from_lengths(&lengths).expect("small numbers");
                let rows: Vec<i32> = (clock..).take(new.rows()).collect();
                clock += rows.len() as i32;
                let unknown = users.iter().filter(|user| !expected.contains_key(user)).count();
                match slots.append(&users, &new) {
                    Ok(append) => {
                        for step in append.copies() {
                            buffer[step.to..][..step.rows].copy_from_slice(&rows[step.from..][..step.rows]);
                        }
                        if next(&mut state, 4) > 0 {
                            slots.commit(append).expect("the newest plan");
                            for (user, range) in users.iter().zip(new.ranges()) {
                                expected.entry(*user).or_default().extend(&rows[range]);
                            }
                        }
                    }
                    Err(error) => {
                        assert!(expected.len() + unknown > 4, "{error}");
                        assert!(matches!(error, Error::Limit { argument: "users", .. }), "{error}");
                    }
                }
                let all: Vec<u64> = (0..7).collect();
                let most = 1 + next(&mut state, kept as u64 + 2) as usize;
                let histories = slots.histories(&all, most).expect("ranges in the buffer");
                for (user, range) in all.iter().zip(histories.ranges()) {
                    let newest = expected.get(user).map_or(&[][..], |rows| rows);
                    let newest = &newest[newest.len() - newest.len().min(most).min(kept)..];
                    assert_eq!(&buffer[range], newest, "user {user}, round {round}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut slots = UserSlots::new(2, 3, 2).expect("small numbers");
        let lengths = |lengths: &[usize]| Jagged::from_lengths(lengths).expect("small numbers");
        let argument = |result: Result<SlotAppend>| match result {
            Err(
                Error::Limit { argument, .. }
                | Error::Parameter { argument, .. }
                | Error::Shape { argument, .. },
            ) => argument,
            other => panic!("{other:?}"),
        };
        assert_eq!(argument(slots.append(&[1, 2, 3], &lengths(&[0, 0, 0]))), "users");
        assert_eq!(argument(slots.append(&[1, 1], &lengths(&[0, 0]))), "users");
        assert_eq!(argument(slots.append(&[1], &lengths(&[1, 1]))), "users");
        assert_eq!(argument(slots.append(&[1], &lengths(&[3]))), "new");
        let [first, second] = [1, 2].map(|user| slots.append(&[user], &lengths(&[1])).expect("it fits"));
        slots.commit(first).expect("the newest plan");
        slots.commit(second).expect_err("of another state");
        assert_eq!((slots.users(), slots.length(1), slots.length(2), slots.slot(2)), (1, 1, 0, 0));
        // Of other slots, which have changed as often.
        let mut clone = slots.clone();
        let append = slots.append(&[2], &lengths(&[1])).expect("it fits");
        clone.commit(append).expect("the same state");
        slots.evict(&[1]);
        let append = slots.append(&[3, 4], &lengths(&[1, 1])).expect("it fits");
        clone.commit(append).expect_err("of slots that have another state");
        let larger = UserSlots::new(50, 3, 2).expect("small numbers");
        let users: Vec<u64> = (0..50).collect();
        let append = larger.append(&users, &lengths(&[1; 50])).expect("it fits");
        UserSlots::new(2, 3, 2).expect("small numbers").commit(append).expect_err("of larger slots");
        for (users, kept, spare) in [
            (0, 1, 1),
            (1, 0, 1),
            (1, 1, 0),
            (usize::MAX, 1, 1),
            (1, usize::MAX, 1),
            (1, Jagged::MAX_LENGTH + 1, 1),
            (1 << 31, 1 << 31, 1 << 31),
        ] {
            UserSlots::new(users, kept, spare).expect_err("no such sizes");
        }
    }
}
