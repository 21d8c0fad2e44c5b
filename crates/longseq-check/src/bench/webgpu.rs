//! A `wgpu` device, and its peak rates by two plain kernels: a copy, and fused multiply-adds.

use std::cell::OnceCell;
use std::time::Instant;

use longseq::prelude::*;

use longseq::{AnyBackend, Buffer, Error, Wgpu, wgpu};

use super::Device;
use crate::case::{Failure, Rules};
use crate::device::webgpu;

/// The device that the tests use too.
pub(super) struct Gpu {
    backend: Wgpu,
    /// The same, for the calls that are timed.
    any: AnyBackend,
    arithmetic: OnceCell<f64>,
}

impl Gpu {
    /// None where there is no adapter.
    pub(super) fn new() -> Option<Self> {
        webgpu::device().map(|backend| Self {
            any: backend.clone().into(),
            backend,
            arithmetic: OnceCell::new(),
        })
    }

    /// Seconds of the fastest of many runs of a kernel, each submitted and waited for like the calls that are timed.
    fn seconds(&self, kernel: &str, buffers: &[&wgpu::Buffer], groups: u32) -> Result<f64, Failure> {
        let device = self.backend.wgpu_device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(include_str!("rates.wgsl").into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some(kernel),
            compilation_options: Default::default(),
            cache: None,
        });
        let entries: Vec<_> = buffers
            .iter()
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let (begin, mut fastest) = (Instant::now(), f64::INFINITY);
        while begin.elapsed().as_secs_f64() < 0.3 {
            let start = Instant::now();
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bindings, &[]);
            pass.dispatch_workgroups(groups, 1, 1);
            drop(pass);
            self.backend.wgpu_queue().submit([encoder.finish()]);
            self.backend.synchronize()?;
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        Ok(fastest)
    }

    fn floats(&self, count: usize) -> Result<Buffer<Wgpu, f32>, Error> {
        self.backend.zeros(count)
    }
}

impl Device for Gpu {
    fn name(&self) -> String {
        "wgpu".into()
    }

    fn backend(&self) -> &AnyBackend {
        &self.any
    }

    fn rules(&self) -> Rules {
        Rules::WGSL
    }

    fn largest_input(&self) -> u64 {
        self.backend.wgpu_device().limits().max_storage_buffer_binding_size
    }

    fn bandwidth(&self, footprint: u64) -> Result<f64, Failure> {
        /// Bytes that a workgroup copies: 256 invocations, a `vec4` each.
        const GROUP: u64 = 4096;
        // Within WebGPU's default limits: 128 MiB per binding, 65,535 workgroups.
        let groups = (footprint / 2).clamp(GROUP, 128 << 20) / GROUP;
        let bytes = groups * GROUP;
        let (from, to) = (self.floats(bytes as usize / 4)?, self.floats(bytes as usize / 4)?);
        let seconds = self.seconds("copy", &[from.buffer(), to.buffer()], groups as u32)?;
        Ok(2.0 * bytes as f64 / seconds)
    }

    fn arithmetic(&self) -> Result<f64, Failure> {
        if let Some(&rate) = self.arithmetic.get() {
            return Ok(rate);
        }
        // As in rates.wgsl: invocations, rounds, chains, lanes.
        let (groups, operations) = (1024, 2.0 * 64.0 * 512.0 * 8.0 * 4.0);
        let out = self.floats(groups as usize * 64 * 4)?;
        let seconds = self.seconds("multiply_add", &[out.buffer()], groups)?;
        Ok(*self.arithmetic.get_or_init(|| f64::from(groups) * operations / seconds))
    }
}
