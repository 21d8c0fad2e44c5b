//! Target attention on the emulated CUDA device: results in every mode of the emulator, and the memory traffic and
//! instructions of the kernels.

use cuda_emulator::report::{Report, Resources, Target};
use cuda_emulator::{Emulator, control::LaunchCounts};
use longseq::*;
use longseq_check::data::{self, Data};
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::sample;
use longseq_check::target_attention::{AttentionCase, Bias};

/// Cases that cover every kernel: each storage type, each chunk width, few and many candidates, split and whole histories.
fn cases() -> Vec<AttentionCase> {
    let plain = AttentionCase { histories: vec![700, 0, 40], targets: vec![3, 1, 70], ..Default::default() };
    let few = AttentionCase { histories: vec![300], targets: vec![2], ..plain.clone() };
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for (width, value_width) in [(8, Some(24)), (64, None), (64, Some(64)), (128, None), (72, Some(128))]
        {
            for case in [&plain, &few] {
                cases.push(AttentionCase { dtype, width, value_width, ..case.clone() });
            }
        }
        let (heads, kv_heads, bias) = (4, 1, Bias::Mask);
        cases.push(AttentionCase { dtype, heads, kv_heads, bias, ..plain.clone() });
        for weighting in [Weighting::Relu, Weighting::silu(50.0), Weighting::Identity] {
            cases.push(AttentionCase { dtype, weighting, bias: Bias::Normal, ..plain.clone() });
        }
        let nan = Some(5);
        cases.push(AttentionCase { dtype, nan, ..plain.clone() });
        // Wider than any chunk, and rows that no vector load divides.
        cases.push(AttentionCase { dtype, width: 136, value_width: Some(200), ..few.clone() });
        cases.push(AttentionCase { dtype, width: 67, value_width: Some(65), ..plain.clone() });
    }
    cases
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    for (index, case) in cases().iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

/// A shape, and what must hold for it.
struct Shape {
    users: usize,
    candidates: usize,
    length: usize,
    width: usize,
    heads: usize,
    /// Memory bandwidth limits it, not arithmetic.
    memory_bound: bool,
}

/// The resources of a kernel on an H100, from ptxas.
fn resources(kernel: &str) -> Resources {
    let tables = [
        include_str!("../../../kernels/ptx/target_attention.csv"),
        include_str!("../../../kernels/ptx/target_attention_fma.csv"),
        include_str!("../../../kernels/ptx/target_attention_mma.csv"),
        include_str!("../../../kernels/ptx/target_attention_stream.csv"),
    ];
    let line = tables
        .iter()
        .flat_map(|table| table.lines())
        .find(|line| line.starts_with(&format!("{kernel},sm_90,")));
    let numbers: Vec<u32> = line
        .expect("the kernel")
        .split(',')
        .skip(2)
        .map(|number| number.parse().expect("a number"))
        .collect();
    let [registers, spill_stores, spill_loads, stack, shared] = numbers[..] else { panic!("five numbers") };
    Resources { registers, spill_stores, spill_loads, stack, shared }
}

fn launches<T: Element>(emulator: &Emulator, shape: &Shape) -> Vec<LaunchCounts> {
    let gpu = Cuda::new(0).expect("a device");
    let mut rng = data::rng(1);
    let mut upload =
        |rows| gpu.upload(&data::rows::<T>(&mut rng, Data::Normal, rows, shape.width)).expect("memory");
    let history = upload(shape.users * shape.length);
    let candidates = upload(shape.users * shape.candidates * shape.heads);
    let lengths = |length| Jagged::from_lengths(&vec![length; shape.users]).expect("lengths");
    let batch = gpu.batch(&lengths(shape.length), &lengths(shape.candidates)).expect("memory");
    let op = TargetAttention::new(shape.width).with_heads(shape.heads, 1);
    let inputs = TargetAttentionInputs::new(gpu.view(&candidates), gpu.view(&history));
    emulator.take_counts();
    gpu.target_attention(&op, &batch, inputs).expect("a valid call");
    emulator.take_counts()
}

/// The history is read once and in whole sectors, shared memory with few bank conflicts; where memory bandwidth is the limit,
/// the instructions take less time than the memory does, by the model of an H100.
fn asks_no_more_than_it_must<T: Element>(emulator: &Emulator, shape: &Shape) {
    let launches = launches::<T>(emulator, shape);
    let name = format!(
        "{:?} B={} C={} L={} d={} H={}",
        T::DTYPE,
        shape.users,
        shape.candidates,
        shape.length,
        shape.width,
        shape.heads
    );
    let (mut issue, mut memory) = (0.0, 0.0);
    for launch in &launches {
        let blocks: u64 = launch.grid.iter().map(|&blocks| u64::from(blocks)).product();
        let (kernel, counts) = (&launch.kernel, &launch.counts);
        let shared = launch.dynamic_shared_bytes;
        let h100 = Target::h100();
        let report =
            Report::with_dynamic_shared(&h100, resources(kernel), blocks, launch.block[0], shared, counts);
        // As if in whole waves: filling the device is the plan's task.
        issue += report.issue_seconds * blocks as f64 / (blocks.div_ceil(132) * 132) as f64;
        memory += report.memory_seconds;
        let sectors = counts.global_sectors as f64 / counts.global_sectors_minimum as f64;
        let conflicts = counts.shared_conflicts as f64 / counts.shared_passes.max(1) as f64;
        println!(
            "{name}: {kernel}: {blocks} blocks, sectors {sectors:.3}, conflicts {:.2} %",
            conflicts * 100.0
        );
        println!("{report}, clocks {:.0?}", report.clocks);
        // A combine kernel reads two numbers of each piece, far apart.
        let combine = kernel.starts_with("combine");
        assert!(combine || sectors <= 1.05, "{name}: {kernel}: {sectors:.3} times the fewest sectors");
        assert!(conflicts < 0.02, "{name}: {kernel}: {conflicts:.4} of the passes are bank conflicts");
    }
    let bytes = shape.users * shape.length * shape.width * size_of::<T>();
    let least = bytes as f64 / Target::h100().bandwidth;
    println!(
        "{name}: {:.2} times the history moved, instructions {:.2} of that time",
        memory / least,
        issue / memory
    );
    assert!(!shape.memory_bound || issue < 0.7 * memory, "{name}: instructions take {:.2}", issue / memory);
}

#[test]
fn kernels_ask_no_more_than_they_must() {
    let Some(emulator) = session() else { return };
    // Other tests check the kernels; here their accesses are counted.
    emulator.set_checks(false);
    let shape = |users, candidates, length, width, heads, memory_bound| Shape {
        users,
        candidates,
        length,
        width,
        heads,
        memory_bound,
    };
    asks_no_more_than_it_must::<f32>(&emulator, &shape(2, 32, 4096, 64, 1, false));
    asks_no_more_than_it_must::<half::bf16>(&emulator, &shape(8, 1, 10_000, 64, 1, true));
    if sample::is_small() {
        return;
    }
    asks_no_more_than_it_must::<half::bf16>(&emulator, &shape(2, 32, 4096, 64, 1, false));
    asks_no_more_than_it_must::<half::f16>(&emulator, &shape(2, 16, 10_000, 128, 1, false));
    asks_no_more_than_it_must::<half::bf16>(&emulator, &shape(2, 4, 10_000, 64, 4, false));
    asks_no_more_than_it_must::<f32>(&emulator, &shape(8, 1, 10_000, 64, 1, true));
}
