//! scratch
use longseq::*;
const TEXT: &str = r"
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4<f32>>;
const N = 512u;
@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * 4u; let col = id.x;
    var s0 = vec4<f32>(); var s1 = vec4<f32>(); var s2 = vec4<f32>(); var s3 = vec4<f32>();
    for (var k = 0u; k < N / 4u; k++) {
        let a0 = a[(row + 0u) * (N/4u) + k]; let a1 = a[(row + 1u) * (N/4u) + k];
        let a2 = a[(row + 2u) * (N/4u) + k]; let a3 = a[(row + 3u) * (N/4u) + k];
        let b0 = b[(4u*k + 0u) * (N/4u) + col]; let b1 = b[(4u*k + 1u) * (N/4u) + col];
        let b2 = b[(4u*k + 2u) * (N/4u) + col]; let b3 = b[(4u*k + 3u) * (N/4u) + col];
        s0 += a0.x * b0 + a0.y * b1 + a0.z * b2 + a0.w * b3;
        s1 += a1.x * b0 + a1.y * b1 + a1.z * b2 + a1.w * b3;
        s2 += a2.x * b0 + a2.y * b1 + a2.z * b2 + a2.w * b3;
        s3 += a3.x * b0 + a3.y * b1 + a3.z * b2 + a3.w * b3;
    }
    c[(row + 0u) * (N/4u) + col] = s0; c[(row + 1u) * (N/4u) + col] = s1;
    c[(row + 2u) * (N/4u) + col] = s2; c[(row + 3u) * (N/4u) + col] = s3;
}";
fn cpu() -> f64 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|e| {
            std::fs::read_to_string(e.unwrap().path().join("schedstat"))
                .unwrap_or_default()
                .split(' ')
                .next()
                .unwrap_or("0")
                .parse::<f64>()
                .unwrap_or(0.0)
        })
        .sum::<f64>()
        / 1e6
}
fn main() {
    let adapter = std::env::var("ADAPTER").unwrap_or("llvmpipe".into());
    let gpu = Wgpu::with_options(&webgpu::WgpuOptions::default().with_adapter(adapter)).unwrap();
    let device = gpu.wgpu_device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(TEXT.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let n = 512 * 512;
    let data: Vec<f32> = (0..n).map(|i| ((i * 7919 % 10007) as f32) / 5003.0 - 1.0).collect();
    let (a, b, c) = (gpu.upload(&data).unwrap(), gpu.upload(&data).unwrap(), gpu.zeros::<f32>(n).unwrap());
    let entries: Vec<_> = [&a, &b, &c]
        .iter()
        .enumerate()
        .map(|(i, x)| wgpu::BindGroupEntry { binding: i as u32, resource: x.buffer().as_entire_binding() })
        .collect();
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    let once = || {
        let (t, c) = (std::time::Instant::now(), cpu());
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(8, 8, 1);
        }
        gpu.wgpu_queue().submit([encoder.finish()]);
        gpu.synchronize().unwrap();
        (t.elapsed().as_secs_f64() * 1e3, cpu() - c)
    };
    once();
    let (mut t, mut c): (Vec<f64>, Vec<f64>) = (0..25).map(|_| once()).unzip();
    t.sort_by(f64::total_cmp);
    c.sort_by(f64::total_cmp);
    let flop = 2.0 * 512f64.powi(3);
    println!(
        "matmul wall min {:.2} median {:.2} | cpu min {:.2} median {:.2} ms = {:.2} GFLOP/s/core",
        t[0],
        t[t.len() / 2],
        c[0],
        c[c.len() / 2],
        flop / c[c.len() / 2] / 1e6
    );
}
