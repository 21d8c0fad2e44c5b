//! A small random number generator for schedules and approximations: the same seed gives the same run.

/// SplitMix64 (S. Vigna).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A nearly uniform number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            list.swap(i, j);
        }
    }
}

/// SplitMix64's output function.
#[inline(always)]
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A permutation of the numbers below `n` that needs no table: multiples of a number coprime to `n`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    n: u64,
    step: u64,
    start: u64,
}

impl Permutation {
    pub(crate) fn new(n: u64, seed: Option<u64>) -> Self {
        let Some(seed) = seed else { return Self { n, step: 1, start: 0 } };
        let mut random = Random::new(seed);
        let start = random.below(n);
        let mut step = random.below(n).max(1);
        while gcd(step, n) != 1 {
            step += 1;
        }
        Self { n, step, start }
    }

    pub(crate) fn at(self, i: u64) -> u64 {
        ((u128::from(i) * u128::from(self.step) + u128::from(self.start)) % u128::from(self.n)) as u64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_contain_every_number_once() {
        for n in [1, 2, 7, 64, 1000] {
            for seed in 0..5 {
                let p = Permutation::new(n, Some(seed));
                let mut seen: Vec<u64> = (0..n).map(|i| p.at(i)).collect();
                seen.sort_unstable();
                assert!(seen.iter().copied().eq(0..n));
            }
        }
    }
}
