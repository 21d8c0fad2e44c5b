//! The floating-point mode that kernels compute in.
//!
//! A caller may have set the processor to flush subnormal numbers to zero, to round otherwise, or to trap; threads inherit
//! that from the thread that started them. Results must depend on neither.

/// Runs `work` in the default mode (round to nearest, subnormal numbers kept, no traps), and restores the caller's.
pub(in crate::cpu) fn with_default_floats<R>(work: impl FnOnce() -> R) -> R {
    let _restored = DefaultMode::set();
    call(work)
}

/// Not inlined, so that no arithmetic of `work` moves out of the mode.
#[inline(never)]
fn call<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// The default mode, until it is dropped.
struct DefaultMode {
    before: Word,
}

/// MXCSR: all exceptions masked, round to nearest, no flushing.
#[cfg(target_arch = "x86_64")]
const DEFAULT: Word = 0x1f80;

/// The sticky bits of MXCSR, which say what happened so far.
#[cfg(target_arch = "x86_64")]
const HAPPENED: Word = 0x3f;

#[cfg(target_arch = "x86_64")]
type Word = u32;

/// FPCR: no traps, round to nearest, no flushing.
#[cfg(not(target_arch = "x86_64"))]
const DEFAULT: Word = 0;

#[cfg(not(target_arch = "x86_64"))]
const HAPPENED: Word = 0;

#[cfg(not(target_arch = "x86_64"))]
type Word = u64;

impl DefaultMode {
    fn set() -> Self {
        let before = read();
        if before & !HAPPENED != DEFAULT {
            write(DEFAULT);
        }
        Self { before }
    }
}

impl Drop for DefaultMode {
    fn drop(&mut self) {
        if self.before & !HAPPENED != DEFAULT {
            write(self.before);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn read() -> Word {
    let mut word: Word = 0;
    // SAFETY: every x86-64 processor has the instruction; it writes four bytes to `word`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
    word
}

#[cfg(target_arch = "x86_64")]
fn write(word: Word) {
    // SAFETY: the word is the default, or what `read` gave: no reserved bit is set. In the default mode compiled code means
    // what it says; the caller's own mode is restored before the caller's code runs.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
fn read() -> Word {
    let word: Word;
    // SAFETY: every AArch64 processor has the register, and programs may read it.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) word, options(nostack, preserves_flags)) };
    word
}

#[cfg(target_arch = "aarch64")]
fn write(word: Word) {
    // SAFETY: the word is the default, or what `read` gave. In the default mode compiled code means what it says; the
    // caller's own mode is restored before the caller's code runs.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> Word {
    DEFAULT
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write(_: Word) {}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    /// Flush to zero, and denormals are zero.
    const FLUSH: Word = if cfg!(target_arch = "x86_64") { 0x8040 } else { 1 << 24 };

    #[test]
    fn the_mode_is_the_default_inside_and_the_callers_after() {
        std::thread::spawn(|| {
            let callers = DEFAULT | FLUSH;
            write(callers);
            let inside = with_default_floats(read);
            let caught = std::panic::catch_unwind(|| with_default_floats(|| panic!("on purpose")));
            let after = read();
            write(DEFAULT);
            assert_eq!((inside & !HAPPENED, after & !HAPPENED), (DEFAULT, callers));
            assert!(caught.is_err());
        })
        .join()
        .expect("no panic");
    }
}
