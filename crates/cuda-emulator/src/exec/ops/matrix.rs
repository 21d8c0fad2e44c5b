//! "Warp Level Matrix Instructions: mma": D = A·B + C, with the matrices distributed over the lanes of a warp.
//!
//! Fragments follow one rule for all shapes: register `j` of A in lane `l` holds elements of row `l / 4 + 8 (j mod 2)`,
//! from column `(l mod 4) E + 4 E ⌊j / 2⌋` on, where a register holds E elements. B is the same with rows and columns
//! swapped. C and D hold row `l / 4 (+ 8)`, columns `2 (l mod 4)` and the next.
//!
//! Products of f16, bf16 and tf32 are exact in f32. The PTX ISA does not specify the order of the sum; see
//! [`MmaOrder`].

use super::Decoded;
use super::matrix_loads::all_lanes;
use crate::exec::code::{Access, Action};
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::vectorised;
use crate::exec::options::MmaOrder;
use crate::exec::registers::{FULL, Registers, Row};
use crate::exec::rounding::{Rounding, brain_value, canonical, half_bits, half_value, narrow};
use crate::ptx::LoadError;
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};
use half::{bf16, f16};

const WORD: Type = Type { meaning: Meaning::Bits, bits: 32 };

/// Number of columns of B and C.
const N: usize = 8;

/// Element types of A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Half,
    Brain,
    Tensor,
    Byte { signed: bool },
}

impl Element {
    fn of(t: Type) -> Option<Self> {
        Some(match (t.meaning, t.bits) {
            (Meaning::Float, 16) => Self::Half,
            (Meaning::Brain, 16) => Self::Brain,
            (Meaning::Tensor, 32) => Self::Tensor,
            (Meaning::Signed, 8) => Self::Byte { signed: true },
            (Meaning::Unsigned, 8) => Self::Byte { signed: false },
            _ => return None,
        })
    }

    /// Elements per register.
    fn packed(self) -> usize {
        match self {
            Self::Half | Self::Brain => 2,
            Self::Tensor => 1,
            Self::Byte { .. } => 4,
        }
    }

    #[inline(always)]
    fn float(self, word: u32, i: usize) -> f32 {
        let half = (word >> (16 * (i & 1))) as u16;
        match self {
            Self::Half => half_value(f16::from_bits(half)),
            Self::Brain => brain_value(bf16::from_bits(half)),
            // The low 13 bits of a tf32 register are ignored.
            _ => f32::from_bits(word & 0xffff_e000),
        }
    }

    #[inline(always)]
    fn integer(self, word: u32, i: usize) -> i32 {
        let byte = (word >> (8 * i)) as u8;
        if self == (Self::Byte { signed: true }) { i32::from(byte as i8) } else { i32::from(byte) }
    }
}

