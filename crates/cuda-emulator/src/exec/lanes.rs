//! Builders of lane-wise instructions: a scalar function becomes an action over the 32 lanes of a warp.
//!
//! Each loop is compiled for x86-64-v3 (AVX2 and FMA). On processors without it the active lanes are computed one by
//! one; that path is kept small, because it is compiled once more for every instruction.

use super::code::Action;
use super::registers::{Cell, FULL, Guard, LANES, Registers, Row, Typed, lanes};

#[cfg(target_arch = "x86_64")]
mod v3 {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// Whether the processor has x86-64-v3: 0 for not checked yet, 1 for no, 2 for yes.
    static AVAILABLE: AtomicU8 = AtomicU8::new(0);

    #[inline(always)]
    pub(super) fn is_available() -> bool {
        match AVAILABLE.load(Relaxed) {
            0 => detect(),
            known => known == 2,
        }
    }

    #[cold]
    #[inline(never)]
    fn detect() -> bool {
        let available = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("movbe")
            && is_x86_feature_detected!("popcnt");
        AVAILABLE.store(1 + u8::from(available), Relaxed);
        available
    }

    /// Runs `f`, which must be `#[inline(always)]` to be compiled for these features.
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c,lzcnt,movbe,popcnt")]
    pub(super) fn run<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
}

/// Runs `f` compiled for x86-64-v3 where the processor has it.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if v3::is_available() {
        // SAFETY: the processor has the features.
        return unsafe { v3::run(f) };
    }
    f()
}

/// Computes a row, vectorised over all lanes where the processor can, else for the active lanes alone.
#[inline(always)]
fn each_lane<C: Cell>(mask: u32, f: impl Fn(usize) -> C) -> Row<C> {
    #[cfg(target_arch = "x86_64")]
    if v3::is_available() {
        // SAFETY: the processor has the features.
        return unsafe {
            v3::run(
                #[inline(always)]
                || {
                    let mut out: Row<C> = [C::default(); LANES];
                    for lane in 0..LANES {
                        out[lane] = f(lane);
                    }
                    out
                },
            )
        };
    }
    active_lanes(mask, &f)
}

/// Computes the active lanes of a row. Not generic over `f`, so that it adds little code to each instruction.
#[inline(never)]
fn active_lanes<C: Cell>(mask: u32, f: &dyn Fn(usize) -> C) -> Row<C> {
    let mut out: Row<C> = [C::default(); LANES];
    for lane in lanes(mask) {
        out[lane] = f(lane);
    }
    out
}

/// The loops of a lane-wise instruction: over all lanes at once where that is fast, else over active lanes.
macro_rules! lane_wise {
    ($fast:ident, $slow:ident, $words:literal, [$($a:ident: $A:ident),*]) => {
        #[doc = concat!("`d = f(", $words, ")` for cheap functions: inactive lanes are computed and discarded.")]
        pub(crate) fn $fast<$($A: Typed,)* D: Typed>(
            d: u32,
            [$($a),*]: [u32; [$(stringify!($a)),*].len()],
            f: impl Fn($($A),*) -> D + Copy + Send + Sync + 'static,
        ) -> Action {
            Action::Compute(Box::new(move |r: &mut Registers, mask| {
                $(let $a = r.row::<$A::Cell>($a);)*
                let out = each_lane(mask, #[inline(always)] |lane| f($($A::from_cell($a[lane])),*).into_cell());
                put_row(r, d, &out, mask);
            }))
        }

        #[doc = concat!("`d = f(", $words, ")` for expensive functions: only active lanes are computed.")]
        pub(crate) fn $slow<$($A: Typed,)* D: Typed>(
            d: u32,
            [$($a),*]: [u32; [$(stringify!($a)),*].len()],
            f: impl Fn($($A),*) -> D + Copy + Send + Sync + 'static,
        ) -> Action {
            Action::Compute(Box::new(move |r: &mut Registers, mask| {
                $(let $a = r.row::<$A::Cell>($a);)*
                let out = active_lanes(mask, &|lane| f($($A::from_cell($a[lane])),*).into_cell());
                put_row(r, d, &out, mask);
            }))
        }
    };
}

lane_wise!(unary, unary_slow, "a", [a: A]);
lane_wise!(binary, binary_slow, "a, b", [a: A, b: B]);
lane_wise!(ternary, ternary_slow, "a, b, c", [a: A, b: B, c: C]);

/// [`Registers::put`], compiled once per bank.
#[inline(never)]
fn put_row<C: Cell>(r: &mut Registers, d: u32, out: &Row<C>, mask: u32) {
    vectorised(
        #[inline(always)]
        || r.put(d, out, mask),
    );
}

/// What is done with the bits of a comparison: called with the registers, a bit per lane and the lane mask.
pub(crate) type Done = Box<dyn Fn(&mut Registers, u32, u32) + Send + Sync>;

/// A predicate of two values, inverted in the lanes of `flip`; `done` stores it.
pub(crate) fn compare<T: Typed>(
    [a, b]: [u32; 2],
    flip: u32,
    f: impl Fn(T, T) -> bool + Copy + Send + Sync + 'static,
    done: Done,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        let (x, y) = (r.row::<T::Cell>(a), r.row::<T::Cell>(b));
        let bits = vectorised(
            #[inline(always)]
            || {
                let mut bits = 0;
                for lane in 0..LANES {
                    bits |= u32::from(f(T::from_cell(x[lane]), T::from_cell(y[lane]))) << lane;
                }
                bits
            },
        );
        done(r, bits ^ flip, mask);
    }))
}

/// `d = p ? a : b`.
pub(crate) fn select<C: Cell>(d: u32, [a, b]: [u32; 2], p: Guard) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        vectorised(
            #[inline(always)]
            || {
                let bits = r.guarded(FULL, p);
                let (x, y) = (r.row::<C>(a), r.row::<C>(b));
                let mut out = *y;
                for lane in 0..LANES {
                    if bits >> lane & 1 == 1 {
                        out[lane] = x[lane];
                    }
                }
                r.put(d, &out, mask);
            },
        )
    }))
}

/// Any function of the registers.
pub(crate) fn compute(f: impl Fn(&mut Registers, u32) + Send + Sync + 'static) -> Action {
    Action::Compute(Box::new(f))
}
