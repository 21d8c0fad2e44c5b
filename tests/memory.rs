//! Memory beyond inputs and outputs stays small, however long a history is.

use longseq::*;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The only test of this binary: others would allocate at the same time.
#[test]
fn a_million_behaviours_need_less_than_64_mib() {
    const MIB: usize = 1 << 20;
    let (length, candidates, width) = (1_000_000, 100, 64);
    let keys: Vec<f32> = (0..length * width).map(|i| ((i * 7919) % 1000) as f32 * 1e-3 - 0.5).collect();
    let queries: Vec<f32> =
        (0..candidates * width).map(|i| ((i * 104_729) % 1000) as f32 * 1e-3 - 0.5).collect();
    let mut out = vec![0.0f32; candidates * width];
    let backend = Cpu::new();
    let lengths = |length| Jagged::from_lengths(&[length]).expect("small lengths");
    let batch = backend.batch(&lengths(length), &lengths(candidates)).expect("one user");
    let inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys));
    let outputs = TargetAttentionOutputs::new(Host::view_mut(&mut out));

    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    backend
        .target_attention_into(&TargetAttention::new(width), &batch, inputs, outputs)
        .expect("a valid call");
    let beyond = ALLOCATOR.peak_usage() - before;
    assert!(beyond <= 64 * MIB, "{beyond} bytes beyond inputs and outputs");
    assert!(out.iter().all(|x| x.is_finite()) && out.iter().any(|&x| x != 0.0));
}
