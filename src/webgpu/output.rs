//! Results that cannot be written directly to the caller's buffers.
//!
//! Kernels write whole 32-bit words. A 16-bit result shares its word with a neighbour, which may not belong to the output;
//! and the caller's buffer may also be an input, which WebGPU does not allow one pass to both read and write. Such results
//! are written to scratch memory, and packed or copied from there.

use std::ops::Range;

use crate::element::Scalar;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::recording::Command;
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::suspects::Access;

params! {
    /// Twin of the struct in shaders/shared/pack_output.wgsl.
    struct PackOutputParams {
        base: u32,
        length: u32,
        words: u32,
    }
}

/// How 32-bit results are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// Unchanged.
    Word,
    /// Rounded to nearest, ties to even.
    F16,
    /// As `F16`.
    Bf16,
    /// The lowest bits.
    U8,
    /// As `U8`.
    U16,
}

impl Packing {
    const ALL: [Self; 4] = [Self::F16, Self::Bf16, Self::U8, Self::U16];

    fn of<T: Scalar>() -> Self {
        match T::NAME {
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "u8" => Self::U8,
            "u16" => Self::U16,
            _ => Self::Word,
        }
    }

    fn kernel(self) -> Kernel {
        Kernel {
            name: "shared/pack_output",
            params: &PackOutputParams::BLOCK,
            threads: THREADS,
            sources: &[include_str!("../../shaders/shared/pack_output.wgsl")],
            constants: vec![("PACKING", self as u32), ("LANES", if self == Self::U8 { 4 } else { 2 })],
            slots: vec![Slot::plain("source", "u32"), Slot::write("packed", "u32")],
        }
    }
}

pub(crate) fn variants() -> Vec<Kernel> {
    Packing::ALL.into_iter().map(Packing::kernel).collect()
}

/// Where a kernel writes the 32-bit results of one output.
#[derive(Debug)]
pub(crate) struct Output {
    operation: &'static str,
    /// What the kernel writes.
    pub(crate) binding: Binding,
    /// Where the results are packed or copied to afterwards, if anywhere.
    target: Option<Binding>,
    packing: Packing,
    /// The number of results.
    length: usize,
}

impl Output {
    /// For outputs of which kernels use only these parts, of `bytes` bytes each; `keeps` is whether what the parts hold counts. Of an output that
    /// is a copy, all is read and written.
    pub(crate) fn uses_parts(&mut self, parts: &[u32], bytes: u64, keeps: bool) {
        let Some(start) = self.binding.bytes.first().map(|all| all.start) else { return };
        let part = |&part: &u32| start + u64::from(part) * bytes..start + (u64::from(part) + 1) * bytes;
        self.binding.bytes = parts.iter().map(part).collect();
        self.binding.keeps = keeps;
    }

    /// For outputs of which kernels keep some, or that they change.
    pub(crate) fn keeping(mut self) -> Self {
        self.binding.keeps = true;
        self
    }
}

impl Wgpu {
    /// Prepares the first `length` elements of `out` for a kernel that reads `inputs` and also writes `others`.
    pub(crate) fn output<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        out: &ViewMut<'_, WgpuMemory, T>,
        length: usize,
        inputs: &[&wgpu::Buffer],
        others: &[&Output],
    ) -> Result<Output> {
        let view = Region::of_mut(out).rows(0, length, 1);
        let packing = Packing::of::<T>();
        let target = self.bind(operation, argument, &view)?;
        // Bindings start at the device's alignment, so two outputs of one buffer may overlap where their elements do not.
        let shared =
            inputs.contains(&view.buffer) || others.iter().any(|other| other.binding.overlaps(&target));
        if packing == Packing::Word && !shared {
            return Ok(Output { operation, binding: target, target: None, packing, length });
        }
        let binding = self.scratch(operation, length as u64)?;
        Ok(Output { operation, binding, target: Some(target), packing, length })
    }

    /// Prepares rows of `width` elements of an output, if it is asked for; otherwise as [`output`](Self::output).
    pub(crate) fn output_of_rows<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        view: &mut Option<ViewMut<'_, WgpuMemory, T>>,
        (rows, width): (&Range<usize>, usize),
        inputs: &[&wgpu::Buffer],
        others: &[&Output],
    ) -> Result<Option<Output>> {
        let Some(view) = view else { return Ok(None) };
        let part = view.reborrow().slice(rows.start * width, rows.len() * width)?;
        Ok(Some(self.output(operation, argument, &part, part.len(), inputs, others)?))
    }

    /// Writes zeros to rows of an output, if it is asked for: rows in gaps between histories have gradients of zero.
    pub(crate) fn clear_rows<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        view: &mut Option<ViewMut<'_, WgpuMemory, T>>,
        rows: &[Range<usize>],
        width: usize,
    ) -> Result<()> {
        if view.is_none() || rows.is_empty() {
            return Ok(());
        }
        let most = self.rows_per_binding::<f32>(width).max(1);
        let parts = rows
            .iter()
            .flat_map(|gap| gap.clone().step_by(most).map(move |start| start..gap.end.min(start + most)));
        for part in parts {
            if let Some(out) = self.output_of_rows(operation, argument, view, (&part, width), &[], &[])? {
                self.clear(operation, &out.binding, part.len() * width);
                self.finish(out)?;
            }
        }
        Ok(())
    }

    /// For outputs that are also read: copies the caller's data to the scratch memory, if the output has some.
    pub(crate) fn fetch(&self, output: &Output) {
        let Some(target) = output.target.as_ref().filter(|_| output.length > 0) else {
            return;
        };
        let bytes = output.length as u64 * 4;
        let from_offset = target.offset + u64::from(target.base) * 4;
        let (from, to) = (target.buffer.clone(), output.binding.buffer.clone());
        // What the call neither keeps nor writes is nobody's result.
        let read = target.bytes.iter().filter(|_| output.binding.keeps).cloned();
        let accesses = Access::read(&from, read).collect();
        self.record(output.operation, Command::Copy { from, from_offset, to, to_offset: 0, bytes, accesses });
    }

    /// Packs or copies the results to the caller's buffer.
    pub(crate) fn finish(&self, output: Output) -> Result<()> {
        let Output { operation, binding, target, packing, length } = output;
        let Some(target) = target.filter(|_| length > 0) else {
            return Ok(());
        };
        if packing == Packing::Word {
            let bytes = length as u64 * 4;
            let to_offset = target.offset + u64::from(target.base) * 4;
            let (from, to) = (binding.buffer.clone(), target.buffer);
            let accesses = Access::write(&to, target.bytes).collect();
            self.record(operation, Command::Copy { from, from_offset: 0, to, to_offset, bytes, accesses });
            self.give_back(&binding.buffer);
            return Ok(());
        }
        let lanes = if packing == Packing::U8 { 4 } else { 2 };
        let words = (u64::from(target.base) + length as u64).div_ceil(lanes);
        let params = PackOutputParams { base: target.base, length: length as u32, words: words as u32 };
        self.dispatch(
            operation,
            &packing.kernel(),
            &params,
            &[&binding, &target],
            groups_of(words as usize),
        )?;
        self.give_back(&binding.buffer);
        Ok(())
    }
}
