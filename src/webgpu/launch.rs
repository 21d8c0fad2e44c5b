//! Dispatches of kernels.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::trace;
use crate::jagged::Batch;
use crate::webgpu::binding::Binding;
use crate::webgpu::params::{Dispatch, Params};
use crate::webgpu::pipeline::Pipeline;
use crate::webgpu::recording::Command;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::{Shared, Wgpu};
use crate::webgpu::suspects::Access;
use crate::webgpu::tally::Asked;

/// Threads per workgroup of all kernels that process one element per thread.
pub(crate) const THREADS: u32 = 64;

/// The loop iterations that a thread may make, in all its loops together: some devices stop loops silently after 65,536, and
/// others stop kernels that run for seconds.
pub(crate) const MOST_ITERATIONS: usize = 60_000;

/// The vec4s or words of a row that a thread can go over in a step, or twice.
pub(crate) const MOST_STEPS_OF_ROW: usize = MOST_ITERATIONS / 2 - 4096;

/// Fails for rows too wide for a thread's loops.
pub(crate) fn check_width(operation: &'static str, width: usize, limit: usize) -> Result<()> {
    check_loops(operation, "width", width, limit)
}

/// Fails for more of something than a thread's loops can go over.
pub(crate) fn check_loops(
    operation: &'static str,
    argument: &'static str,
    needed: usize,
    limit: usize,
) -> Result<()> {
    if needed <= limit {
        return Ok(());
    }
    Err(Error::Limit { operation, argument, needed: needed as u64, limit: limit as u64 })
}

/// Bytes of partial results for which pieces are kept short.
const PARTIAL_BYTES: usize = 128 << 20;

/// The longest piece of a history, in behaviours: `wanted`, or twice as many and so on where the partial results of so many pieces
/// would take too much memory, up to `most`. A piece of a tile has `bytes` of them.
pub(crate) fn longest_piece(
    batch: &Batch,
    rows_per_target: usize,
    tile_rows: usize,
    bytes: usize,
    wanted: usize,
    most: usize,
) -> usize {
    let slots = |longest: usize| -> usize {
        let user = |(history, targets): (Range<usize>, Range<usize>)| match history.len().div_ceil(longest) {
            0 | 1 => 0,
            spans => spans * (targets.len() * rows_per_target).div_ceil(tile_rows),
        };
        batch.requests().map(user).sum()
    };
    let mut longest = wanted.clamp(1, most.max(1));
    while longest < most && slots(longest).saturating_mul(bytes) > PARTIAL_BYTES {
        longest = longest.saturating_mul(2).min(most);
    }
    longest
}

/// Workgroups for so many elements, one thread each.
pub(crate) fn groups_of(elements: usize) -> u64 {
    (elements as u64).div_ceil(THREADS.into())
}

/// Two bindings that a device may refuse to use together: bytes written through one and accessed through the other, or a buffer
/// that is read through one and written through the other. Browsers refuse the whole submission; `wgpu-core` misses the first.
fn aliased(kernel: &Kernel, bindings: &[&Binding]) -> Option<(usize, usize)> {
    let pairs = (0..bindings.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    pairs.into_iter().find(|&(a, b)| match (kernel.slots[a].write, kernel.slots[b].write) {
        (false, false) => false,
        (true, true) => bindings[a].overlaps(bindings[b]),
        _ => bindings[a].buffer == bindings[b].buffer,
    })
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
        debug_assert_eq!(
            aliased(kernel, bindings),
            None,
            "{operation}: {} writes what it also binds",
            kernel.name
        );
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
        let pipeline = self.pipeline(operation, kernel)?;
        let header = Dispatch { groups: groups as u32, grid_width: width as u32 };
        let mut bytes = [bytemuck::bytes_of(&header), bytemuck::bytes_of(params)].concat();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        // Only what the device accepts is recorded.
        let group = self.scoped(operation, 0, || self.bind_group(kernel, &pipeline, &bytes, bindings))?;
        let uses = kernel.slots.iter().zip(bindings);
        let accesses = uses.flat_map(|(slot, binding)| Access::of(binding, slot.write)).collect();
        let grid = [width as u32, height as u32];
        self.record(operation, Command::Dispatch { pipeline, group, grid, accesses });
        Ok(())
    }

    /// The pipeline of a kernel, compiled at the first use.
    pub(super) fn pipeline(&self, operation: &'static str, kernel: &Kernel) -> Result<Arc<Pipeline>> {
        let Shared { pipelines, scopes, edit, .. } = &*self.shared;
        pipelines.get_or_compile(scopes, &self.reports, operation, kernel, edit.as_deref())
    }

    /// The parameters, in a uniform buffer of their own, and the storage buffers.
    fn bind_group(
        &self,
        kernel: &Kernel,
        pipeline: &Pipeline,
        params: &[u8],
        bindings: &[&Binding],
    ) -> wgpu::BindGroup {
        let device = self.wgpu_device();
        self.shared.scopes.tally.add(Asked::Buffer);
        self.shared.scopes.tally.add(Asked::Upload);
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
