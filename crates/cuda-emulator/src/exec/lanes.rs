//! Builders of lane-wise instructions: a scalar function becomes an action over 32 lanes.
//!
//! Each loop is compiled for x86-64-v3, which `fma` needs, and in a short form for other processors.

use super::code::Action;
use super::registers::{Cell, FULL, Guard, LANES, Registers, Row, Typed, lanes};

/// Runs `f` compiled for x86-64-v3 (AVX2, FMA) where the processor has it.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        return v3.vectorize(f);
    }
    f()
}

/// The loops of a lane-wise instruction: over all lanes at once where that is fast, else over active lanes.
macro_rules! lane_wise {
    ($fast:ident, $slow:ident, $words:literal, [$($a:ident: $A:ident),*]) => {
        #[doc = concat!("`d = f(", $words, ")` for cheap functions: inactive lanes are computed and dropped.")]
        pub(crate) fn $fast<$($A: Typed,)* D: Typed>(
            d: u32,
            [$($a),*]: [u32; [$(stringify!($a)),*].len()],
            f: impl Fn($($A),*) -> D + Copy + Send + Sync + 'static,
        ) -> Action {
            Action::Compute(Box::new(move |r: &mut Registers, mask| {
                #[cfg(target_arch = "x86_64")]
                if let Some(v3) = pulp::x86::V3::try_new() {
                    let out = v3.vectorize(
                        #[inline(always)]
                        || {
                            let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                            $(let $a = r.row::<$A::Cell>($a);)*
                            for lane in 0..LANES {
                                out[lane] = f($($A::from_cell($a[lane])),*).into_cell();
                            }
                            out
                        },
                    );
                    return put_row(r, d, &out, mask);
                }
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in lanes(mask) {
                    out[lane] = f($($A::from_cell(r.row::<$A::Cell>($a)[lane])),*).into_cell();
                }
                put_row(r, d, &out, mask);
            }))
        }

        #[doc = concat!("`d = f(", $words, ")` where `f` is dear: only active lanes are computed.")]
        pub(crate) fn $slow<$($A: Typed,)* D: Typed>(
            d: u32,
            [$($a),*]: [u32; [$(stringify!($a)),*].len()],
            f: impl Fn($($A),*) -> D + Copy + Send + Sync + 'static,
        ) -> Action {
            Action::Compute(Box::new(move |r: &mut Registers, mask| {
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in lanes(mask) {
                    out[lane] = f($($A::from_cell(r.row::<$A::Cell>($a)[lane])),*).into_cell();
                }
                put_row(r, d, &out, mask);
            }))
        }
    };
}

lane_wise!(unary, unary_slow, "a", [a: A]);
lane_wise!(binary, binary_slow, "a, b", [a: A, b: B]);
lane_wise!(ternary, ternary_slow, "a, b, c", [a: A, b: B, c: C]);

/// [`Registers::put`], compiled once for each bank.
#[inline(never)]
fn put_row<C: Cell>(r: &mut Registers, d: u32, out: &Row<C>, mask: u32) {
    vectorised(
        #[inline(always)]
        || r.put(d, out, mask),
    );
}

/// A predicate of two values, handed with the lane mask to `done`, which writes it.
pub(crate) fn compare<A: Typed, B: Typed>(
    [a, b]: [u32; 2],
    f: impl Fn(A, B) -> bool + Copy + Send + Sync + 'static,
    done: impl Fn(&mut Registers, u32, u32) + Send + Sync + 'static,
) -> Action {
    let bits = move |r: &Registers, mask: u32| -> u32 {
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = pulp::x86::V3::try_new() {
            return v3.vectorize(
                #[inline(always)]
                || {
                    let (x, y) = (r.row::<A::Cell>(a), r.row::<B::Cell>(b));
                    let mut bits = 0;
                    for lane in 0..LANES {
                        bits |= u32::from(f(A::from_cell(x[lane]), B::from_cell(y[lane]))) << lane;
                    }
                    bits
                },
            );
        }
        let (x, y) = (r.row::<A::Cell>(a), r.row::<B::Cell>(b));
        lanes(mask).fold(0, |bits, l| bits | u32::from(f(A::from_cell(x[l]), B::from_cell(y[l]))) << l)
    };
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        let bits = bits(r, mask);
        done(r, bits, mask);
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
