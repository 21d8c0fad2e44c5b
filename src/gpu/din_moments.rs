//! In which order the statistics of the parts of a batch are merged.
//!
//! Each merge may cost a mean a rounding error, so there is no chain of more than [`CHAIN`] merges: as many parts leave one entry, as many
//! entries of a level one of the next, and the last merge takes what a level has left.

use crate::gpu::CHAIN;

/// Where statistics are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// What the call writes.
    Total,
    /// An entry of a level, of which each has [`CHAIN`].
    Kept { level: usize, entry: usize },
}

/// What is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moments {
    /// The next part, with what is there unless it is the first of its chain.
    Part { is_first: bool, to: Place },
    /// The first `rows` entries of a level.
    Level { level: usize, rows: usize, to: Place },
}

/// The levels that so many parts need; none if they are one chain.
pub(crate) fn levels(parts: usize) -> usize {
    std::iter::successors(Some(parts.div_ceil(CHAIN)), |&entries| Some(entries.div_ceil(CHAIN)))
        .take_while(|&entries| entries > 1)
        .count()
}

/// The merges of so many parts, in their order.
pub(crate) fn merges(parts: usize) -> Vec<Moments> {
    let mut kept = vec![0; levels(parts)];
    let mut all = Vec::new();
    for part in 0..parts {
        let to = kept.first().map_or(Place::Total, |&entry| Place::Kept { level: 0, entry });
        all.push(Moments::Part { is_first: part.is_multiple_of(CHAIN), to });
        let is_last = part + 1 == parts;
        if kept.is_empty() || !(is_last || (part + 1).is_multiple_of(CHAIN)) {
            continue;
        }
        kept[0] += 1;
        for level in 0..kept.len() {
            let rows = kept[level];
            if rows == 0 || rows < CHAIN && !is_last {
                break;
            }
            let next = kept.get(level + 1).map(|&entry| Place::Kept { level: level + 1, entry });
            let Some(to) = next.or(is_last.then_some(Place::Total)) else { break };
            all.push(Moments::Level { level, rows, to });
            kept[level] = 0;
            if let Some(next) = kept.get_mut(level + 1) {
                *next += 1;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The parts of an entry, and its longest chain of merges.
    type Entry = (Vec<usize>, usize);

    fn run(parts: usize) -> Entry {
        let (mut kept, mut total) = (HashMap::<(usize, usize), Entry>::new(), (vec![], 0));
        let mut next = 0;
        for merge in merges(parts) {
            let (more, to) = match merge {
                Moments::Part { is_first, to } => {
                    let before = match to {
                        _ if is_first => (vec![], 0),
                        Place::Total => total.clone(),
                        Place::Kept { level, entry } => kept[&(level, entry)].clone(),
                    };
                    next += 1;
                    (([before.0, vec![next - 1]].concat(), before.1 + 1), to)
                }
                Moments::Level { level, rows, to } => {
                    assert!((1..=CHAIN).contains(&rows));
                    let merged: Vec<Entry> =
                        (0..rows).map(|entry| kept.remove(&(level, entry)).expect("an entry")).collect();
                    let depth = (0..rows).map(|i| merged[i].1 + rows - i.max(1)).max().expect("an entry");
                    ((merged.into_iter().flat_map(|(parts, _)| parts).collect(), depth), to)
                }
            };
            match to {
                Place::Total => total = more,
                Place::Kept { level, entry } => {
                    assert!(level < levels(parts) && entry < CHAIN);
                    kept.insert((level, entry), more);
                }
            }
        }
        assert!(kept.is_empty());
        total
    }

    #[test]
    fn chains_of_merges_are_short() {
        for parts in [0, 1, 2, 63, 64, 65, 128, 700, 4095, 4096, 4097, 4160, 20_000, 262_144, 262_145] {
            let (all, depth) = run(parts);
            assert!(all.into_iter().eq(0..parts), "{parts}");
            assert!(depth <= CHAIN * (levels(parts) + 1), "{parts}: {depth}");
        }
        assert_eq!([64, 65, 4096, 4097, 262_144].map(levels), [0, 1, 1, 2, 2]);
    }
}
