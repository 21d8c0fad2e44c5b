//! Signatures: computed from projections, or given by the caller, for rows or for their items.

use crate::cpu::sdim::items::Items;
use crate::cpu::vector::{LANES, Lanes, Row, product};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ops::{Hash, Sdim};

/// The signatures of rows, computed or copied one block at a time.
pub(super) struct Signatures<'a> {
    pub(super) op: Sdim,
    source: Source<'a>,
    /// The row that the first signature is of, where signatures are not computed here.
    first: usize,
}

enum Source<'a> {
    /// `[⌈G·τ/LANES⌉, d]`: lane `c`, counted over all vectors, is bit `c / G` of group `c mod G`, so that the same bit of
    /// all groups is a run of lanes.
    Rotations(Vec<Row>),
    Given8(&'a [u8]),
    Given16(&'a [u16]),
    Items8(Items<'a, u8>),
    Items16(Items<'a, u16>),
    Computed(&'a [u32]),
}

impl<'a> Signatures<'a> {
    /// Signatures computed with rotations `[d, G, τ]`.
    pub(super) fn from_rotations(op: &Sdim, rotations: &[f32]) -> Self {
        let functions = op.groups * op.bits;
        let mut columns = vec![[0.0; LANES]; functions.div_ceil(LANES) * op.width];
        for (c, function) in (0..functions).map(|c| c % op.groups * op.bits + c / op.groups).enumerate() {
            let lanes = columns[c / LANES * op.width..].iter_mut().zip(rotations.chunks_exact(functions));
            lanes.for_each(|(column, rotations)| column[c % LANES] = rotations[function]);
        }
        Self { op: *op, source: Source::Rotations(columns), first: 0 }
    }

    /// Signatures `[rows, G]` that were computed before.
    pub(super) fn computed(op: &Sdim, signatures: &'a [u32]) -> Self {
        Self { op: *op, source: Source::Computed(signatures), first: 0 }
    }

    /// Signatures of rows from `first` on that were computed before.
    pub(super) fn kept(op: &Sdim, signatures: &'a [u16], first: usize) -> Self {
        Self { op: *op, source: Source::Given16(signatures), first }
    }

    /// Whether signatures are computed from rows.
    pub(super) fn reads_rows(&self) -> bool {
        matches!(self.source, Source::Rotations(_))
    }

    /// The signatures of `count` rows. Given signatures and ids of items are checked.
    pub(super) fn new(
        operation: &'static str,
        op: &Sdim,
        count: usize,
        hash: &Hash<'a, Host>,
    ) -> Result<Self> {
        let used = count * op.groups;
        let (source, outside) = match hash {
            Hash::Rotations(rotations) => return Ok(Self::from_rotations(op, rotations)),
            Hash::Items8 { signatures, ids } => {
                let items = Items::new(operation, op, signatures.as_slice(), &ids.as_slice()[..count])?;
                (Source::Items8(items), items.first_outside(op))
            }
            Hash::Items16 { signatures, ids } => {
                let items = Items::new(operation, op, signatures.as_slice(), &ids.as_slice()[..count])?;
                (Source::Items16(items), items.first_outside(op))
            }
            Hash::Signatures8(given) => {
                let given = &given.as_slice()[..used];
                (Source::Given8(given), first_outside(op, given))
            }
            Hash::Signatures16(given) => {
                let given = &given.as_slice()[..used];
                (Source::Given16(given), first_outside(op, given))
            }
        };
        match outside {
            None => Ok(Self { op: *op, source, first: 0 }),
            Some((position, signature)) => Err(Error::IndexOutOfRange {
                operation,
                argument: "signatures",
                position: position as u64,
                id: signature.into(),
                bound: op.buckets() as u64,
            }),
        }
    }

    /// Writes the signatures `[n, G]` of `n` rows `[n, d]`, of which the first is row `first` of all rows. Given
    /// signatures need no rows. `scratch` holds the projections.
    #[inline(always)]
    pub(super) fn fill<L: Lanes>(
        &self,
        l: L,
        first: usize,
        rows: &[f32],
        scratch: &mut Vec<Row>,
        out: &mut [u32],
    ) {
        let Sdim { width, groups, bits, .. } = self.op;
        match &self.source {
            Source::Rotations(columns) => {
                let count = out.len() / groups;
                let vectors = columns.len() / width;
                scratch.resize(count * vectors, [0.0; LANES]);
                for (vector, columns) in columns.chunks_exact(width).enumerate() {
                    let store = |i, projections| l.store(&mut scratch[i * vectors + vector], projections);
                    product(l, rows, width, count, columns, store);
                }
                for (projections, out) in scratch.chunks_exact(vectors).zip(out.chunks_exact_mut(groups)) {
                    if groups.is_multiple_of(LANES) {
                        signs(l, projections, groups / LANES, bits, out);
                    } else {
                        signs_between_lanes(projections, groups, bits, out);
                    }
                }
            }
            _ => self.copy_given(first, out),
        }
    }

    /// As [`fill`](Self::fill), for signatures that are not computed here; others are not written.
    #[inline(always)]
    pub(super) fn copy_given(&self, first: usize, out: &mut [u32]) {
        let groups = self.op.groups;
        match &self.source {
            Source::Rotations(_) => {}
            Source::Given8(given) => copy(&given[(first - self.first) * groups..], out),
            Source::Given16(given) => copy(&given[(first - self.first) * groups..], out),
            Source::Items8(items) => items.fill(groups, first, out),
            Source::Items16(items) => items.fill(groups, first, out),
            Source::Computed(signatures) => copy(&signatures[(first - self.first) * groups..], out),
        }
    }
}

/// The signatures of a row from its projections, where the same bit of all groups is `vectors` whole vectors.
#[inline(always)]
fn signs<L: Lanes>(l: L, projections: &[Row], vectors: usize, bits: usize, out: &mut [u32]) {
    // The lowest bits of a sum of this and a smaller whole number are that number.
    const WHOLE: f32 = (1 << 23) as f32;
    let zero = l.splat(0.0);
    for (vector, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let (mut sum, mut power) = (l.splat(WHOLE), 1.0);
        for projections in projections[vector..].iter().step_by(vectors).take(bits) {
            sum = l.add(sum, l.if_less(zero, l.load(projections), l.splat(power), zero));
            power *= 2.0;
        }
        let mut numbers = [0.0; LANES];
        l.store(&mut numbers, sum);
        out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number.to_bits() & 0xffff);
    }
}

/// The same, where the bits of a group are anywhere in the vectors.
#[inline(always)]
fn signs_between_lanes(projections: &[Row], groups: usize, bits: usize, out: &mut [u32]) {
    out.fill(0);
    let projections = projections.as_flattened().chunks_exact(groups).take(bits);
    for (t, projections) in projections.enumerate() {
        let bit = 1 << t;
        for (signature, &projection) in out.iter_mut().zip(projections) {
            *signature |= if projection > 0.0 { bit } else { 0 };
        }
    }
}

/// Copies given signatures as `u32`.
#[inline(always)]
fn copy<W: Copy + Into<u32>>(given: &[W], out: &mut [u32]) {
    out.iter_mut().zip(given).for_each(|(out, &signature)| *out = signature.into());
}

/// The position and value of the first signature outside the buckets.
fn first_outside<W: Copy + Ord + Into<u32>>(op: &Sdim, signatures: &[W]) -> Option<(usize, u32)> {
    let outside = |signature: W| signature.into() as usize >= op.buckets();
    // Finding the largest signature is many times faster than finding the first one outside.
    if !signatures.iter().copied().max().is_some_and(outside) {
        return None;
    }
    signatures.iter().position(|&signature| outside(signature)).map(|i| (i, signatures[i].into()))
}
