//! A column of ids in order: a radix sort of (id, position), as one number each. These numbers all differ, so there is one order,
//! whatever the way to it.

use crate::cpu::threads::{self, for_each, map};
use crate::error::{Error, Result};
use crate::host::{Host, filled, reserve};
use crate::ops::*;

/// Ids in order, without what lies beyond their counts.
#[derive(Clone, Copy)]
pub(super) struct Sorted<'a> {
    /// The different ids, ascending.
    pub(super) ids: &'a [u32],
    /// `[ids.len() + 1]`: the positions of id `i` are `positions[starts[i]..starts[i + 1]]`.
    pub(super) starts: &'a [u32],
    pub(super) positions: &'a [u32],
}

/// Keys that a thread sorts, at least, and those of a part of a merge.
const PART: usize = 1 << 15;

/// The most bits of a digit: counts of 2048 digits stay in the first-level cache.
const DIGIT: u32 = 11;

/// Sorts a column into given outputs, which are checked.
pub(super) fn sort_into(
    operation: &'static str,
    column: &IdColumn<'_, Host>,
    out: SortedIdsMut<'_, Host>,
) -> Result<()> {
    let keys = sorted_keys(operation, column)?;
    let (ids, starts) = (out.ids.into_slice(), out.starts.into_slice());
    let positions = &mut out.positions.into_slice()[..keys.len()];
    let lengths = |chunk: usize| chunk * PART..keys.len().min((chunk + 1) * PART);
    let chunks: Vec<_> = (0..keys.len().div_ceil(PART)).map(lengths).collect();
    // An id is new where its key's predecessor has another one.
    let counts = map(chunks.clone(), |chunk| {
        let pairs = keys[chunk.start.saturating_sub(1)..chunk.end].windows(2);
        usize::from(chunk.start == 0) + pairs.filter(|pair| pair[0] >> 32 != pair[1] >> 32).count()
    });
    let total: usize = counts.iter().sum();
    let (mut ids_left, mut starts_left, mut positions_left) = (ids, &mut starts[..=total], positions);
    starts_left[total] = keys.len() as u32;
    let mut items = Vec::with_capacity(chunks.len());
    for (chunk, count) in chunks.into_iter().zip(counts) {
        let (ids, rest) = std::mem::take(&mut ids_left).split_at_mut(count);
        ids_left = rest;
        let (starts, rest) = std::mem::take(&mut starts_left).split_at_mut(count);
        starts_left = rest;
        let (positions, rest) = std::mem::take(&mut positions_left).split_at_mut(chunk.len());
        positions_left = rest;
        items.push((chunk, ids, starts, positions));
    }
    for_each(items, |(chunk, ids, starts, positions)| {
        let first = chunk.start;
        let own = &keys[chunk];
        positions.iter_mut().zip(own).for_each(|(position, key)| *position = *key as u32);
        let mut places = ids.iter_mut().zip(starts);
        let mut before = first.checked_sub(1).map(|last| (keys[last] >> 32) as u32);
        for (i, key) in own.iter().enumerate() {
            let id = (key >> 32) as u32;
            if before != Some(id)
                && let Some((place, start)) = places.next()
            {
                (*place, *start, before) = (id, (first + i) as u32, Some(id));
            }
        }
    });
    out.count.into_slice()[0] = total as u32;
    Ok(())
}

/// Sorts a column.
pub(super) fn sort(operation: &'static str, column: &IdColumn<'_, Host>) -> Result<SortedVectors> {
    let (positions, capacity) = (column.check()?, column.capacity()?);
    let mut sorted = SortedVectors {
        ids: filled(operation, capacity, 0)?,
        starts: filled(operation, capacity + 1, 0)?,
        positions: filled(operation, positions, 0)?,
        count: 0,
    };
    let mut count = [0];
    let SortedVectors { ids, starts, positions, .. } = &mut sorted;
    let out = SortedIdsMut::new(
        Host::view_mut(ids),
        Host::view_mut(starts),
        Host::view_mut(positions),
        Host::view_mut(&mut count),
    );
    sort_into(operation, column, out)?;
    sorted.count = count[0] as usize;
    Ok(sorted)
}

/// Ids in order, in memory of their own.
pub(super) struct SortedVectors {
    ids: Vec<u32>,
    starts: Vec<u32>,
    positions: Vec<u32>,
    count: usize,
}

impl SortedVectors {
    /// Leaves out positions from `end` on, and ids that then have none.
    pub(super) fn keep_below(&mut self, end: usize) {
        let (mut runs, mut kept, mut start) = (0, 0, 0);
        for run in 0..self.count {
            let (first, next) = (kept, self.starts[run + 1] as usize);
            for place in start..next {
                let position = self.positions[place];
                if (position as usize) < end {
                    self.positions[kept] = position;
                    kept += 1;
                }
            }
            if kept > first {
                (self.ids[runs], self.starts[runs]) = (self.ids[run], first as u32);
                runs += 1;
            }
            start = next;
        }
        (self.count, self.starts[runs]) = (runs, kept as u32);
    }

