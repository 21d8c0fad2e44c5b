//! Tables of users that are kept among those of others.

use longseq::*;

use super::SdimCase;
use crate::case::Failure;

/// Where the tables of a case are.
pub(super) struct Kept {
    /// Of each user, if they are not one after the other.
    slots: Option<Vec<u32>>,
    count: usize,
    /// Numbers of a table.
    length: usize,
}

/// What tables hold that no call may touch: numbers that an addition of 0, or a device that takes subnormal numbers for 0, would change.
fn sentinel(i: usize) -> f32 {
    [-0.0, f32::from_bits(0x7fc0_1234), 1e-40, 1.5][i % 4]
}

impl SdimCase {
    pub(super) fn kept(&self) -> Result<Kept, Failure> {
        let users = self.histories.len();
        // In falling order, with gaps; the first user has the last slot.
        let slot = |user: u32| 3 * (users as u32 - user) - 1;
        let slots = self.slots.then(|| (0..users as u32).map(slot).collect());
        let count = if self.slots { 3 * users } else { users };
        Ok(Kept { slots, count, length: self.op().table_length(1)? })
    }
}

impl Kept {
    /// Histories that name the tables.
    pub(super) fn name(&self, histories: &Jagged) -> Result<Jagged, Failure> {
        Ok(match &self.slots {
            None => histories.clone(),
            Some(slots) => histories.clone().with_slots(slots, self.count)?,
        })
    }

    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let slot = |user| self.slots.as_ref().map_or(user, |slots: &Vec<u32>| slots[user] as usize);
        (0..self.slots.as_ref().map_or(self.count, Vec::len)).map(slot)
    }

    /// All tables: those of the users hold `number(i)`, `i` counted over theirs alone.
    pub(super) fn all(&self, number: impl Fn(usize) -> f32) -> Vec<f32> {
        let mut all: Vec<f32> = (0..self.count * self.length).map(sentinel).collect();
        for (user, place) in self.places().enumerate() {
            let table = &mut all[place * self.length..][..self.length];
            table.iter_mut().zip(user * self.length..).for_each(|(x, i)| *x = number(i));
        }
        all
    }

    /// The tables of the users, one after the other.
    ///
    /// # Errors
    /// A number of another table that is not as it was.
    pub(super) fn of_users(&self, name: &str, all: &[f32]) -> Result<Vec<f32>, Failure> {
        let mut is_user = vec![false; self.count];
        self.places().for_each(|place| is_user[place] = true);
        for (i, x) in all.iter().enumerate() {
            if !is_user[i / self.length] && x.to_bits() != sentinel(i).to_bits() {
                let table = i / self.length;
                let text = format!("{name}: wrote {x:?} at {i}, in table {table}, which is no user's");
                return Err(Failure::new(text));
            }
        }
        Ok(self.places().flat_map(|place| &all[place * self.length..][..self.length]).copied().collect())
    }
}
