//! The sectors of device memory and the banks of shared memory that an instruction accesses.

use super::registers::{Row, lanes};

/// Size of a sector in bytes.
const SECTOR: u64 = 32;

/// The number of distinct keys among the lanes.
fn distinct(keys: &Row<u64>, mask: u32) -> u64 {
    let (mut least, mut most) = (u64::MAX, 0);
    for lane in lanes(mask) {
        least = least.min(keys[lane]);
        most = most.max(keys[lane]);
    }
    if mask == 0 {
        return 0;
    }
    if most - least < 64 {
        return u64::from(lanes(mask).fold(0u64, |set, l| set | 1 << (keys[l] - least)).count_ones());
    }
    if most - least < 2048 {
        let mut set = [0u64; 32];
        for lane in lanes(mask) {
            let at = keys[lane] - least;
            set[(at >> 6) as usize] |= 1 << (at & 63);
        }
        return set.iter().map(|s| u64::from(s.count_ones())).sum();
    }
    let mut sorted = [0; 32];
    let mut n = 0;
    let mut ascending = true;
    for lane in lanes(mask) {
        sorted[n] = keys[lane];
        ascending &= n == 0 || sorted[n] >= sorted[n - 1];
        n += 1;
    }
    if !ascending {
        sorted[..n].sort_unstable();
    }
    1 + sorted[..n].windows(2).filter(|w| w[0] != w[1]).count() as u64
}

/// The number of sectors requested, and the minimum number that could hold the distinct bytes.
pub(crate) fn sectors(addresses: &Row<u64>, mask: u32, size: u32) -> (u64, u64) {
    let requested = distinct(&addresses.map(|a| a / SECTOR), mask);
    if requested <= 1 {
        return (requested, requested);
    }
    let shift = size.trailing_zeros();
    let bytes = distinct(&addresses.map(|a| a >> shift), mask) * u64::from(size);
    (requested, bytes.div_ceil(SECTOR).min(requested))
}

/// Passes over the 32 banks of four bytes, and how many of them are due to conflicts: lanes that access different words of
/// a bank are served one after another. Accesses of 8 and 16 bytes are split into two and four parts of the warp.
pub(crate) fn passes(offsets: &Row<u64>, mask: u32, size: u32) -> (u64, u64) {
    let (parts, width) = match size {
        16.. => (4, 4),
        8 => (2, 2),
        _ => (1, 1),
    };
    let lanes_each = 32 / parts;
    let (mut total, mut least) = (0, 0);
    for part in 0..parts {
        let part_mask = mask & ((u64::from(u32::MAX) >> (32 - lanes_each)) as u32) << (part * lanes_each);
        if part_mask == 0 {
            continue;
        }
        least += 1;
        total += if width == 1 {
            passes_of_words(offsets, part_mask)
        } else {
            passes_of_vectors(offsets, part_mask, width)
        };
    }
    (total, total - least)
}

fn passes_of_words(offsets: &Row<u64>, mask: u32) -> u64 {
    let first = offsets[mask.trailing_zeros() as usize] >> 2;
    let mut banks = 0u32;
    let mut clash = false;
    let mut uniform = true;
    for lane in lanes(mask) {
        let word = offsets[lane] >> 2;
        let bit = 1 << (word & 31);
        clash |= banks & bit != 0;
        uniform &= word == first;
        banks |= bit;
    }
    if !clash || uniform { 1 } else { passes_of_vectors(offsets, mask, 1) }
}

/// As many passes as the busiest bank has distinct words.
fn passes_of_vectors(offsets: &Row<u64>, mask: u32, width: u64) -> u64 {
    // Mostly no bank has two: found without the lists below, which take longer to clear than to fill.
    let mut first = [0u32; 32];
    let mut banks = 0u32;
    for lane in lanes(mask) {
        for i in 0..width {
            let word = (offsets[lane] >> 2) as u32 + i as u32;
            let bank = (word & 31) as usize;
            if banks & 1 << bank == 0 {
                banks |= 1 << bank;
                first[bank] = word;
            } else if first[bank] != word {
                return passes_with_conflicts(offsets, mask, width);
            }
        }
    }
    1
}

fn passes_with_conflicts(offsets: &Row<u64>, mask: u32, width: u64) -> u64 {
    // The distinct words of each bank. Lists are short, so linear search is fast enough.
    let mut words = [[0u32; 32]; 32];
    let mut counts = [0usize; 32];
    for lane in lanes(mask) {
        for i in 0..width {
            let word = (offsets[lane] >> 2) as u32 + i as u32;
            let bank = (word & 31) as usize;
            let n = counts[bank];
            if !words[bank][..n].contains(&word) {
                words[bank][n] = word;
                counts[bank] += 1;
            }
        }
    }
    counts.iter().copied().max().unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> Row<u64> {
        std::array::from_fn(|i| 4096 + i as u64 * stride)
    }

    #[test]
    fn sectors_of_known_patterns() {
        assert_eq!(sectors(&strided(4), u32::MAX, 4), (4, 4));
        assert_eq!(sectors(&strided(0), u32::MAX, 4), (1, 1));
        assert_eq!(sectors(&strided(8), u32::MAX, 4), (8, 4));
        assert_eq!(sectors(&strided(32), u32::MAX, 4), (32, 4));
        assert_eq!(sectors(&strided(4096), u32::MAX, 4), (32, 4));
        assert_eq!(sectors(&strided(16), u32::MAX, 16), (16, 16));
        assert_eq!(sectors(&strided(4).map(|a| a + 4), u32::MAX, 4), (5, 4));
    }

    #[test]
    fn bank_conflicts_of_known_patterns() {
        assert_eq!(passes(&strided(4), u32::MAX, 4), (1, 0));
        assert_eq!(passes(&strided(0), u32::MAX, 4), (1, 0));
        assert_eq!(passes(&strided(8), u32::MAX, 4), (2, 1));
        assert_eq!(passes(&strided(128), u32::MAX, 4), (32, 31));
        assert_eq!(passes(&strided(132), u32::MAX, 4), (1, 0));
        assert_eq!(passes(&strided(8), u32::MAX, 8), (2, 0));
        assert_eq!(passes(&strided(16), u32::MAX, 16), (4, 0));
        assert_eq!(passes(&strided(2), u32::MAX, 2), (1, 0));
    }
}