/// The registers of an operand.
fn registers(
    d: &mut Decoder<'_>,
    form: &Form<'_>,
    o: &Operand,
    count: usize,
    t: Type,
    write: bool,
) -> Result<Vec<u32>, LoadError> {
    let list = match o {
        Operand::Vector(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    };
    if list.len() != count {
        return form.error(format!("expected {count} registers, found {}", list.len()));
    }
    list.iter().map(|o| if write { d.destination(form, o, t) } else { d.source(form, o, t) }).collect()
}

/// A decoded mma.
struct Product {
    m: usize,
    k: usize,
    a: Vec<u32>,
    b: Vec<u32>,
    c: Vec<u32>,
    d: Vec<u32>,
    elements: [Element; 2],
    /// Whether C and D are pairs of f16.
    half_sums: [bool; 2],
    clamp: bool,
}

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if !form.flag("sync") || !form.flag("aligned") {
        return form.unsupported();
    }
    let (m, k) = match form.any(&["m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32", "m8n8k16"]) {
        Some("m16n8k4") => (16, 4),
        Some("m16n8k8") => (16, 8),
        Some("m16n8k16") => (16, 16),
        Some("m16n8k32") => (16, 32),
        Some(_) => (8, 16),
        None => return form.unsupported(),
    };
    if !form.flag("row") || !form.flag("col") {
        return form.error("missing .row.col");
    }
    let clamp = form.flag("satfinite");
    let (td, ta, tb, tc) = (form.kind()?, form.kind()?, form.kind()?, form.kind()?);
    let (Some(ea), Some(eb)) = (Element::of(ta), Element::of(tb)) else { return form.unsupported() };
    let integer = matches!(ea, Element::Byte { .. });
    let known = match (ea, m, k) {
        (Element::Half | Element::Brain, 16, 8 | 16) | (Element::Tensor, 16, 4 | 8) => ea == eb,
        (Element::Byte { .. }, 16, 16 | 32) | (Element::Byte { .. }, 8, 16) => {
            matches!(eb, Element::Byte { .. })
        }
        _ => false,
    };
    let sum = |t: Type| match (t.meaning, t.bits) {
        (Meaning::Float, 32) if !integer => Some(false),
        (Meaning::Float, 16) if ea == Element::Half => Some(true),
        (Meaning::Signed, 32) if integer => Some(false),
        _ => None,
    };
    let (true, Some(hd), Some(hc)) = (known && (integer || !clamp), sum(td), sum(tc)) else {
        return form.unsupported();
    };
    let [od, oa, ob, oc] = form.operands()?;
    let rows = m / 8;
    let steps = k / (4 * ea.packed());
    let sums = |half: bool| if half { rows } else { rows * 2 };
    // Registers for f32 elements of C and D may be declared as .f32 or .b32: only the width matters.
    let product = Product {
        m,
        k,
        a: registers(d, form, oa, rows * steps, WORD, false)?,
        b: registers(d, form, ob, steps, WORD, false)?,
        c: registers(d, form, oc, sums(hc), WORD, false)?,
        d: registers(d, form, od, sums(hd), WORD, true)?,
        elements: [ea, eb],
        half_sums: [hc, hd],
        clamp,
    };
    let members = d.constant(32, u64::from(FULL));
    let run: Access = Box::new(move |machine, r, mask| {
        all_lanes(mask)?;
        machine.counts.matrix_multiply_adds += (product.m * N * product.k) as u64;
        let order = machine.launch.options.mma_order;
        vectorised(
            #[inline(always)]
            || match (integer, product.k) {
                (true, _) => product.integers(r),
                (false, 16) => product.floats::<16>(r, order),
                (false, 8) => product.floats::<8>(r, order),
                _ => product.floats::<4>(r, order),
            },
        );
        Ok(())
    });
    Ok((Class::Matrix, Action::Converged { members, aligned: true, run }))
}

impl Product {
    /// Row and first column of register `j` of A in a lane; column and first row for B.
    #[inline(always)]
    fn place(lane: usize, j: usize, packed: usize, rows: usize) -> (usize, usize) {
        (lane / 4 + 8 * (j % rows), lane % 4 * packed + 4 * packed * (j / rows))
    }

    #[inline(always)]
    fn floats<const K: usize>(&self, r: &mut Registers, order: MmaOrder) {
        let packed = self.elements[0].packed();
        let mut a = [[0f32; K]; 16];
        let mut b = [[0f32; N]; K];
        for (j, row) in self.a.iter().enumerate() {
            let words = r.row::<u32>(*row);
            for (lane, word) in words.iter().enumerate() {
                let (m, k) = Self::place(lane, j, packed, 2);
                for i in 0..packed {
                    a[m][k + i] = self.elements[0].float(*word, i);
                }
            }
        }
        for (j, row) in self.b.iter().enumerate() {
            let words = r.row::<u32>(*row);
            for (lane, word) in words.iter().enumerate() {
                let (n, k) = Self::place(lane, j, packed, 1);
                for i in 0..packed {
                    b[k + i][n] = self.elements[1].float(*word, i);
                }
            }
        }
        let mut sums = self.accumulators(r);
        for (m, sum) in sums.iter_mut().enumerate() {
            *sum = dot(&a[m], &b, sum, order);
        }
        self.write(r, &sums);
    }

