//! Inputs from a seed.

use std::cell::Cell;

use longseq::half::{bf16, f16};
use longseq::{Batch, DType, Element, Jagged};
use proptest::test_runner::Config as ProptestConfig;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal, Zipf};

use crate::sample;

/// What the numbers look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Data {
    /// Standard normal.
    Normal,
    /// Standard normal times a thousand.
    Large,
    /// Around the smallest normal `f32`.
    Tiny,
    /// The same row over and over: every score ties.
    Equal,
    /// Positive and negative zeros.
    Zeros,
    /// Standard normal times a factor.
    Scaled(f32),
    /// Numbers of either sign whose magnitude is between half of this and this.
    Flat(f32),
    /// The upper half of the storage type's range, of either sign.
    Huge,
    /// The same number everywhere.
    Same(f32),
}

/// A generator of random numbers.
pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// `count` rows of `width`.
pub fn rows<T: Element>(rng: &mut StdRng, data: Data, count: usize, width: usize) -> Vec<T> {
    let mut normal = || -> f32 { StandardNormal.sample(rng) };
    let numbers: Vec<f32> = match data {
        Data::Normal => (0..count * width).map(|_| normal()).collect(),
        Data::Large => (0..count * width).map(|_| 1e3 * normal()).collect(),
        Data::Tiny => (0..count * width).map(|_| f32::MIN_POSITIVE * normal()).collect(),
        Data::Equal => {
            let row: Vec<f32> = (0..width).map(|_| normal()).collect();
            row.iter().copied().cycle().take(count * width).collect()
        }
        Data::Zeros => (0..count * width).map(|_| 0.0f32.copysign(normal())).collect(),
        Data::Scaled(factor) => (0..count * width).map(|_| factor * normal()).collect(),
        Data::Same(number) => vec![number; count * width],
        Data::Flat(largest) => flat(rng, largest, count * width),
        Data::Huge => flat(rng, largest_of(T::DTYPE), count * width),
    };
    numbers.into_iter().map(T::from_f32).collect()
}

/// Numbers of either sign whose magnitude is in the upper half of a range.
fn flat(rng: &mut StdRng, largest: f32, count: usize) -> Vec<f32> {
    let mut number = || rng.random_range(0.5..=1.0f32) * if rng.random() { largest } else { -largest };
    (0..count).map(|_| number()).collect()
}

/// The largest finite number of a storage type.
pub fn largest_of(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::MAX.to_f32(),
        DType::Bf16 => bf16::MAX.to_f32(),
        _ => f32::MAX,
    }
}

/// How often each id occurs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ids {
    /// Some of them very often, as items in practice.
    Skewed,
    /// All equally often: no cache helps.
    Uniform,
    /// The last one only.
    Last,
    /// A third of them the last one, the others by a Zipf distribution of 1.2.
    Hot,
}

/// Ids below `limit`, the last one among them.
pub fn ids(rng: &mut StdRng, ids: Ids, count: usize, limit: usize) -> Vec<u32> {
    let zipf = Zipf::new(limit as f64, 1.05).expect("a valid distribution");
    let steep = Zipf::new(limit as f64, 1.2).expect("a valid distribution");
    let id = |_| match ids {
        Ids::Skewed => zipf.sample(rng) as u32 - 1,
        Ids::Uniform => rng.random_range(0..limit as u32),
        Ids::Last => limit as u32 - 1,
        Ids::Hot if rng.random_ratio(1, 3) => limit as u32 - 1,
        Ids::Hot => steep.sample(rng) as u32 - 1,
    };
    let mut ids: Vec<u32> = (0..count).map(id).collect();
    if let Some(last) = ids.last_mut() {
        *last = limit as u32 - 1;
    }
    ids
}

/// Signatures of `bits` bits.
pub fn signatures(rng: &mut StdRng, count: usize, bits: usize) -> Vec<u16> {
    (0..count).map(|_| rng.random_range(0..1u32 << bits) as u16).collect()
}

