//! A first look.
use longseq::*;
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
    (0..n).map(|_| { s ^= s << 13; s ^= s >> 7; s ^= s << 17; ((s >> 40) as f32 / (1u64 << 23) as f32) - 1.0 }).collect()
}
#[test]
fn attention() {
    let gpu = Wgpu::new().unwrap();
    println!("{}", gpu.device());
    for (d, dv, h, hk, w) in [(64, 64, 1, 1, Weighting::Softmax), (17, 9, 4, 2, Weighting::Softmax), (8, 130, 2, 1, Weighting::Silu{divisor: 3.0}), (33, 300, 1, 1, Weighting::Relu), (4, 4, 1, 1, Weighting::Identity)] {
        let hist = Jagged::from_lengths(&[0, 1, 65, 3000, 31]).unwrap();
        let targ = Jagged::from_lengths(&[2, 1, 33, 5, 0]).unwrap();
        let op = TargetAttention::new(d).with_value_width(dv).with_heads(h, hk).with_weighting(w);
        let (n, m) = (hist.rows(), targ.rows());
        let (q, k, v, b) = (noise(1, m*h*d), noise(2, n*hk*d), noise(3, n*hk*dv), noise(4, n*h));
        let batch = Batch::new(hist.clone(), targ.clone()).unwrap();
        let exp = reference::target_attention(&op, &batch, &TargetAttentionInputs{queries: &q[..], keys: &k[..], values: Some(&v[..]), bias: Some(&b[..])}).unwrap();
        let gb = gpu.batch(&hist, &targ).unwrap();
        let (gq, gk, gv, gbias) = (gpu.upload(&q).unwrap(), gpu.upload(&k).unwrap(), gpu.upload(&v).unwrap(), gpu.upload(&b).unwrap());
        let mut out = gpu.zeros::<f32>(m*h*dv).unwrap();
        let mut lse = gpu.zeros::<f32>(m*h).unwrap();
        gpu.target_attention_into(&op, &gb, TargetAttentionInputs{queries: gpu.view(&gq), keys: gpu.view(&gk), values: Some(gpu.view(&gv)), bias: Some(gpu.view(&gbias))},
            TargetAttentionOutputs{out: gpu.view_mut(&mut out), lse: (w == Weighting::Softmax).then(|| gpu.view_mut(&mut lse))}).unwrap();
        let got = gpu.download(gpu.view(&out)).unwrap();
        let worst = got.iter().zip(&exp.out).map(|(a, b)| (*a as f64 - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max);
        println!("{d} {dv} {h} {hk} worst {worst:e}");
        assert!(worst < 1e-5);
        if w == Weighting::Softmax {
            let got = gpu.download(gpu.view(&lse)).unwrap();
            for (a, b) in got.iter().zip(&exp.lse) { assert!((*a as f64 - b).abs() < 1e-5 || *a as f64 == *b, "{a} {b}"); }
        }
    }
}
#[test]
fn speed() {
    let gpu = Wgpu::new().unwrap();
    let (bq, c, l, d) = (8, 32, 4096, 64);
    let hist = Jagged::from_lengths(&vec![l; bq]).unwrap();
    let targ = Jagged::from_lengths(&vec![c; bq]).unwrap();
    let op = TargetAttention::new(d);
    let q = gpu.upload(&noise(1, bq*c*d)).unwrap();
    let k = gpu.upload(&noise(2, bq*l*d)).unwrap();
    let v = gpu.upload(&noise(3, bq*l*d)).unwrap();
    let batch = gpu.batch(&hist, &targ).unwrap();
    let mut out = gpu.zeros::<f32>(bq*c*d).unwrap();
    let mut times = vec![];
    for _ in 0..20 {
        let t = std::time::Instant::now();
        gpu.target_attention_into(&op, &batch, TargetAttentionInputs{queries: gpu.view(&q), keys: gpu.view(&k), values: Some(gpu.view(&v)), bias: None}, TargetAttentionOutputs{out: gpu.view_mut(&mut out), lse: None}).unwrap();
        gpu.synchronize().unwrap();
        times.push(t.elapsed().as_secs_f64()*1e3);
    }
    println!("{} first {:.1} ms", gpu.device(), times[0]);
    times.sort_by(f64::total_cmp);
    println!("min {:.1} median {:.1} ms", times[0], times[10]);
}
