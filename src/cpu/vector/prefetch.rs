//! Asking for memory before it is needed.

/// Bytes that come into the cache together.
const LINE: usize = 64;

/// Asks for data that will be read soon. Does nothing where stable Rust has no such instruction.
#[inline(always)]
pub(in crate::cpu) fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(data)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it faults at no address. `line` is less than the
        // length of `data` in bytes.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().cast::<i8>().add(line)) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, LINE);
}
