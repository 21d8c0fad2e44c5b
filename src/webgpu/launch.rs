//! Dispatches of kernels.

use crate::error::{Error, Result};
use crate::gpu::trace;
use crate::webgpu::binding::Binding;
use crate::webgpu::device::scoped;
use crate::webgpu::params::{Dispatch, Params};
use crate::webgpu::pipeline::Pipeline;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

/// Threads per workgroup of all kernels that process one element per thread.
pub(crate) const THREADS: u32 = 64;

/// Workgroups for so many elements, one thread each.
pub(crate) fn groups_of(elements: usize) -> u64 {
    (elements as u64).div_ceil(THREADS.into())
}

impl Wgpu {
    /// Records one dispatch of `groups` workgroups. `bindings` are in the order of the kernel's slots.
    pub(crate) fn dispatch<P: Params>(
        &self,
        operation: &'static str,
        kernel: &Kernel,
        params: &P,
        bindings: &[&Binding],
        groups: u64,
    ) -> Result<()> {
        debug_assert_eq!(P::BLOCK.name, kernel.params.name, "{} takes other parameters", kernel.name);
        if groups == 0 {
            return Ok(());
        }
        let most = u64::from(self.limits().max_compute_workgroups_per_dimension);
        let (width, height) = (groups.min(most), groups.div_ceil(groups.min(most)));
        if height > most {
            let limit = most * most;
            return Err(Error::Limit { operation, argument: "workgroups", needed: groups, limit });
        }
        trace(|| {
            let scratch: u64 =
                bindings.iter().filter(|binding| binding.is_scratch).map(|binding| binding.size).sum();
            let (key, file, threads) = (kernel.key(), kernel.file(), kernel.threads);
            format!(
                "{operation}: {key} ({file}): {groups} workgroups ({width} x {height}) of {threads} threads, \
                 {scratch} bytes of scratch"
            )
        });
        let device = &self.shared.device;
        let edit = self.shared.edit.as_deref();
        let pipeline = self.shared.pipelines.get_or_compile(device, operation, kernel, edit)?;
        let header = Dispatch { groups: groups as u32, grid_width: width as u32 };
        let mut bytes = [bytemuck::bytes_of(&header), bytemuck::bytes_of(params)].concat();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let group = scoped(device, operation, 0, || self.bind_group(kernel, &pipeline, &bytes, bindings))?;
        // Only what the device accepts is recorded: anything else would invalidate the submission for all calls in it.
        scoped(device, operation, 0, || {
            self.record(|encoder| {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(kernel.name),
                    timestamp_writes: None,
                });
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(width as u32, height as u32, 1);
            });
        })
    }

    /// The parameters, in a uniform buffer of their own, and the storage buffers.
    fn bind_group(
        &self,
        kernel: &Kernel,
        pipeline: &Pipeline,
        params: &[u8],
        bindings: &[&Binding],
    ) -> wgpu::BindGroup {
        let device = &self.shared.device;
        let uniform = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(kernel.name),
            size: params.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.shared.queue.write_buffer(&uniform, 0, params);
        let storage = bindings.iter().enumerate().map(|(index, binding)| wgpu::BindGroupEntry {
            binding: index as u32 + 1,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &binding.buffer,
                offset: binding.offset,
                size: std::num::NonZeroU64::new(binding.size),
            }),
        });
        let uniform = wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() };
        let entries: Vec<_> = std::iter::once(uniform).chain(storage).collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.layout,
            entries: &entries,
        })
    }
}