    pub(super) fn sorted(&self) -> Sorted<'_> {
        let starts = &self.starts[..=self.count];
        let positions = &self.positions[..starts[self.count] as usize];
        Sorted { ids: &self.ids[..self.count], starts, positions }
    }
}

/// Checks ids in order that came from the caller: their runs, ids below `rows` and positions below `positions`.
pub(super) fn checked<'a>(
    operation: &'static str,
    sorted: &SortedIds<'a, Host>,
    rows: usize,
    positions: usize,
) -> Result<Sorted<'a>> {
    let outside = |argument, position: usize, id: usize, bound: usize| {
        let (position, id, bound) = (position as u64, id as u64, bound as u64);
        Err(Error::IndexOutOfRange { operation, argument, position, id, bound })
    };
    let disorder = |argument| {
        let (expected, got) = ("an ascending list".into(), "another order".into());
        Err(Error::Parameter { operation, argument, expected, got })
    };
    let count = sorted.count[0] as usize;
    // A gradient's capacity is at most the number of positions.
    let most = sorted.ids.len().min(positions);
    if count > most {
        return outside("sorted.count", 0, count, most + 1);
    }
    let (ids, starts) = (&sorted.ids.as_slice()[..count], &sorted.starts.as_slice()[..=count]);
    if !ids.is_sorted_by(|a, b| a < b) {
        return disorder("sorted.ids");
    }
    if let Some(&id) = ids.last().filter(|&&id| id as usize >= rows) {
        return outside("sorted.ids", count - 1, id as usize, rows);
    }
    if starts[0] != 0 || !starts.is_sorted_by(|a, b| a < b) {
        return disorder("sorted.starts");
    }
    let end = starts[count] as usize;
    if end > sorted.positions.len() {
        return outside("sorted.starts", count, end, sorted.positions.len() + 1);
    }
    let kept = &sorted.positions.as_slice()[..end];
    // Finding the largest is many times faster than finding the first one outside.
    if kept.iter().max().is_some_and(|&largest| largest as usize >= positions) {
        let place = kept.iter().position(|&position| position as usize >= positions).unwrap_or(0);
        return outside("sorted.positions", place, kept[place] as usize, positions);
    }
    Ok(Sorted { ids, starts, positions: kept })
}

/// The keys of a column, `id·2³² + position`, in order. Ids outside the table are an error or left out.
fn sorted_keys(operation: &'static str, column: &IdColumn<'_, Host>) -> Result<Vec<u64>> {
    let mut keys = reserve(operation, column.check()?)?;
    let more = column.more_ids.as_ref().map_or(&[][..], |ids| ids.as_slice());
    let (mut first, mut bits) = (0, 0u32);
    for (argument, ids) in [("ids", column.ids.as_slice()), ("more_ids", more)] {
        let (feature, features) = (column.feature, column.features);
        let outside = if features == 1 {
            add_keys(&mut keys, &mut bits, ids.iter(), first, column.rows)
        } else {
            add_keys(&mut keys, &mut bits, ids.iter().skip(feature).step_by(features), first, column.rows)
        };
        if let Some((row, id)) = outside.filter(|_| column.policy == IdPolicy::Error) {
            let position = (row * features + feature) as u64;
            let (id, bound) = (u64::from(id), column.rows as u64);
            return Err(Error::IndexOutOfRange { operation, argument, position, id, bound });
        }
        first += ids.len() / features;
    }
    let mut scratch = filled(operation, keys.len(), 0u64)?;
    sort_keys(&mut keys, &mut scratch, u32::BITS - bits.leading_zeros(), threads::count());
    Ok(keys)
}

/// Appends the keys of ids below `rows`, whose positions begin at `first`, and collects their bits. Returns the first id outside, and
/// its place.
fn add_keys<'a>(
    keys: &mut Vec<u64>,
    bits: &mut u32,
    ids: impl Iterator<Item = &'a u32> + Clone,
    first: usize,
    rows: usize,
) -> Option<(usize, u32)> {
    let key = |(i, &id): (usize, &u32)| u64::from(id) << 32 | (first + i) as u64;
    // Finding the largest is many times faster than looking for ids outside.
    let largest = ids.clone().max().copied()?;
    if (largest as usize) < rows {
        *bits |= largest;
        keys.extend(ids.enumerate().map(key));
        return None;
    }
    *bits |= rows.min(u32::MAX as usize) as u32;
    keys.extend(ids.clone().enumerate().filter(|(_, id)| (**id as usize) < rows).map(key));
    ids.enumerate().find(|(_, id)| **id as usize >= rows).map(|(i, &id)| (i, id))
}

