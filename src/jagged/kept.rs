//! Ranges that write kept entries.

use crate::error::{Error, Result};
use crate::jagged::rows::Jagged;
use crate::jagged::slots::Slots;

const WITH_SLOTS: &str = "Jagged::with_slots";

impl Jagged {
    /// Names, for each range, which of `count` kept entries it writes: SDIM's [`sdim_encode`](crate::SdimOps::sdim_encode_into),
    /// [`sdim_append`](crate::SdimOps::sdim_append) and [`sdim_remove`](crate::SdimOps::sdim_remove) take the tables of `count` users then, of
    /// which range `b` writes that of `slots[b]`, in any order. Each is written by one range at most; the others are neither read nor written.
    /// All other calls refuse ranges with slots.
    ///
    /// Here tables of all users are kept, and one call adds the new behaviours of some:
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(1, 1); // two buckets per user
    /// let mut tables = backend.zeros::<f32>(op.table_length(4)?)?; // four users
    /// let (rows, signatures) = ([1.0_f32, 2.0, 4.0], [0_u8, 1, 0]);
    /// let behaviours = SdimEncodeInputs::new(Host::view(&rows), Hash::Signatures8(Host::view(&signatures)));
    /// // Two behaviours of user 3, one of user 1.
    /// let new = backend.jagged(&Jagged::from_lengths(&[2, 1])?.with_slots(&[3, 1], 4)?)?;
    /// backend.sdim_append(&op, &new, behaviours, backend.view_mut(&mut tables))?;
    /// assert_eq!(*tables, [0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// [`UserSlots`](crate::UserSlots) finds the slots of users by their ids. A serving process adds events of the last second so, in one call.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one slot for each range; [`Error::IndexOutOfRange`] for a slot that is not below `count`;
    /// [`Error::Parameter`] for one that is named twice; [`Error::OutOfMemory`].
    pub fn with_slots(mut self, slots: &[u32], count: usize) -> Result<Self> {
        if slots.len() != self.users() {
            return Err(Error::Shape {
                operation: WITH_SLOTS,
                argument: "slots",
                expected: format!("{}, one per user", self.users()),
                got: slots.len().to_string(),
            });
        }
        self.slots = Some(Slots::new(WITH_SLOTS, "slots", slots, count)?);
        Ok(self)
    }

    /// The kept entry that each range writes, `[users]`; `None` without [slots](Self::with_slots): range `b` writes entry `b`.
    pub fn slots(&self) -> Option<&[u32]> {
        self.slots.as_ref().map(|slots| &slots.of_ranges[..])
    }

    /// How many kept entries there are, of which ranges write some ([`with_slots`](Self::with_slots)); without slots one for each user.
    pub fn slot_count(&self) -> usize {
        self.slots.as_ref().map_or(self.users(), |slots| slots.count)
    }

    /// The kept entry that a range writes.
    pub(crate) fn slot(&self, user: usize) -> usize {
        self.slots().map_or(user, |slots| slots[user] as usize)
    }

    /// The entries of some of the users, each once.
    pub(super) fn slots_of(&self, operation: &'static str, users: &[u32]) -> Result<Option<Slots>> {
        let Some(Slots { of_ranges, count }) = &self.slots else { return Ok(None) };
        let own: Vec<u32> = users.iter().map(|&user| of_ranges[user as usize]).collect();
        Slots::new(operation, "users", &own, *count).map(Some)
    }

    /// Fails for ranges with slots, where a call has nothing that they could name.
    pub(crate) fn check_no_slots(&self, operation: &'static str, argument: &'static str) -> Result<()> {
        if self.slots.is_none() {
            return Ok(());
        }
        let (expected, got) = ("ranges without slots".into(), "ranges with slots".into());
        Err(Error::Parameter { operation, argument, expected, got })
    }

    /// One row for each range: where its result is among those of all entries.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(crate) fn rows_of_results(&self) -> Result<Self> {
        match &self.slots {
            None => Self::from_lengths(&vec![1; self.users()]),
            Some(Slots { of_ranges, count }) => {
                let row = |&slot: &u32| slot as usize..slot as usize + 1;
                Ok(Self::from_ranges(of_ranges.iter().map(row).collect(), *count))
            }
        }
    }
}
