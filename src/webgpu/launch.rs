//! Pipelines, made once per variant, and the recording of passes into one submission.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::gpu::{lock, trace};
use crate::webgpu::Wgpu;
use crate::webgpu::device::scoped;
use crate::webgpu::memory::Region;
use crate::webgpu::shader::Kernel;

/// Passes recorded before they are submitted without being asked: enough to hide the cost of a submission, few
/// enough that the device starts early.
const PASSES_PER_SUBMISSION: usize = 256;

#[derive(Debug)]
pub(crate) struct Pipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

#[derive(Debug, Default)]
pub(crate) struct Recording {
    encoder: Option<wgpu::CommandEncoder>,
    passes: usize,
}

/// A part of a buffer as a pass binds it.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// The first element's index: bindings begin at multiples of the device's alignment, views anywhere.
    pub(crate) base: u32,
}

/// Numbers and factors for the uniform buffer, in the order of the kernel's `Params`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<u32>);

impl Params {
    pub(crate) fn u32s(mut self, values: &[u32]) -> Self {
        self.0.extend_from_slice(values);
        self
    }

    pub(crate) fn f32s(mut self, values: &[f32]) -> Self {
        self.0.extend(values.iter().map(|value| value.to_bits()));
        self
    }
}

impl Wgpu {
    /// Binds a view.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device binds only smaller buffers.
    pub(crate) fn bind<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        view: &Region<'_, T>,
    ) -> Result<Binding> {
        if view.length == 0 {
            return Ok(self.nothing());
        }
        let alignment = u64::from(self.limits().min_storage_buffer_offset_alignment);
        let offset = view.offset / alignment * alignment;
        let size = (view.offset + view.bytes() - offset).next_multiple_of(4);
        let limit = self.limits().max_storage_buffer_binding_size;
        if size > limit {
            return Err(Error::Limit { operation, argument, needed: size, limit });
        }
        let base = ((view.offset - offset) / size_of::<T>() as u64) as u32;
        Ok(Binding { buffer: view.buffer.clone(), offset, size, base })
    }

    /// A binding for an input that is not there.
    pub(crate) fn nothing(&self) -> Binding {
        let buffer = self.shared.nothing.clone();
        let size = buffer.size();
        Binding { buffer, offset: 0, size, base: 0 }
    }

    /// A binding for an output that is not there. One pass may not bind the same words twice to write.
    pub(crate) fn no_output(&self, operation: &'static str) -> Result<Binding> {
        self.scratch(operation, 4)
    }

    /// Memory for results in between, of `words` 4-byte words. Its content is zero.
    pub(crate) fn scratch(&self, operation: &'static str, words: u64) -> Result<Binding> {
        let size = words.saturating_mul(4).next_multiple_of(16).max(16);
        let limit = self.limits().max_storage_buffer_binding_size.min(self.limits().max_buffer_size);
        if size > limit {
            return Err(Error::Limit { operation, argument: "scratch memory", needed: size, limit });
        }
        let buffer = self.allocate(operation, size)?;
        Ok(Binding { buffer, offset: 0, size, base: 0 })
    }

    fn pipeline(&self, kernel: &Kernel) -> Result<Arc<Pipeline>> {
        let key = kernel.key();
        if let Some(pipeline) = lock(&self.shared.pipelines).get(&key) {
            return Ok(pipeline.clone());
        }
        let text =
            self.shared.edit.as_ref().map_or_else(|| kernel.text(), |edit| edit(kernel.name, kernel.text()));
        let device = &self.shared.device;
        let made = scoped(device, kernel.name, 0, || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(kernel.name),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            });
            let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            };
            let storage = kernel.slots.iter().enumerate().map(|(index, slot)| {
                entry(index + 1, wgpu::BufferBindingType::Storage { read_only: !slot.write })
            });
            let entries: Vec<_> =
                std::iter::once(entry(0, wgpu::BufferBindingType::Uniform)).chain(storage).collect();
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(kernel.name),
                entries: &entries,
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel.name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: None,
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel writes its workgroup memory before it reads it; a poisoned one shows in the tests.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Pipeline { pipeline, layout }
        })?;
        let made = Arc::new(made);
        Ok(lock(&self.shared.pipelines).entry(key).or_insert(made).clone())
    }

    /// Records one dispatch of `groups` workgroups. `bindings` follow the kernel's slots.
    pub(crate) fn dispatch(
        &self,
        kernel: &Kernel,
        params: Params,
        bindings: &[&Binding],
        groups: u64,
    ) -> Result<()> {
        if groups == 0 {
            return Ok(());
        }
        trace(|| format!("{}: {groups} workgroups", kernel.key()));
        let pipeline = self.pipeline(kernel)?;
        let most = u64::from(self.limits().max_compute_workgroups_per_dimension);
        let (width, height) = (groups.min(most), groups.div_ceil(groups.min(most)));
        if height > most {
            let limit = most * most;
            return Err(Error::Limit {
                operation: kernel.name,
                argument: "workgroups",
                needed: groups,
                limit,
            });
        }
        let mut words = vec![groups as u32, width as u32];
        words.extend_from_slice(&params.0);
        let device = &self.shared.device;
        let group = scoped(device, kernel.name, 0, || {
            let size = (words.len() as u64 * 4).next_multiple_of(16);
            let uniform = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(kernel.name),
                size,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            words.resize(size as usize / 4, 0);
            self.shared.queue.write_buffer(&uniform, 0, bytemuck::cast_slice(&words));
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
        })?;
        // Only what the device took is recorded: anything else would spoil the submission for all calls that share it.
        scoped(device, kernel.name, 0, || {
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

    /// Adds to the submission being recorded.
    pub(crate) fn record(&self, add: impl FnOnce(&mut wgpu::CommandEncoder)) {
        let mut recording = lock(&self.shared.recording);
        let encoder = recording.encoder.get_or_insert_with(|| {
            let label = wgpu::CommandEncoderDescriptor { label: Some("longseq") };
            self.shared.device.create_command_encoder(&label)
        });
        add(encoder);
        recording.passes += 1;
        if recording.passes >= PASSES_PER_SUBMISSION {
            self.submit(recording);
        }
    }

    /// Submits what was recorded so far.
    pub(crate) fn submit_recorded(&self) -> Option<wgpu::SubmissionIndex> {
        self.submit(lock(&self.shared.recording))
    }

    fn submit(&self, mut recording: MutexGuard<'_, Recording>) -> Option<wgpu::SubmissionIndex> {
        recording.passes = 0;
        let encoder = recording.encoder.take()?;
        // Submitted under the lock: two threads' submissions keep the order of their recording.
        Some(self.shared.queue.submit([encoder.finish()]))
    }
}

/// Pipelines by the key of their kernel.
pub(crate) type Pipelines = Mutex<HashMap<String, Arc<Pipeline>>>;