/// Sorts keys whose ids have so many bits: a part for each thread, and the parts merged by pairs.
fn sort_keys(keys: &mut Vec<u64>, scratch: &mut Vec<u64>, bits: u32, threads: usize) {
    let parts = threads.next_power_of_two().min(keys.len() / PART).max(1);
    let mut length = keys.len().div_ceil(parts).max(1);
    let items = keys.chunks_mut(length).zip(scratch.chunks_mut(length)).collect();
    for_each(items, |(keys, scratch)| radix_sort(keys, scratch, bits));
    while length < keys.len() {
        let pairs = keys.chunks(2 * length).zip(scratch.chunks_mut(2 * length));
        let items = pairs.flat_map(|(pair, out)| {
            let (a, b) = pair.split_at(length.min(pair.len()));
            merge_parts(a, b, out)
        });
        for_each(items.collect(), |(a, b, out)| merge(a, b, out));
        std::mem::swap(keys, scratch);
        length *= 2;
    }
}

/// Sorts by the lowest digit first; keys are in the order of their positions before. Passes that would move nothing are left out.
fn radix_sort(keys: &mut [u64], scratch: &mut [u64], bits: u32) {
    let passes = bits.div_ceil(DIGIT);
    let digit = bits.div_ceil(passes.max(1));
    let mask = (1usize << digit) - 1;
    let mut all_counts = [[0u32; 1 << DIGIT]; u32::BITS.div_ceil(DIGIT) as usize];
    let all_counts = &mut all_counts[..passes as usize];
    for key in keys.iter() {
        for (pass, counts) in all_counts.iter_mut().enumerate() {
            counts[(key >> (32 + pass as u32 * digit)) as usize & mask & ((1 << DIGIT) - 1)] += 1;
        }
    }
    let (mut from, mut to) = (keys, scratch);
    let mut moved = false;
    for (pass, counts) in all_counts.iter_mut().enumerate() {
        let shift = 32 + pass as u32 * digit;
        let counts = &mut counts[..=mask];
        if counts.iter().any(|&count| count as usize == from.len()) {
            continue;
        }
        let mut sum = 0;
        for count in counts.iter_mut() {
            sum += std::mem::replace(count, sum);
        }
        for &key in from.iter() {
            let place = &mut counts[(key >> shift) as usize & mask];
            to[*place as usize] = key;
            *place += 1;
        }
        std::mem::swap(&mut from, &mut to);
        moved = !moved;
    }
    if moved {
        to.copy_from_slice(from);
    }
}

/// Cuts the merge of two sorted lists into merges of about [`PART`] keys each.
fn merge_parts<'a>(
    mut a: &'a [u64],
    mut b: &'a [u64],
    mut out: &'a mut [u64],
) -> Vec<(&'a [u64], &'a [u64], &'a mut [u64])> {
    let mut parts = Vec::new();
    while !out.is_empty() {
        let count = out.len().min(PART);
        // How many of the first `count` keys come from `a`: as many as have fewer than `count` keys of both before them.
        let (mut low, mut high) = (count.saturating_sub(b.len()), count.min(a.len()));
        while low < high {
            let middle = (low + high) / 2;
            if a[middle] < b[count - middle - 1] { low = middle + 1 } else { high = middle }
        }
        let (own, rest) = out.split_at_mut(count);
        let (a_own, a_rest) = a.split_at(low);
        let (b_own, b_rest) = b.split_at(count - low);
        parts.push((a_own, b_own, own));
        (a, b, out) = (a_rest, b_rest, rest);
    }
    parts
}

/// Merges two sorted lists.
fn merge<'a>(mut a: &'a [u64], mut b: &'a [u64], out: &mut [u64]) {
    for out in out {
        let from = match (a.first(), b.first()) {
            (Some(x), Some(y)) if x < y => &mut a,
            (Some(_), None) => &mut a,
            _ => &mut b,
        };
        (*out, *from) = (from[0], &from[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_whatever_the_parts() {
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for (count, limit) in
            [(0, 1), (1, 1), (7, 3), (3000, 5000), (200_000, 1 << 20), (150_000, 9), (70_000, 1 << 31)]
        {
            // A third of them are one id.
            let id = |x: u64| if x.is_multiple_of(3) { limit - 1 } else { x / 3 % limit };
            let keys: Vec<u64> = (0..count).map(|position| id(random()) << 32 | position).collect();
            let mut expected = keys.clone();
            expected.sort();
            for threads in [1, 2, 3, 8] {
                let (mut keys, mut scratch) = (keys.clone(), vec![0; keys.len()]);
                let bits = u64::BITS - (limit - 1).leading_zeros();
                sort_keys(&mut keys, &mut scratch, bits, threads);
                assert!(keys == expected, "{count} keys of {limit} ids, {threads} threads");
            }
        }
    }
}
