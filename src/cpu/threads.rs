//! Spreading work over threads. All of them compute in the default floating-point mode.

#[cfg(feature = "rayon")]
use rayon::prelude::*;

#[cfg(feature = "rayon")]
use crate::cpu::vector::with_default_floats;

/// Splits the rows of an output into spans of `lengths` rows. Rows after the last span belong to no user and are left out.
pub(super) fn split_rows<T>(
    lengths: impl Iterator<Item = usize>,
    mut rows: &mut [T],
    width: usize,
) -> Vec<&mut [T]> {
    let cut = |length: usize| {
        let (head, tail) = std::mem::take(&mut rows).split_at_mut(length * width);
        rows = tail;
        head
    };
    lengths.map(cut).collect()
}

/// Runs `work` on every item, in any order.
pub(super) fn for_each<I: Send>(items: Vec<I>, work: impl Fn(I) + Send + Sync) {
    map(items, work);
}

/// The results of `work` on every item, in the order of the items.
pub(super) fn map<I: Send, R: Send>(items: Vec<I>, work: impl Fn(I) -> R + Send + Sync) -> Vec<R> {
    let mut results = Vec::with_capacity(items.len());
    // A single item is not worth waking another thread for.
    #[cfg(feature = "rayon")]
    if items.len() > 1 && rayon::current_num_threads() > 1 {
        let job = |item| Job { item: Some(item), result: None, work: &work };
        let mut jobs: Vec<Job<'_, I, R, _>> = items.into_iter().map(job).collect();
        spread(jobs.iter_mut().map(|job| job as &mut dyn Run).collect());
        jobs.into_iter().for_each(|job| results.extend(job.result));
        return results;
    }
    items.into_iter().for_each(|item| results.push(call(&work, item)));
    results
}

/// Not inlined, so that `work`, which may be a whole kernel, is compiled once and not again for the threads.
#[inline(never)]
fn call<I, R>(work: &impl Fn(I) -> R, item: I) -> R {
    work(item)
}

/// An item, and the result once there is one.
#[cfg(feature = "rayon")]
struct Job<'a, I, R, W> {
    item: Option<I>,
    result: Option<R>,
    work: &'a W,
}

/// A [`Job`] of any type.
#[cfg(feature = "rayon")]
trait Run: Send {
    fn run(&mut self);
}

#[cfg(feature = "rayon")]
impl<I: Send, R: Send, W: Fn(I) -> R + Sync> Run for Job<'_, I, R, W> {
    fn run(&mut self) {
        self.result = self.item.take().map(|item| call(self.work, item));
    }
}

/// Not generic: the code of rayon was compiled anew for each kernel, and took as long as the kernels.
#[cfg(feature = "rayon")]
fn spread(jobs: Vec<&mut dyn Run>) {
    jobs.into_par_iter().for_each(|job| with_default_floats(|| job.run()));
}

/// The number of threads that [`for_each`] and [`map`] use.
pub(super) fn count() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}
