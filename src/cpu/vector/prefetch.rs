//! Asking for memory before it is needed.

/// Bytes that come into the cache together.
const LINE: usize = 64;

/// Asks for the rows of `width` elements that will be read soon. An index behind the data asks for nothing of use. Does
/// nothing where stable Rust has no such instruction.
///
/// They come into the second-level cache, which can wait for many more lines at a time than the first.
#[inline(always)]
pub(in crate::cpu) fn prefetch_rows<T>(data: &[T], width: usize, rows: impl Iterator<Item = usize>) {
    let element = size_of::<T>();
    // A row that does not begin with a line ends in one more.
    let whole_lines = data.as_ptr().addr().is_multiple_of(LINE) && (width * element).is_multiple_of(LINE);
    for row in rows {
        let start = data.as_ptr().wrapping_add(row.wrapping_mul(width));
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
