//! Signatures of rows from those of their items, in scratch memory.

use std::ops::Range;

use crate::element::Scalar;
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::memory::View;
use crate::ops::Sdim;
use crate::webgpu::binding::Binding;
use crate::webgpu::faults::Report;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/sdim/item_signatures.wgsl.
    struct SdimItemSignaturesParams {
        threads: u32,
        hash_groups: u32,
        buckets: u32,
        ids_base: u32,
        signatures_base: u32,
        first_item: u32,
        items: u32,
    }
}

fn kernel(bits: u32) -> Kernel {
    Kernel {
        name: "sdim/item_signatures",
        params: &SdimItemSignaturesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/item_signatures.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::words("signatures", bits),
            Slot::plain("ids", "u32"),
            Slot::write("out", "u32"),
            Slot::write("report", "atomic<u32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [8, 16].map(kernel).to_vec()
}

/// The items of rows, and the signatures of items. What is wrong with these is reported once all rows are gathered.
pub(super) struct Items<'a> {
    operation: &'static str,
    ids: Region<'a, u32>,
    /// The size of a signature.
    bits: u32,
    windows: Vec<Window>,
}

/// As many items as the device binds at a time.
struct Window {
    items: Range<usize>,
    signatures: Binding,
    report: Report,
}

impl<'a> Items<'a> {
    /// Signatures `[items, G]`, and the items of `count` rows or more. Makes the next wait fail for the first of the `count` ids that has no
    /// item.
    pub(super) fn new<W: Scalar>(
        gpu: &Wgpu,
        operation: &'static str,
        op: &Sdim,
        count: usize,
        (signatures, ids): (View<'a, WgpuMemory, W>, View<'a, WgpuMemory, u32>),
    ) -> Result<Self> {
        let (signatures, ids) = (Region::of(signatures), Region::of(ids));
        let items = signatures.length / op.groups;
        gpu.check_words(operation, "ids", ids, count, &[items])?;
        // Places are reported in 32 bits.
        fit(operation, "signatures", signatures.length)?;
        // Where not even one item fits a binding, the binding of one is the error.
        let most = gpu.rows_per_binding::<W>(op.groups).max(1);
        let window = |first: usize| {
            let items = first..items.min(first + most);
            let own = signatures.rows(first, items.len(), op.groups);
            let bound = Bound::Columns(vec![op.buckets() as u64]);
            Ok(Window {
                items,
                signatures: gpu.bind(operation, "signatures", &own)?,
                report: gpu.report(operation, "signatures", bound)?,
            })
        };
        let windows = if count == 0 { 0..0 } else { 0..items };
        let windows = windows.step_by(most).map(window).collect::<Result<_>>()?;
        Ok(Self { operation, ids, bits: 8 * size_of::<W>() as u32, windows })
    }

    /// Gathers the signatures of `count` rows from row `first` on, in words of 32 bits.
    pub(super) fn gather(&self, gpu: &Wgpu, op: &Sdim, (first, count): (usize, usize)) -> Result<Binding> {
        let Self { operation, ids, bits, windows } = self;
        let out = gpu.scratch(operation, (count * op.groups) as u64)?;
        let ids = gpu.bind(operation, "ids", &ids.rows(first, count, 1))?;
        for Window { items, signatures, report } in windows {
            let params = SdimItemSignaturesParams {
                threads: fit(operation, "signatures of the rows", count * op.groups)?,
                hash_groups: op.groups as u32,
                buckets: op.buckets() as u32,
                ids_base: ids.base,
                signatures_base: signatures.base,
                first_item: items.start as u32,
                items: items.len() as u32,
            };
            let bindings = [signatures, &ids, &out, &report.binding];
            gpu.dispatch(operation, &kernel(*bits), &params, &bindings, groups_of(count * op.groups))?;
        }
        Ok(out)
    }

    /// Makes the next wait fail for the first signature of too many bits that was gathered.
    pub(super) fn finish(self, gpu: &Wgpu, op: &Sdim) -> Result<()> {
        for Window { items, signatures, report } in self.windows {
            // Reported places count from the first of all items.
            let base = signatures.base.wrapping_sub((items.start * op.groups) as u32);
            gpu.fetch_word(&Binding { base, ..signatures }, self.bits, report)?;
        }
        Ok(())
    }
}