    fn accumulators(&self, r: &Registers) -> [[f32; N]; 16] {
        let mut sums = [[0f32; N]; 16];
        for (j, row) in self.c.iter().enumerate() {
            for (lane, word) in r.row::<u32>(*row).iter().enumerate() {
                let n = lane % 4 * 2;
                if self.half_sums[0] {
                    let m = lane / 4 + 8 * j;
                    sums[m][n] = Element::Half.float(*word, 0);
                    sums[m][n + 1] = Element::Half.float(*word, 1);
                } else {
                    sums[lane / 4 + 8 * (j / 2)][n + j % 2] = f32::from_bits(*word);
                }
            }
        }
        sums
    }

    fn write(&self, r: &mut Registers, sums: &[[f32; N]; 16]) {
        for (j, row) in self.d.iter().enumerate() {
            let out: Row<u32> = std::array::from_fn(|lane| {
                let n = lane % 4 * 2;
                if self.half_sums[1] {
                    let m = lane / 4 + 8 * j;
                    u32::from(half_bits(sums[m][n]).to_bits())
                        | u32::from(half_bits(sums[m][n + 1]).to_bits()) << 16
                } else {
                    canonical(sums[lane / 4 + 8 * (j / 2)][n + j % 2]).to_bits()
                }
            });
            r.put(*row, &out, FULL);
        }
    }

    fn integers(&self, r: &mut Registers) {
        let rows = self.m / 8;
        let mut a = [[0i32; 32]; 16];
        let mut b = [[0i32; N]; 32];
        for (j, row) in self.a.iter().enumerate() {
            for (lane, word) in r.row::<u32>(*row).iter().enumerate() {
                let (m, k) = Self::place(lane, j, 4, rows);
                for i in 0..4 {
                    a[m][k + i] = self.elements[0].integer(*word, i);
                }
            }
        }
        for (j, row) in self.b.iter().enumerate() {
            for (lane, word) in r.row::<u32>(*row).iter().enumerate() {
                let (n, k) = Self::place(lane, j, 4, 1);
                for i in 0..4 {
                    b[k + i][n] = self.elements[1].integer(*word, i);
                }
            }
        }
        let mut out = vec![[0u32; 32]; self.d.len()];
        for (j, out) in out.iter_mut().enumerate() {
            for (lane, o) in out.iter_mut().enumerate() {
                let (m, n) = (lane / 4 + 8 * (j / 2), lane % 4 * 2 + j % 2);
                let c = i64::from(r.row::<u32>(self.c[j])[lane] as i32);
                let sum = (0..self.k).fold(c, |sum, k| sum + i64::from(a[m][k] * b[k][n]));
                let clamped = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                *o = (if self.clamp { clamped } else { sum }) as u32;
            }
        }
        for (row, out) in self.d.iter().zip(&out) {
            r.put(*row, out, FULL);
        }
    }
}

/// One row of the product plus `c`, added in the given order.
#[inline(always)]
fn dot<const K: usize>(a: &[f32; K], b: &[[f32; N]; K], c: &[f32; N], order: MmaOrder) -> [f32; N] {
    let mut sum = *c;
    match order {
        MmaOrder::Ascending => {
            for k in 0..K {
                for n in 0..N {
                    sum[n] += a[k] * b[k][n];
                }
            }
        }
        MmaOrder::Descending => {
            let mut part = [0f32; N];
            for k in (0..K).rev() {
                for n in 0..N {
                    part[n] += a[k] * b[k][n];
                }
            }
            for n in 0..N {
                sum[n] += part[n];
            }
        }
        MmaOrder::Pairwise => {
            let mut parts = [[0f32; N]; K];
            for k in 0..K {
                for n in 0..N {
                    parts[k][n] = a[k] * b[k][n];
                }
            }
            let mut width = K / 2;
            while width > 0 {
                for k in 0..width {
                    for n in 0..N {
                        parts[k][n] = parts[2 * k][n] + parts[2 * k + 1][n];
                    }
                }
                width /= 2;
            }
            for n in 0..N {
                sum[n] += parts[0][n];
            }
        }
        MmaOrder::Truncated => {
            for group in 0..K / 4 {
                for n in 0..N {
                    let exact = (group * 4..group * 4 + 4)
                        .fold(f64::from(sum[n]), |s, k| s + f64::from(a[k]) * f64::from(b[k][n]));
                    sum[n] = narrow(exact, Rounding::Zero);
                }
            }
        }
    }
    sum
}
