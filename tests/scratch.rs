//! Scratch.
use longseq::*;
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
    (0..n).map(|_| { s ^= s << 13; s ^= s >> 7; s ^= s << 17; ((s >> 40) as f32 / (1u64 << 23) as f32) - 1.0 }).collect()
}
#[test]
fn speed() {
    let base = Wgpu::new().unwrap();
    let dir = std::env::var("DIR").unwrap_or("shaders".into());
    let gpu = Wgpu::with_edited_shaders(base.wgpu_device().clone(), base.wgpu_queue().clone(), move |name, text| {
        if name != "target_attention" { return text; }
        let i = text.find("// Scores for attend").unwrap();
        format!("{}{}{}", &text[..i], std::fs::read_to_string(format!("{dir}/score_dot.wgsl")).unwrap(), std::fs::read_to_string(format!("{dir}/attend.wgsl")).unwrap())
    }).unwrap();
    let g = |n: &str, d: usize| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
    let (bq, c, l, d) = (g("B", 8), g("C", 32), g("L", 4096), g("D", 64));
    let hist = Jagged::from_lengths(&vec![l; bq]).unwrap();
    let targ = Jagged::from_lengths(&vec![c; bq]).unwrap();
    let op = TargetAttention::new(d);
    let (q0, k0, v0) = (noise(1, bq*c*d), noise(2, bq*l*d), noise(3, bq*l*d));
    let q = gpu.upload(&q0).unwrap();
    let k = gpu.upload(&k0).unwrap();
    let v = gpu.upload(&v0).unwrap();
    let batch = gpu.batch(&hist, &targ).unwrap();
    let mut out = gpu.zeros::<f32>(bq*c*d).unwrap();
    let mut times = vec![];
    let cpu = || std::fs::read_to_string("/proc/self/stat").unwrap().split_whitespace().skip(13).take(2).map(|t| t.parse::<f64>().unwrap() * 10.0).sum::<f64>();
    let mut c0 = 0.0;
    for _ in 0..20 {
        if times.len() == 1 { c0 = cpu(); }
        let t = std::time::Instant::now();
        gpu.target_attention_into(&op, &batch, TargetAttentionInputs{queries: gpu.view(&q), keys: gpu.view(&k), values: Some(gpu.view(&v)), bias: None}, TargetAttentionOutputs{out: gpu.view_mut(&mut out), lse: None}).unwrap();
        gpu.synchronize().unwrap();
        times.push(t.elapsed().as_secs_f64()*1e3);
    }
    let spent = (cpu() - c0) / 19.0;
    let first = times[0];
    times.sort_by(f64::total_cmp);
    let got = gpu.download(gpu.view(&out)).unwrap();
    let cpu = Cpu::new();
    let exp = cpu.target_attention(&op, &Batch::new(hist, targ).unwrap(), TargetAttentionInputs{queries: &q0, keys: &k0, values: Some(&v0), bias: None}).unwrap();
    let worst = got.iter().zip(&exp).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{} first {first:.0} min {:.1} median {:.1} ms cpu {spent:.1} ms worst {worst:e}", gpu.device(), times[0], times[10]);
}
