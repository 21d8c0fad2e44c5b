//! Signatures: computed by hashing, or given by the caller, for rows or for their items.

use crate::element::{Element, Scalar, Signature};
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::{View, ViewMut};
use crate::ops::{Hash, Sdim};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::sdim::items::Items;
use crate::webgpu::sdim::loops::check_hashed;
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/sdim/signatures.wgsl.
    struct SdimSignaturesParams {
        threads: u32,
        width: u32,
        hash_groups: u32,
        bits: u32,
        rows_base: u32,
        rotations_base: u32,
        out_base: u32,
    }
}

fn signatures_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "sdim/signatures",
        params: &SdimSignaturesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/signatures.wgsl")],
        constants: vec![],
        slots: vec![Slot::read("rows", rows), Slot::plain("rotations", "f32"), Slot::write("out", "u32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.map(signatures_kernel).to_vec()
}

/// Signatures on the device.
pub(super) struct Codes {
    pub(super) binding: Binding,
    /// The size of a signature.
    pub(super) bits: u32,
}

impl Codes {
    /// The signatures of the first `count` rows, with what the call names these: computed, or given, for them or for their items, and then checked.
    pub(super) fn new<T: Element>(
        gpu: &Wgpu,
        operation: &'static str,
        op: &Sdim,
        count: usize,
        (name, rows): (&'static str, Option<View<'_, WgpuMemory, T>>),
        hash: &Hash<'_, WgpuMemory>,
    ) -> Result<Self> {
        match (hash, rows) {
            (Hash::Signatures8(words), _) => Self::given(gpu, operation, op, count, *words),
            (Hash::Signatures16(words), _) => Self::given(gpu, operation, op, count, *words),
            (Hash::Items8 { signatures, ids }, _) => {
                let items = Items::new(gpu, operation, op, count, (*signatures, *ids))?;
                Self::of_items(gpu, op, count, items)
            }
            (Hash::Items16 { signatures, ids }, _) => {
                let items = Items::new(gpu, operation, op, count, (*signatures, *ids))?;
                Self::of_items(gpu, op, count, items)
            }
            (Hash::Rotations(rotations), rows) => {
                let binding = gpu.scratch(operation, (count * op.groups) as u64)?;
                if let Some(rows) = rows {
                    let (rows, rotations) = (Region::of(rows), Region::of(*rotations));
                    compute(gpu, operation, op, count, (name, rows), rotations, &binding)?;
                }
                Ok(Self { binding, bits: 32 })
            }
        }
    }

    /// Those of the rows from `first` on.
    pub(super) fn rows_from(&self, op: &Sdim, first: usize) -> Self {
        let base = self.binding.base + (first * op.groups) as u32;
        Self { binding: Binding { base, ..self.binding.clone() }, bits: self.bits }
    }

    /// Those of the items of the first `count` rows.
    fn of_items(gpu: &Wgpu, op: &Sdim, count: usize, items: Items<'_>) -> Result<Self> {
        let binding = items.gather(gpu, op, (0, count))?;
        items.finish(gpu, op)?;
        Ok(Self { binding, bits: 32 })
    }

    fn given<W: Scalar>(
        gpu: &Wgpu,
        operation: &'static str,
        op: &Sdim,
        count: usize,
        words: View<'_, WgpuMemory, W>,
    ) -> Result<Self> {
        let words = Region::of(words);
        let used = count * op.groups;
        gpu.check_words(operation, "signatures", words, used, &[op.buckets()])?;
        let binding = gpu.bind(operation, "signatures", &words.rows(0, used, 1))?;
        Ok(Self { binding, bits: 8 * size_of::<W>() as u32 })
    }
}

/// The buffers that a hash reads.
pub(super) fn hash_buffers<'a>(hash: &Hash<'a, WgpuMemory>) -> Vec<&'a wgpu::Buffer> {
    match hash {
        Hash::Rotations(view) => vec![Region::of(*view).buffer],
        Hash::Signatures8(view) => vec![Region::of(*view).buffer],
        Hash::Signatures16(view) => vec![Region::of(*view).buffer],
        Hash::Items8 { signatures, ids } => vec![Region::of(*signatures).buffer, Region::of(*ids).buffer],
        Hash::Items16 { signatures, ids } => vec![Region::of(*signatures).buffer, Region::of(*ids).buffer],
    }
}

pub(super) fn signatures<T: Element, W: Signature>(
    gpu: &Wgpu,
    op: &Sdim,
    rows: View<'_, WgpuMemory, T>,
    rotations: View<'_, WgpuMemory, f32>,
    out: ViewMut<'_, WgpuMemory, W>,
) -> Result<()> {
    const NAME: &str = "sdim_signatures";
    let count = op.check_signatures(rows.len(), rotations.len())?;
    op.check_signatures_output::<W>(count, out.len())?;
    let (rows, rotations) = (Region::of(rows), Region::of(rotations));
    let out = gpu.output(NAME, "out", &out, count * op.groups, &[rows.buffer, rotations.buffer], &[])?;
    compute(gpu, NAME, op, count, ("rows", rows), rotations, &out.binding)?;
    gpu.finish(out)
}

fn compute<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    count: usize,
    (name, rows): (&'static str, Region<'_, T>),
    rotations: Region<'_, f32>,
    out: &Binding,
) -> Result<()> {
    check_hashed(operation, op)?;
    let rotations = gpu.bind(operation, "rotations", &rotations)?;
    // Where not even one row fits a binding, the binding of one is the error.
    let window = gpu.rows_per_binding::<T>(op.width).max(1);
    for first in (0..count).step_by(window) {
        let part = window.min(count - first);
        let rows = gpu.bind(operation, name, &rows.rows(first, part, op.width))?;
        let params = SdimSignaturesParams {
            threads: fit(operation, "out", part * op.groups)?,
            width: op.width as u32,
            hash_groups: op.groups as u32,
            bits: op.bits as u32,
            rows_base: rows.base,
            rotations_base: rotations.base,
            out_base: out.base + (first * op.groups) as u32,
        };
        let kernel = signatures_kernel(rows.format_of_rows::<T>(op.width));
        let bindings = [&rows, &rotations, out];
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(part * op.groups))?;
    }
    Ok(())
}
