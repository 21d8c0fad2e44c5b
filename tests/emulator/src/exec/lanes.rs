//! Builders of lane-wise instructions: a scalar function becomes an action over 32 lanes.

use super::code::Action;
use super::registers::{FULL, Guard, LANES, Registers, Row, Typed, lanes};

/// Runs `f` compiled for x86-64-v3 (AVX2, FMA) where the processor has it.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        return v3.vectorize(f);
    }
    f()
}

/// `d = f(a)` for cheap functions without side effects: inactive lanes are computed and dropped.
pub(crate) fn unary<A: Typed, D: Typed>(
    d: u32,
    a: u32,
    f: impl Fn(A) -> D + Copy + Send + Sync + 'static,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        vectorised(
            #[inline(always)]
            || {
                let x = r.row::<A::Cell>(a);
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = f(A::from_cell(x[lane])).into_cell();
                }
                r.put(d, &out, mask);
            },
        )
    }))
}

/// `d = f(a)` where `f` is dear: only active lanes are computed.
pub(crate) fn unary_slow<A: Typed, D: Typed>(
    d: u32,
    a: u32,
    f: impl Fn(A) -> D + Copy + Send + Sync + 'static,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        vectorised(
            #[inline(always)]
            || {
                let x = r.row::<A::Cell>(a);
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in lanes(mask) {
                    out[lane] = f(A::from_cell(x[lane])).into_cell();
                }
                r.put(d, &out, mask);
            },
        )
    }))
}

/// `d = f(a, b)`.
pub(crate) fn binary<A: Typed, B: Typed, D: Typed>(
    d: u32,
    [a, b]: [u32; 2],
    f: impl Fn(A, B) -> D + Copy + Send + Sync + 'static,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        vectorised(
            #[inline(always)]
            || {
                let (x, y) = (r.row::<A::Cell>(a), r.row::<B::Cell>(b));
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = f(A::from_cell(x[lane]), B::from_cell(y[lane])).into_cell();
                }
                r.put(d, &out, mask);
            },
        )
    }))
}

/// `d = f(a, b)` where `f` is dear: only active lanes are computed.
pub(crate) fn binary_slow<A: Typed, B: Typed, D: Typed>(
    d: u32,
    [a, b]: [u32; 2],
    f: impl Fn(A, B) -> D + Copy + Send + Sync + 'static,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        vectorised(
            #[inline(always)]
            || {
                let (x, y) = (r.row::<A::Cell>(a), r.row::<B::Cell>(b));
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in lanes(mask) {
                    out[lane] = f(A::from_cell(x[lane]), B::from_cell(y[lane])).into_cell();
                }
                r.put(d, &out, mask);
            },
        )
    }))
}

/// `d = f(a, b, c)`.
pub(crate) fn ternary<A: Typed, B: Typed, C: Typed, D: Typed>(
    d: u32,
    [a, b, c]: [u32; 3],
    f: impl Fn(A, B, C) -> D + Copy + Send + Sync + 'static,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        vectorised(
            #[inline(always)]
            || {
                let (x, y, z) = (r.row::<A::Cell>(a), r.row::<B::Cell>(b), r.row::<C::Cell>(c));
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in 0..LANES {
                    let (x, y, z) = (A::from_cell(x[lane]), B::from_cell(y[lane]), C::from_cell(z[lane]));
                    out[lane] = f(x, y, z).into_cell();
                }
                r.put(d, &out, mask);
            },
        )
    }))
}

/// `d = f(a, b, c)` where `f` is dear: only active lanes are computed.
pub(crate) fn ternary_slow<A: Typed, B: Typed, C: Typed, D: Typed>(
    d: u32,
    [a, b, c]: [u32; 3],
    f: impl Fn(A, B, C) -> D + Copy + Send + Sync + 'static,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        vectorised(
            #[inline(always)]
            || {
                let (x, y, z) = (r.row::<A::Cell>(a), r.row::<B::Cell>(b), r.row::<C::Cell>(c));
                let mut out: Row<D::Cell> = [D::Cell::default(); LANES];
                for lane in lanes(mask) {
                    let (x, y, z) = (A::from_cell(x[lane]), B::from_cell(y[lane]), C::from_cell(z[lane]));
                    out[lane] = f(x, y, z).into_cell();
                }
                r.put(d, &out, mask);
            },
        )
    }))
}

/// A predicate of two values, handed with the lane mask to `done`, which writes it.
pub(crate) fn compare<A: Typed, B: Typed>(
    [a, b]: [u32; 2],
    f: impl Fn(A, B) -> bool + Copy + Send + Sync + 'static,
    done: impl Fn(&mut Registers, u32, u32) + Send + Sync + 'static,
) -> Action {
    Action::Compute(Box::new(move |r: &mut Registers, mask| {
        let bits = vectorised(
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
        done(r, bits, mask);
    }))
}

/// `d = p ? a : b`.
pub(crate) fn select<C: super::registers::Cell>(d: u32, [a, b]: [u32; 2], p: Guard) -> Action {
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
