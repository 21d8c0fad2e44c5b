//! The processor: a pool of threads, and its highest rates.

use std::cell::OnceCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use longseq::AnyBackend;
use rayon::prelude::*;

use super::{Clock, Device, clock, time_calls};
use crate::case::{Call, Failure, Rules};
use crate::device::cpu;

/// One thread, and all of them.
pub(super) fn thread_counts() -> Vec<usize> {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => vec![1],
        all => vec![1, all],
    }
}

/// Runs `work` in a pool of so many threads, over which `Cpu` spreads its work.
pub(super) fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool").install(work)
}

/// `Cpu` in the current pool.
pub(super) struct Processor {
    backend: AnyBackend,
    threads: usize,
    arithmetic: OnceCell<f64>,
}

impl Processor {
    pub(super) fn new(threads: usize) -> Self {
        Self { backend: cpu(), threads, arithmetic: OnceCell::new() }
    }

    /// One thread is timed by its own clock, so that a busy machine matters little.
    fn clock(&self) -> Clock {
        if self.threads == 1 { clock::of_thread } else { clock::wall }
    }

    /// The shortest of the runs of a fifth of a second.
    fn fastest(&self, mut run: impl FnMut()) -> f64 {
        let (begin, clock, mut fastest) = (Instant::now(), self.clock(), f64::INFINITY);
        while begin.elapsed().as_secs_f64() < 0.2 {
            // Several per reading, so that the cost of the clock does not count.
            let start = clock();
            (0..4).for_each(|_| run());
            fastest = fastest.min((clock() - start).as_secs_f64() / 4.0);
        }
        fastest
    }
}

impl Device for Processor {
    fn name(&self) -> String {
        format!("cpu-{}", self.threads)
    }

    fn backend(&self) -> &AnyBackend {
        &self.backend
    }

    fn rules(&self) -> Rules {
        Rules::IEEE
    }

    fn time(&self, runs: u64, call: &mut Call<'_>) -> Result<Duration, Failure> {
        time_calls(self, self.clock(), runs, call)
    }

    fn bandwidth(&self, footprint: u64) -> Result<f64, Failure> {
        const LARGEST: u64 = 512 << 20;
        let half = (footprint.clamp(4096, LARGEST) / 2) as usize;
        let from = vec![1u8; half];
        let mut to = vec![0u8; half];
        let part = half.div_ceil(self.threads);
        let seconds = self.fastest(|| {
            to.par_chunks_mut(part)
                .zip(from.par_chunks(part))
                .for_each(|(to, from)| to.copy_from_slice(black_box(from)));
            black_box(&mut to);
        });
        Ok(2.0 * half as f64 / seconds)
    }

    fn arithmetic(&self) -> Result<f64, Failure> {
        Ok(*self.arithmetic.get_or_init(|| {
            const ROUNDS: usize = 20_000;
            let seconds = self.fastest(|| {
                rayon::broadcast(|_| black_box(multiply_add(ROUNDS)));
            });
            let operations = 2 * ROUNDS * CHAINS * LANES * self.threads;
            operations as f64 / seconds
        }))
    }
}

/// Independent sums, enough to hide the latency of an instruction, and numbers in each.
const CHAINS: usize = 12;
const LANES: usize = 16;

/// `rounds` fused multiply-adds for each lane of each chain, with the widest vectors there are.
fn multiply_add(rounds: usize) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn widest(rounds: usize) -> f32 {
            portable(rounds)
        }
        #[target_feature(enable = "avx2,fma")]
        fn wide(rounds: usize) -> f32 {
            portable(rounds)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { widest(rounds) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            return unsafe { wide(rounds) };
        }
    }
    portable(rounds)
}

#[inline(always)]
fn portable(rounds: usize) -> f32 {
    let (factor, term) = (black_box(0.5f32), black_box(1.0f32));
    let mut sums = [[0.0f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for sum in sums.as_flattened_mut() {
            *sum = sum.mul_add(factor, term);
        }
    }
    sums.as_flattened().iter().sum()
}
