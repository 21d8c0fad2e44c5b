//! Asking for memory before it is needed.

/// Bytes that come into the cache together.
const LINE: usize = 64;

/// Asks for data that will be read soon. Does nothing where stable Rust has no such instruction.
///
/// They come into the second-level cache, which can wait for many more lines at a time than the first.
#[inline(always)]
pub(in crate::cpu) fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let (start, length) = (data.as_ptr().cast::<i8>(), size_of_val(data));
        for byte in (0..length).step_by(LINE) {
            // SAFETY: every x86-64 processor has the instruction, and it faults at no address. `byte` is within `data`.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(byte)) }
        }
        // Data that do not begin with a line end in one more.
        if let Some(last) = length.checked_sub(1) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(last)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, LINE);
}
