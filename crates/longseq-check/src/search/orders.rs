//! Histories in orders that are hard on lists of the best: every score is exact, and the selection is that of a plain sort.

use longseq::prelude::*;
use longseq::*;

use crate::case::Rules;
use crate::sample;

/// The rank of each behaviour of a history, from the worst, 0.
pub(crate) type Order = fn(usize, usize) -> usize;

/// Each behaviour replaces the worst that is kept, none does, or all do in runs.
pub(crate) const ORDERS: [(&str, Order); 6] = [
    ("rising", |i, _| i),
    ("falling", |i, length| length - 1 - i),
    ("organ pipe", |i, length| if i < length / 2 { 2 * i } else { 2 * (length - 1 - i) + 1 }),
    ("valley", |i, length| if i < length / 2 { length - 1 - 2 * i } else { 2 * i - length / 2 * 2 }),
    ("blocks", |i, length| (length.div_ceil(50) - i / 50) * 50 + i % 50),
    ("equal", |_, _| 7),
];

/// Lengths of histories, and how many are kept: fewer than lists hold, as many, and the most.
pub(crate) const SIZES: [(usize, usize); 5] =
    [(70, 10), (769, 577), (1100, 1024), (5000, Search::MAX_TOP_K), (10_000, 1024)];

/// How behaviours are stored so that a higher rank has a higher score.
#[derive(Debug, Clone, Copy, Hash)]
enum Stored {
    /// Dot products of one number.
    F32,
    /// Dot products of two codes with 100 and 1.
    Codes,
    /// Angles to the candidate.
    Cosine,
    /// As many bits that differ.
    Signs,
}

/// The positions that a search keeps of one history.
fn search<B: Backend>(backend: &B, stored: Stored, ranks: &[usize], top_k: usize) -> Result<Vec<u32>> {
    let batch = backend.batch(&Jagged::from_lengths(&[ranks.len()])?, &Jagged::from_lengths(&[1])?)?;
    let positions = |op: Search, queries, keys| {
        let kept = backend.search(&op.with_top_k(top_k), &batch, SimilarityInputs::new(queries, keys))?;
        let count = backend.download(backend.view(&kept.counts))?[0] as usize;
        let mut positions = backend.download(backend.view(&kept.positions))?;
        positions.truncate(count);
        Ok(positions)
    };
    match stored {
        Stored::F32 => {
            let keys: Vec<f32> = ranks.iter().map(|&rank| rank as f32 - 500.0).collect();
            let (queries, keys) = (backend.upload(&[1.0f32])?, backend.upload(&keys)?);
            let rows = |rows| SearchRows::F32(backend.view(rows));
            positions(Search::dot(1), rows(&queries), rows(&keys))
        }
        Stored::Codes => {
            let codes = |&rank: &usize| [(rank / 100) as i8 - 60, (rank % 100) as i8];
            let keys: Vec<i8> = ranks.iter().flat_map(codes).collect();
            let (queries, keys) = (backend.upload(&[100i8, 1])?, backend.upload(&keys)?);
            let rows = |rows| SearchRows::Codes(backend.view(rows));
            positions(Search::dot(2), rows(&queries), rows(&keys))
        }
        Stored::Cosine => {
            let most = ranks.iter().max().map_or(1, |&most| most + 1);
            let angle = |&rank: &usize| 0.1 + 2.9 * (most - rank) as f64 / most as f64;
            let keys: Vec<f32> =
                ranks.iter().map(angle).flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect();
            let (queries, keys) = (backend.upload(&[1.0f32, 0.0])?, backend.upload(&keys)?);
            let rows = |rows| SearchRows::F32(backend.view(rows));
            positions(Search::cosine(2), rows(&queries), rows(&keys))
        }
        Stored::Signs => {
            let bits = ranks.iter().max().map_or(1, |&most| most + 1);
            let words = bits.div_ceil(32);
            let bit = |rank: usize, word: usize| {
                (0..32).filter(|i| 32 * word + i > rank).fold(0u32, |all, i| all | 1 << i)
            };
            let keys: Vec<u32> =
                ranks.iter().flat_map(|&rank| (0..words).map(move |word| bit(rank, word))).collect();
            let (queries, keys) = (backend.upload(&vec![0u32; words])?, backend.upload(&keys)?);
            let rows = |rows| SearchRows::Signs(backend.view(rows));
            positions(Search::hamming(bits), rows(&queries), rows(&keys))
        }
    }
}

pub(super) fn finds_the_best_in_any_order<B: Backend>(backend: &B, rules: Rules) {
    for (length, top_k) in SIZES {
        for stored in [Stored::F32, Stored::Codes, Stored::Cosine, Stored::Signs] {
            // Angles must differ, and bits take as many words as ranks.
            if length > 1100 && matches!(stored, Stored::Cosine | Stored::Signs) {
                continue;
            }
            for (name, order) in ORDERS {
                // On a slow device a sample; of each storage one order at least.
                if rules.slow && name != "falling" && !sample::has(&(stored, length, name)) {
                    continue;
                }
                let ranks: Vec<usize> = (0..length).map(|i| order(i, length)).collect();
                let mut expected: Vec<u32> = (0..length as u32).collect();
                expected.sort_by_key(|&i| std::cmp::Reverse(ranks[i as usize]));
                expected.truncate(top_k);
                let got = search(backend, stored, &ranks, top_k).expect("a valid call");
                assert!(got == expected, "{stored:?}, {name}, {length} behaviours, K = {top_k}");
            }
        }
    }
}

/// The keys of behaviours, by rank, of which the candidate's is 1: half of all ranks match, next to each other; every third; and in a few
/// runs.
const KEYS: [(&str, Order); 3] = [
    ("the better half", |rank, length| usize::from(rank >= length / 2)),
    ("every third", |rank, _| rank % 3),
    ("runs", |rank, length| rank * 7 / length % 2),
];

/// Searches by keys, which keep the newest, where matches come first, last, in runs, or everywhere.
pub(super) fn finds_the_newest_in_any_order<B: Backend>(backend: &B, rules: Rules) {
    for (length, top_k) in SIZES {
        for (name, order) in ORDERS {
            for (which, key) in KEYS {
                if rules.slow && name != "falling" && !sample::has(&(which, length, name)) {
                    continue;
                }
                let keys: Vec<u32> = (0..length).map(|i| key(order(i, length), length) as u32).collect();
                let mut expected: Vec<u32> =
                    (0..length as u32).rev().filter(|&i| keys[i as usize] == 1).collect();
                expected.truncate(top_k);
                let got = newest(backend, &keys, top_k).expect("a valid call");
                assert!(got == expected, "{name}, {which}, {length} behaviours, K = {top_k}");
            }
        }
    }
}

/// The positions that a search by keys keeps of one history.
fn newest<B: Backend>(backend: &B, keys: &[u32], top_k: usize) -> Result<Vec<u32>> {
    let batch = backend.batch(&Jagged::from_lengths(&[keys.len()])?, &Jagged::from_lengths(&[1])?)?;
    let (queries, keys) = (backend.upload(&[1u32])?, backend.upload(keys)?);
    let rows = |rows| SearchRows::Keys(backend.view(rows));
    let inputs = SimilarityInputs::new(rows(&queries), rows(&keys));
    let kept = backend.search(&Search::matching().with_top_k(top_k), &batch, inputs)?;
    let count = backend.download(backend.view(&kept.counts))?[0] as usize;
    let mut positions = backend.download(backend.view(&kept.positions))?;
    positions.truncate(count);
    Ok(positions)
}