/// Where the histories of a batch are, if they are not one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// In the order of users, with rows that belong to nobody before and between them.
    Gaps,
    /// The last user's first, with such rows.
    Reversed,
    /// Each begins in the middle of the one before, as where requests share a history.
    Shared,
}

impl Ranges {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gaps, Self::Reversed, Self::Shared];

    /// Ranges of these lengths, followed by `tail` rows that belong to nobody.
    fn place(self, lengths: &[usize], tail: usize) -> Jagged {
        let (mut starts, mut end) = (vec![0; lengths.len()], 0usize);
        let mut place = |user: usize, start: usize| {
            if lengths[user] > 0 {
                starts[user] = start;
                end = end.max(start + lengths[user]);
            }
            end
        };
        match self {
            Self::Gaps => (0..lengths.len()).fold(0, |end, user| place(user, end + 1 + user * 7 % 5)),
            Self::Reversed => (0..lengths.len()).rev().fold(0, |end, user| place(user, end + user * 7 % 5)),
            Self::Shared => (0..lengths.len()).fold(2, |start, user| {
                place(user, start);
                start + lengths[user] / 2
            }),
        };
        Jagged::from_starts(&starts, lengths, end + tail).expect("ranges within the rows")
    }
}

thread_local! {
    static RANGES: Cell<Option<Ranges>> = const { Cell::new(None) };
}

/// The histories, and bags, of the cases that `run` makes on this thread are such ranges.
pub fn with_ranges<R>(ranges: Ranges, run: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also where a test fails.
    struct Before(Option<Ranges>);
    impl Drop for Before {
        fn drop(&mut self) {
            RANGES.set(self.0);
        }
    }
    let _before = Before(RANGES.replace(Some(ranges)));
    run()
}

/// A batch, with `tail` rows at the end of both sides that belong to nobody.
pub fn batch(histories: &[usize], targets: &[usize], tail: usize) -> Batch {
    Batch::new(jagged(histories, tail), in_order(targets, tail)).expect("both sides count the same users")
}

/// The rows of each user, one after the other unless they are [other ranges](with_ranges), and `tail` rows that belong to nobody.
pub fn jagged(lengths: &[usize], tail: usize) -> Jagged {
    RANGES.get().map_or_else(|| in_order(lengths, tail), |ranges| ranges.place(lengths, tail))
}

/// The rows of one user after the other.
fn in_order(lengths: &[usize], tail: usize) -> Jagged {
    let starts = lengths.iter().scan(0usize, |end, length| Some(std::mem::replace(end, *end + length)));
    let total: usize = lengths.iter().sum();
    Jagged::from_starts(&starts.collect::<Vec<_>>(), lengths, total + tail).expect("small lengths")
}

/// The largest L2 length among rows of `width` whose numbers are all finite.
pub fn max_norm<T: Element>(rows: &[T], width: usize) -> f64 {
    let norm = |row: &[T]| row.iter().map(|x| f64::from(x.to_f32()).powi(2)).sum::<f64>().sqrt();
    rows.chunks(width).map(norm).filter(|norm| norm.is_finite()).fold(0.0, f64::max)
}

/// The largest magnitude of a finite number.
pub fn max_abs<T: Element>(numbers: &[T]) -> f64 {
    let magnitudes = numbers.iter().map(|x| f64::from(x.to_f32()).abs());
    magnitudes.filter(|magnitude| magnitude.is_finite()).fold(0.0, f64::max)
}

/// A storage type's name on command lines.
pub fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::Bf16 => "bf16",
        _ => "f32",
    }
}

/// Configures proptest with this many cases if tests are thorough, otherwise with a sixth of them or more, and new ones each time;
/// or with `PROPTEST_CASES` where that is fewer: emulated processors and other modes of a device get fewer.
pub fn random_cases(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = cases.div_ceil(sample::one_of().min(6) as u32);
    ProptestConfig { cases: cases.min(default.cases), ..default }
}
