//! Pipelines, compiled at the first use of a variant and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::gpu::lock;
use crate::webgpu::faults::Reports;
use crate::webgpu::scope::Scopes;
use crate::webgpu::shader::Kernel;

/// Rewrites the text of a kernel, given its name.
pub(crate) type Edit = dyn Fn(&str, String) -> String + Send + Sync;

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// Pipelines by the key of their kernel.
#[derive(Debug, Default)]
pub(crate) struct Pipelines(Mutex<HashMap<String, Arc<Pipeline>>>);

impl Pipelines {
    /// The keys of those that are compiled, in alphabetical order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = lock(&self.0).keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// The pipeline of a kernel. Two threads that miss at the same time both compile it; the first to finish is kept.
    pub(crate) fn get_or_compile(
        &self,
        scopes: &Scopes,
        owner: &Arc<Reports>,
        operation: &'static str,
        kernel: &Kernel,
        edit: Option<&Edit>,
    ) -> Result<Arc<Pipeline>> {
        let key = kernel.key();
        if let Some(pipeline) = lock(&self.0).get(&key) {
            return Ok(pipeline.clone());
        }
        let text = edit.map_or_else(|| kernel.text(), |edit| edit(kernel.name, kernel.text()));
        let made = Arc::new(
            scopes.run(operation, 0, &[owner], || Pipeline::compile(scopes.device(), kernel, text))?,
        );
        Ok(lock(&self.0).entry(key).or_insert(made).clone())
    }
}

impl Pipeline {
    fn compile(device: &wgpu::Device, kernel: &Kernel, text: String) -> Self {
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
        let uniform = entry(0, wgpu::BufferBindingType::Uniform);
        let storage = kernel.slots.iter().enumerate().map(|(index, slot)| {
            entry(index + 1, wgpu::BufferBindingType::Storage { read_only: !slot.write })
        });
        let entries: Vec<_> = std::iter::once(uniform).chain(storage).collect();
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
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Self { pipeline, layout }
    }
}
