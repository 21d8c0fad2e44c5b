//! The registers of one warp: each is a row of 32 cells, so that an instruction is a loop that the compiler vectorises.

use half::{bf16, f16};

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// All lanes of a warp.
pub(crate) const FULL: u32 = u32::MAX;

/// A register of 32 lanes.
pub(crate) type Row<C> = [C; LANES];

/// The register file of a warp. Registers of up to 32 bits share `words`; narrower ones keep the upper bits zero.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registers {
    pub(crate) words: Vec<Row<u32>>,
    pub(crate) longs: Vec<Row<u64>>,
    /// One bit per lane.
    pub(crate) predicates: Vec<u32>,
}

/// The cell type of a register bank.
pub(crate) trait Cell: Copy + Default + Send + Sync + 'static {
    fn bank(r: &Registers) -> &[Row<Self>];
    fn bank_mut(r: &mut Registers) -> &mut [Row<Self>];
}

impl Cell for u32 {
    #[inline(always)]
    fn bank(r: &Registers) -> &[Row<u32>] {
        &r.words
    }
    #[inline(always)]
    fn bank_mut(r: &mut Registers) -> &mut [Row<u32>] {
        &mut r.words
    }
}

impl Cell for u64 {
    #[inline(always)]
    fn bank(r: &Registers) -> &[Row<u64>] {
        &r.longs
    }
    #[inline(always)]
    fn bank_mut(r: &mut Registers) -> &mut [Row<u64>] {
        &mut r.longs
    }
}

/// A type that an instruction reads from and writes to a cell.
pub(crate) trait Typed: Copy + 'static {
    type Cell: Cell;
    fn from_cell(cell: Self::Cell) -> Self;
    fn into_cell(self) -> Self::Cell;
}

macro_rules! typed {
    ($($t:ty, $cell:ty, $from:expr, $into:expr;)*) => {$(
        impl Typed for $t {
            type Cell = $cell;
            #[inline(always)]
            fn from_cell(cell: $cell) -> Self {
                ($from)(cell)
            }
            #[inline(always)]
            fn into_cell(self) -> $cell {
                ($into)(self)
            }
        }
    )*};
}

typed! {
    u8, u32, |c| c as u8, u32::from;
    i8, u32, |c| c as i8, |x: i8| u32::from(x as u8);
    u16, u32, |c| c as u16, u32::from;
    i16, u32, |c| c as i16, |x: i16| u32::from(x as u16);
    u32, u32, |c| c, |x| x;
    i32, u32, |c| c as i32, |x: i32| x as u32;
    f32, u32, f32::from_bits, f32::to_bits;
    u64, u64, |c| c, |x| x;
    i64, u64, |c| c as i64, |x: i64| x as u64;
    f64, u64, f64::from_bits, f64::to_bits;
    f16, u32, |c| f16::from_bits(c as u16), |x: f16| u32::from(x.to_bits());
    bf16, u32, |c| bf16::from_bits(c as u16), |x: bf16| u32::from(x.to_bits());
}

/// `.f16x2` and `.bf16x2`: the first element in the low half.
impl<T: Typed<Cell = u32>> Typed for [T; 2] {
    type Cell = u32;
    #[inline(always)]
    fn from_cell(cell: u32) -> Self {
        [T::from_cell(cell & 0xffff), T::from_cell(cell >> 16)]
    }
    #[inline(always)]
    fn into_cell(self) -> u32 {
        self[0].into_cell() | self[1].into_cell() << 16
    }
}

impl Registers {
    /// The lanes of `mask` in which the predicate is true.
    #[inline(always)]
    pub(crate) fn guarded(&self, mask: u32, guard: Guard) -> u32 {
        mask & (self.predicates[guard.index as usize] ^ guard.flip)
    }

    #[inline(always)]
    pub(crate) fn row<C: Cell>(&self, index: u32) -> &Row<C> {
        &C::bank(self)[index as usize]
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn put<C: Cell>(&mut self, index: u32, values: &Row<C>, mask: u32) {
        let row = &mut C::bank_mut(self)[index as usize];
        if mask == FULL {
            *row = *values;
        } else {
            for lane in 0..LANES {
                if mask >> lane & 1 == 1 {
                    row[lane] = values[lane];
                }
            }
        }
    }

    /// Writes the lanes of `mask` of a predicate.
    #[inline(always)]
    pub(crate) fn put_predicate(&mut self, index: u32, bits: u32, mask: u32) {
        let p = &mut self.predicates[index as usize];
        *p = *p & !mask | bits & mask;
    }
}

/// A predicate operand; `flip` is all ones if it is negated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) index: u32,
    pub(crate) flip: u32,
}

/// The lanes of a mask, lowest first.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        (left != 0).then(|| {
            let lane = left.trailing_zeros() as usize;
            left &= left - 1;
            lane
        })
    })
}
