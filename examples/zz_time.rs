//! scratch
use longseq::*;
use std::time::Instant;
fn main() {
    let adapter = std::env::var("ADAPTER").unwrap_or("llvmpipe".into());
    let options = webgpu::WgpuOptions::default().with_adapter(adapter);
    let gpu = Wgpu::with_options(&options).unwrap();
    let gpu = match std::env::var("SHADERS") {
        Err(_) => gpu,
        Ok(folder) => Wgpu::with_edited_shaders(
            gpu.wgpu_device().clone(),
            gpu.wgpu_queue().clone(),
            move |name, text| {
                if name != "target_attention" {
                    return text;
                }
                let at = text.find("// What every kernel shares").unwrap();
                let mut new = text[..at].to_string();
                if std::env::var("VEC").is_ok() {
                    new = new.replace("mat4x4<f32>", "vec4<f32>");
                }
                for file in
                    ["common", std::env::var("LANES").as_deref().unwrap_or("quads"), "score_dot", "attend"]
                {
                    new += &std::fs::read_to_string(format!("{folder}/{file}.wgsl")).unwrap();
                }
                new
            },
        )
        .unwrap(),
    };
    println!("{}", gpu.device());
    let arg = |i: usize, d: usize| std::env::args().nth(i).and_then(|a| a.parse().ok()).unwrap_or(d);
    let (b, c_, l, d) = (arg(1, 8), arg(2, 32), arg(3, 4096), arg(4, 64));
    let data =
        |n: usize| -> Vec<f32> { (0..n).map(|i| ((i * 7919 % 10007) as f32) / 5003.0 - 1.0).collect() };
    let q = gpu.upload(&data(b * c_ * d)).unwrap();
    let k = gpu.upload(&data(b * l * d)).unwrap();
    let v = gpu.upload(&data(b * l * d)).unwrap();
    let batch = gpu
        .batch(&Jagged::from_lengths(&vec![l; b]).unwrap(), &Jagged::from_lengths(&vec![c_; b]).unwrap())
        .unwrap();
    let op = TargetAttention::new(d);
    let mut out = gpu.zeros::<f32>(b * c_ * d).unwrap();
    let mut once = || {
        let inputs = TargetAttentionInputs {
            queries: gpu.view(&q),
            keys: gpu.view(&k),
            values: Some(gpu.view(&v)),
            bias: None,
        };
        let t = Instant::now();
        let c = cpu();
        let outputs = TargetAttentionOutputs { out: gpu.view_mut(&mut out), lse: None };
        gpu.target_attention_into(&op, &batch, inputs, outputs).unwrap();
        gpu.synchronize().unwrap();
        (t.elapsed().as_secs_f64() * 1e3, cpu() - c)
    };
    let first = once().0;
    let (mut t, mut c): (Vec<f64>, Vec<f64>) = (0..arg(5, 25)).map(|_| once()).unzip();
    t.sort_by(f64::total_cmp);
    c.sort_by(f64::total_cmp);
    let flop = 4.0 * (b * c_ * l * d) as f64;
    println!(
        "first {first:.0} wall min {:.2} median {:.2} | cpu min {:.2} median {:.2} ms = {:.2} GFLOP/s/core",
        t[0],
        t[t.len() / 2],
        c[0],
        c[c.len() / 2],
        flop / c[c.len() / 2] / 1e6
    );
}
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
