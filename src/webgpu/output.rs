//! Results on their way into the caller's buffers.
//!
//! Kernels write whole 32-bit words. A 16-bit result shares its word with a neighbour, perhaps a stranger's, and a
//! caller's buffer may be an input too, which WebGPU does not let one pass both read and write. Such results go to
//! scratch memory first and are packed or copied from there.

use crate::element::Scalar;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::webgpu::Wgpu;
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::{Kernel, Slot};

/// How 32-bit results are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// As they are.
    Word,
    /// Rounded to the nearest, ties to even.
    F16,
    Bf16,
    /// The lower bits.
    U8,
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
            name: "pack_output",
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
    /// What the kernel binds; `base` counts from there.
    pub(crate) binding: Binding,
    /// Where the results go afterwards, if not there already.
    target: Option<Binding>,
    packing: Packing,
    /// How many results there are.
    length: usize,
}

impl Wgpu {
    /// Prepares the first `length` elements of `out` for a kernel that reads `inputs`.
    pub(crate) fn output<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        out: &ViewMut<'_, WgpuMemory, T>,
        length: usize,
        inputs: &[&wgpu::Buffer],
    ) -> Result<Output> {
        let view = Region::of_mut(out).rows(0, length, 1);
        let packing = Packing::of::<T>();
        let shared = inputs.contains(&view.buffer);
        let target = self.bind(operation, argument, &view)?;
        if packing == Packing::Word && !shared {
            return Ok(Output { operation, binding: target, target: None, packing, length });
        }
        let binding = self.scratch(operation, length as u64)?;
        Ok(Output { operation, binding, target: Some(target), packing, length })
    }

    /// For outputs that are read too: brings what the caller has into the scratch memory, if there is some.
    pub(crate) fn fetch(&self, output: &Output) -> Result<()> {
        let Some(target) = output.target.as_ref().filter(|_| output.length > 0) else {
            return Ok(());
        };
        let bytes = output.length as u64 * 4;
        super::device::scoped(&self.shared.device, output.operation, bytes, || {
            self.record(|encoder| {
                let from = target.offset + u64::from(target.base) * 4;
                let scratch = &output.binding.buffer;
                encoder.copy_buffer_to_buffer(&target.buffer, from, scratch, 0, Some(bytes));
            });
        })
    }

    /// Zeroes `words` words from a binding's first element on.
    pub(crate) fn clear(&self, operation: &'static str, binding: &Binding, words: usize) -> Result<()> {
        let (offset, bytes) = (binding.offset + u64::from(binding.base) * 4, words as u64 * 4);
        super::device::scoped(&self.shared.device, operation, bytes, || {
            self.record(|encoder| encoder.clear_buffer(&binding.buffer, offset, Some(bytes)));
        })
    }

    /// Brings the results where they belong.
    pub(crate) fn finish(&self, output: Output) -> Result<()> {
        let Output { operation, binding, target, packing, length } = output;
        let Some(target) = target.filter(|_| length > 0) else {
            return Ok(());
        };
        if packing == Packing::Word {
            let bytes = length as u64 * 4;
            return super::device::scoped(&self.shared.device, operation, bytes, || {
                self.record(|encoder| {
                    let offset = target.offset + u64::from(target.base) * 4;
                    encoder.copy_buffer_to_buffer(&binding.buffer, 0, &target.buffer, offset, Some(bytes));
                });
            });
        }
        let lanes = if packing == Packing::U8 { 4 } else { 2 };
        let words = (u64::from(target.base) + length as u64).div_ceil(lanes);
        let params = Params::default().u32s(&[target.base, length as u32, words as u32]);
        self.dispatch(&packing.kernel(), params, &[&binding, &target], words.div_ceil(64))
    }
}
