//! Hashing rows into words.

use std::ops::Range;

use crate::cpu::sdim::signatures::Signatures;
use crate::cpu::vector::{Instructions, Kernel, Lanes, WideRows};
use crate::ops::Sdim;

/// The number of rows that are hashed at a time.
pub(super) const ROWS: usize = 64;

/// Hashes some rows, or copies their given signatures.
pub(super) struct HashRows<'a> {
    pub(super) signatures: &'a Signatures<'a>,
    /// `[N, d]`; `None` where signatures are given.
    pub(super) rows: Option<WideRows<'a>>,
    pub(super) range: Range<usize>,
}

impl HashRows<'_> {
    /// Runs the kernel. Callers that depend on a storage type would compile it again.
    pub(super) fn run_with(self, instructions: Instructions) -> Vec<u32> {
        instructions.run(self)
    }
}

impl Kernel for HashRows<'_> {
    type Output = Vec<u32>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<u32> {
        let Sdim { width, groups, .. } = self.signatures.op;
        let mut out = vec![0; self.range.len() * groups];
        let (mut widened, mut projections) = (Vec::new(), Vec::new());
        for (first, out) in self.range.clone().step_by(ROWS).zip(out.chunks_mut(ROWS.saturating_mul(groups)))
        {
            let rows = first * width..first * width + out.len() / groups * width;
            let rows = self.rows.as_ref().map_or(&[][..], |all| all.widen(l, rows, &mut widened));
            self.signatures.fill(l, first, rows, &mut projections, out);
        }
        out
    }
}
