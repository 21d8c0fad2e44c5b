//! Vectors of sixteen numbers, on any instruction set.

use std::any::TypeId;

use super::bits;

/// The instruction set for machines without a better one.
pub(super) use pulp::Scalar128b as Portable;
use pulp::Simd;

/// The number of lanes of a vector.
pub(in crate::cpu) const LANES: usize = 16;

/// A vector in memory.
pub(in crate::cpu) type Row = [f32; LANES];

/// A vector of integers in memory.
pub(in crate::cpu) type Integers = [i32; LANES];

/// Arithmetic on [`LANES`] numbers. Comparisons with NaN are false.
pub(in crate::cpu) trait Lanes: Copy {
    /// [`LANES`] numbers in [`REGISTERS`](Self::REGISTERS) registers.
    type V: Copy;

    /// [`LANES`] integers of 32 bits.
    type I: Copy;

    /// The number of registers of a vector: 1, 2 or 4.
    const REGISTERS: usize;

    fn splat(self, value: f32) -> Self::V;
    fn load(self, row: &Row) -> Self::V;
    fn store(self, row: &mut Row, v: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`, rounded once if the machine has a fused instruction, otherwise twice.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of both; if one is NaN, either of them.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a < b ? yes : no`.
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The bits of each number shifted left by 23, so that the lowest bits become the exponent.
    fn low_bits_to_exponent(self, v: Self::V) -> Self::V;
    /// The sum of all lanes.
    fn sum(self, v: Self::V) -> f32;

    fn splat_integer(self, value: i32) -> Self::I;
    fn load_integers(self, row: &Integers) -> Self::I;
    fn store_integers(self, row: &mut Integers, v: Self::I);
    /// `sum + a₀·b₀ + a₁·b₁` of the two signed halves of each lane.
    fn add_pair_products(self, a: Self::I, b: Self::I, sum: Self::I) -> Self::I;
    /// Adds to each byte of a sum the number of bits in which `a` and `b` differ there.
    fn add_differing_bits(self, a: Self::I, b: Self::I, sum: Self::I) -> Self::I;
    /// Adds the four bytes of each lane to its sum.
    fn add_bytes(self, bytes: Self::I, sum: Self::I) -> Self::I;
}

/// An array of registers from the expression for each. Not `array::from_fn`, nor any closure: nothing makes the compiler inline those, and
/// code that is not inlined where the instruction set is known calls a function for every instruction.
macro_rules! registers {
    (like $first:expr, $i:ident => $value:expr) => {{
        let mut registers = $first;
        for $i in 0..N {
            registers[$i] = $value;
        }
        registers
    }};
}

/// `N` registers of an instruction set.
#[derive(Clone, Copy)]
pub(super) struct Machine<S, const N: usize>(pub(super) S);

impl<S: Simd, const N: usize> Lanes for Machine<S, N> {
    type V = [S::f32s; N];

    type I = [S::u32s; N];

    const REGISTERS: usize = N;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [self.0.splat_f32s(value); N]
    }

    #[inline(always)]
    fn load(self, row: &Row) -> Self::V {
        let numbers = S::as_simd_f32s(row).0;
        registers!(like [numbers[0]; N], i => numbers[i])
    }

    #[inline(always)]
    fn store(self, row: &mut Row, v: Self::V) {
        S::as_mut_simd_f32s(row).0.copy_from_slice(&v);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        registers!(like a, i => self.0.add_f32s(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        registers!(like a, i => self.0.sub_f32s(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        registers!(like a, i => self.0.mul_f32s(a[i], b[i]))
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        registers!(like a, i => self.0.div_f32s(a[i], b[i]))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Without a fused instruction, pulp would call a slow library function.
        if TypeId::of::<S>() == TypeId::of::<Portable>() {
            return self.add(self.mul(a, b), c);
        }
        registers!(like a, i => self.0.mul_add_f32s(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        registers!(like a, i => self.0.max_f32s(a[i], b[i]))
    }

    #[inline(always)]
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        registers!(like yes, i => self.0.select_f32s(self.0.less_than_f32s(a[i], b[i]), yes[i], no[i]))
    }

    #[inline(always)]
    fn low_bits_to_exponent(self, v: Self::V) -> Self::V {
        registers!(like v, i => {
            let bits = self.0.transmute_u32s_f32s(v[i]);
            self.0.transmute_f32s_u32s(self.0.wrapping_dyn_shl_u32s(bits, self.0.splat_u32s(23)))
        })
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut sum = v[0];
        for register in &v[1..] {
            sum = self.0.add_f32s(sum, *register);
        }
        self.0.reduce_sum_f32s(sum)
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> Self::I {
        [self.0.splat_u32s(value.cast_unsigned()); N]
    }

    #[inline(always)]
    fn load_integers(self, row: &Integers) -> Self::I {
        let numbers = S::as_simd_u32s(bytemuck::cast_slice(row)).0;
        registers!(like [numbers[0]; N], i => numbers[i])
    }

    #[inline(always)]
    fn store_integers(self, row: &mut Integers, v: Self::I) {
        S::as_mut_simd_u32s(bytemuck::cast_slice_mut(row)).0.copy_from_slice(&v);
    }

    #[inline(always)]
    fn add_pair_products(self, a: Self::I, b: Self::I, sum: Self::I) -> Self::I {
        registers!(like sum, i => self.0.add_u32s(sum[i], bits::pair_products(self.0, a[i], b[i])))
    }

    #[inline(always)]
    fn add_differing_bits(self, a: Self::I, b: Self::I, sum: Self::I) -> Self::I {
        registers!(like sum, i => {
            let differing = self.0.xor_u32s(a[i], b[i]);
            self.0.add_u32s(sum[i], bits::count_in_bytes(self.0, differing))
        })
    }

    #[inline(always)]
    fn add_bytes(self, bytes: Self::I, sum: Self::I) -> Self::I {
        registers!(like sum, i => self.0.add_u32s(sum[i], bits::sum_of_bytes(self.0, bytes[i])))
    }
}

/// Vectors side by side. (Not by a closure: see [`registers`].)
#[inline(always)]
pub(in crate::cpu) fn load_each<L: Lanes, const V: usize>(l: L, rows: &[Row; V]) -> [L::V; V] {
    let mut vectors = [l.splat(0.0); V];
    for v in 0..V {
        vectors[v] = l.load(&rows[v]);
    }
    vectors
}

/// Transposes `count` rows of `out.len()` numbers, `stride` apart, into vectors with one lane per row. Lanes without a
/// row hold 0.
pub(in crate::cpu) fn transpose(rows: &[f32], stride: usize, count: usize, out: &mut [Row]) {
    out.fill([0.0; LANES]);
    for lane in 0..count.min(LANES) {
        for (out, value) in out.iter_mut().zip(&rows[lane * stride..]) {
            out[lane] = *value;
        }
    }
}
