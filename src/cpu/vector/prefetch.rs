//! Prefetching of table rows.

/// The size of a cache line in bytes.
const LINE: usize = 64;

/// Prefetches rows of `width` elements. An index past the end of the data is harmless. Does nothing on targets for which
/// stable Rust has no prefetch instruction.
///
/// The rows go to the L2 cache, which can have many more outstanding misses than the L1 cache.
#[inline(always)]
pub(in crate::cpu) fn prefetch_rows<T>(data: &[T], width: usize, rows: impl Iterator<Item = usize>) {
    prefetch_parts(data, width, width, rows);
}

/// Prefetches the first `width` elements of rows that are `stride` apart.
#[inline(always)]
pub(in crate::cpu) fn prefetch_parts<T>(
    data: &[T],
    stride: usize,
    width: usize,
    rows: impl Iterator<Item = usize>,
) {
    let element = size_of::<T>();
    let is_whole = |elements: usize| (elements * element).is_multiple_of(LINE);
    // A row that does not start at a line boundary reaches into one more line.
    let whole_lines = data.as_ptr().addr().is_multiple_of(LINE) && is_whole(stride) && is_whole(width);
    for row in rows {
        let start = data.as_ptr().wrapping_add(row.wrapping_mul(stride));
        for column in (0..width).step_by((LINE / element).max(1)) {
            prefetch(start.wrapping_add(column));
        }
        if !whole_lines {
            prefetch(start.wrapping_add(width.saturating_sub(1)));
        }
    }
}

#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
