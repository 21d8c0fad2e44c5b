//! Evidence for the speed of the CUDA kernels without a GPU: memory traffic and instructions counted by the emulator, and
//! times modelled from these counts and from the figures of ptxas. Nothing here is measured.
//!
//! `LONGSEQ_WRITE_EVIDENCE=1 cargo test --test all evidence` writes `kernels/evidence.md` anew; without the variable
//! the test fails where the committed file is out of date. With a part of a shape's name instead of `1` it counts only such
//! shapes anew. `LONGSEQ_TEST_ONE_OF=1` runs all shapes, up to 4 a third
//! of the short ones, otherwise an eighth.

use std::fmt::Write as _;

use cuda_emulator::control::LaunchCounts;
use cuda_emulator::report::{Report, Resources, Target};
use longseq::*;
use longseq_check::decoupled::{DecoupledBackwardCase, DecoupledCase};
use longseq_check::device::cuda::session;
use longseq_check::device::{TestDevice, thorough};
use longseq_check::din::{DinBackwardCase, DinCase, Kind};
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use longseq_check::lookup::{LookupBackwardCase, LookupCase, Pool};
use longseq_check::sdim::{SdimBackwardCase, SdimCase};
use longseq_check::search::{Compared, SearchCase};
use longseq_check::selected::{
    HistogramCase, KeysFrom, SelectedBackwardCase, SelectedCase, SelectedTableBackwardCase, SelectedTableCase,
};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase};
use longseq_check::tin::{TinBackwardCase, TinCase};
use longseq_check::{AnyCase, sample};

/// Requested sectors over the fewest possible: the goal for streamed operands.
const MOST_SECTORS: f64 = 1.05;
/// The share of passes over shared memory that bank conflicts add: the goal.
const MOST_CONFLICTS: f64 = 0.02;

/// Runs a case once and returns the counts of its launches.
fn launches(case: &AnyCase) -> Vec<LaunchCounts> {
    let emulator = session().expect("the emulator");
    let gpu = Cuda::new(0).expect("a device");
    emulator.set_checks(false);
    emulator.set_timing(true);
    gpu.run_case(case).map(drop).unwrap_or_else(|failure| panic!("{failure}"));
    emulator.take_counts()
}

/// A typical shape.
struct Shape {
    name: &'static str,
    case: AnyCase,
    /// Takes seconds, and its kernels run in another shape, too: only thorough tests run it.
    long: bool,
}

fn shape(name: &'static str, case: impl Into<AnyCase>) -> Shape {
    Shape { name, case: case.into(), long: false }
}

fn long_shape(name: &'static str, case: impl Into<AnyCase>) -> Shape {
    Shape { long: true, ..shape(name, case) }
}

fn target_attention() -> Vec<Shape> {
    let attention = AttentionCase {
        histories: vec![4096; 8],
        targets: vec![32; 8],
        width: 64,
        value_width: Some(64),
        ..Default::default()
    };
    let few =
        AttentionCase { histories: vec![20_000], targets: vec![1], value_width: None, ..attention.clone() };
    let many = AttentionCase {
        histories: vec![4096; 2],
        targets: vec![16; 2],
        width: 128,
        value_width: Some(128),
        ..attention.clone()
    };
    let grouped = AttentionCase {
        histories: vec![4096; 2],
        targets: vec![8; 2],
        heads: 4,
        kv_heads: 1,
        ..attention.clone()
    };
    let bf16 = |case: &AttentionCase| AttentionCase { dtype: DType::Bf16, ..case.clone() };
    let gradients =
        |case: &AttentionCase| AttentionBackwardCase { forward: case.clone(), ..Default::default() };
    let more = AttentionCase { targets: vec![128; 2], histories: vec![4096; 2], ..attention.clone() };
    vec![
        shape("target attention f32, B = 8, C = 32, L = 4096, d = 64", &attention),
        shape("target attention bf16, B = 8, C = 32, L = 4096, d = 64", &bf16(&attention)),
        shape("target attention bf16, C = 1, L = 20,000, d = 64, keys as values", &bf16(&few)),
        shape("target attention bf16, B = 2, C = 16, L = 4096, d = 128", &bf16(&many)),
        shape("target attention bf16, B = 2, C = 8, L = 4096, d = 64, 4 heads on 1", &bf16(&grouped)),
        shape("gradients of target attention f32, B = 8, C = 32, L = 4096, d = 64", &gradients(&attention)),
        long_shape(
            "gradients of target attention bf16, B = 8, C = 32, L = 4096, d = 64",
            &gradients(&bf16(&attention)),
        ),
        shape("target attention f32, B = 2, C = 128, L = 4096, d = 64", &more),
        shape("gradients of target attention f32, B = 2, C = 128, L = 4096, d = 64", &gradients(&more)),
        shape("target attention bf16, B = 2, C = 128, L = 4096, d = 64", &bf16(&more)),
        long_shape(
            "gradients of target attention bf16, B = 2, C = 128, L = 4096, d = 64",
            &gradients(&bf16(&more)),
        ),
        shape(
            "gradients of target attention bf16, C = 1, L = 20,000, d = 64, keys as values",
            &gradients(&bf16(&few)),
        ),
    ]
}

fn din_and_sdim() -> Vec<Shape> {
    let din = DinCase {
        histories: vec![1000],
        targets: vec![16],
        width: 64,
        hidden: vec![80, 40],
        ..Default::default()
    };
    let din_bf16 = DinCase { dtype: DType::Bf16, ..din.clone() };
    let din_prelu = DinCase {
        histories: vec![1024],
        targets: vec![64],
        hidden: vec![36],
        activation: Kind::Prelu,
        pooling: DinPooling::Softmax,
        ..din_bf16.clone()
    };
    let sdim = SdimCase {
        histories: vec![8192],
        targets: vec![100],
        width: 64,
        groups: 16,
        bits: 3,
        ..Default::default()
    };
    let sdim_bf16 = SdimCase { dtype: DType::Bf16, ..sdim.clone() };
    let gradients = |forward: &SdimCase| SdimBackwardCase {
        forward: forward.clone(),
        narrow: true,
        hashed: true,
        nan: None,
        bytes: false,
    };
    let din_gradients =
        |forward: &DinCase| DinBackwardCase { forward: forward.clone(), ..Default::default() };
    // More groups than fit in a block.
    let sdim_wide =
        SdimCase { histories: vec![4096], targets: vec![4], width: 128, groups: 32, ..sdim_bf16.clone() };
    vec![
        shape("DIN 80-40 sigmoid f32, C = 16, L = 1000, d = 64", &din),
        shape("DIN 80-40 sigmoid bf16, C = 16, L = 1000, d = 64", &din_bf16),
        shape("DIN 36 PReLU softmax bf16, C = 64, L = 1024, d = 64", &din_prelu),
        shape("gradients of DIN 80-40 sigmoid f32, C = 16, L = 1000, d = 64", &din_gradients(&din)),
        long_shape(
            "gradients of DIN 36 PReLU softmax bf16, C = 64, L = 1024, d = 64",
            &din_gradients(&din_prelu),
        ),
        long_shape("SDIM f32, L = 8192, C = 100, d = 64, 16 groups of 3 bits", &sdim),
        long_shape("SDIM bf16, L = 8192, C = 100, d = 64, 16 groups of 3 bits", &sdim_bf16),
        long_shape(
            "gradients of SDIM f32, L = 8192, C = 100, d = 64, 16 groups of 3 bits",
            &gradients(&sdim),
        ),
        long_shape(
            "gradients of SDIM bf16, L = 8192, C = 100, d = 64, 16 groups of 3 bits",
            &gradients(&sdim_bf16),
        ),
        shape("SDIM bf16, L = 4096, C = 4, d = 128, 32 groups of 3 bits", &sdim_wide),
    ]
}

fn decoupled_and_lookups() -> Vec<Shape> {
    let search = |width: usize| DecoupledCase {
        histories: vec![20_000],
        targets: vec![16],
        table_rows: vec![50_000],
        attention_widths: vec![width],
        representation_widths: vec![64],
        top_k: 64,
        ..Default::default()
    };
    let lookup = LookupCase {
        table_rows: vec![50_000],
        widths: vec![64],
        second_widths: vec![],
        bags: vec![50; 400],
        pool: Pool::Sum,
        ..Default::default()
    };
    let decoupled_gradients = DecoupledBackwardCase {
        forward: DecoupledCase { histories: vec![4096], ..search(16) },
        ..Default::default()
    };
    let lookup_gradients = LookupBackwardCase { forward: lookup.clone(), ..Default::default() };
    vec![
        long_shape("decoupled f32, K = 64 of 20,000, C = 16, a = 128, r = 64", &search(128)),
        shape("decoupled f32, K = 64 of 20,000, C = 16, a = 16, r = 64", &search(16)),
        long_shape(
            "gradients of decoupled f32, K = 64 of 4096 and all, C = 16, a = 16, r = 64",
            &decoupled_gradients,
        ),
        shape("look-up f32, 400 bags of 50, r = 64", &lookup),
        shape("gradients of look-up f32, 400 bags of 50, r = 64", &lookup_gradients),
    ]
}

fn searches() -> Vec<Shape> {
    let cosine = SearchCase {
        score: SearchScore::Cosine,
        stored: Compared::Codes,
        histories: vec![20_000],
        targets: vec![16],
        width: 128,
        top_k: 50,
        zeros: false,
        repeated: false,
        ..Default::default()
    };
    let dot = SearchScore::Dot { scale: 1.0 };
    let with = |score, stored, width| SearchCase { score, stored, width, ..cosine.clone() };
    let many = SearchCase { top_k: 2000, targets: vec![2], ..with(dot, Compared::F32, 64) };
    vec![
        shape("search, cosine of 8-bit codes, K = 50 of 20,000, C = 16, a = 128", &cosine),
        shape(
            "search, cosine f32, K = 50 of 20,000, C = 16, a = 128",
            &with(SearchScore::Cosine, Compared::F32, 128),
        ),
        shape("search, dot product bf16, K = 50 of 20,000, C = 16, a = 64", &with(dot, Compared::Bf16, 64)),
        shape(
            "search, Hamming, K = 50 of 20,000, C = 16, 256 bits",
            &with(SearchScore::Hamming, Compared::F32, 256),
        ),
        shape("search, match, K = 50 of 20,000, C = 16", &with(SearchScore::Match, Compared::F32, 1)),
        shape("search, dot product f32, K = 2000 of 20,000, C = 2, a = 64", &many),
    ]
}

fn selections() -> Vec<Shape> {
    let attention = SelectedCase {
        histories: vec![10_000],
        targets: vec![100],
        top_k: 64,
        width: 64,
        value_width: Some(64),
        ..Default::default()
    };
    let bf16 = SelectedCase { dtype: DType::Bf16, ..attention.clone() };
    let gradients = SelectedBackwardCase { forward: attention.clone(), ..Default::default() };
    let histogram = HistogramCase { targets: vec![100], ..Default::default() };
    let tables = SelectedTableCase {
        forward: attention.clone(),
        keys: KeysFrom::Tables,
        table_rows: vec![50_000, 1000],
        ..Default::default()
    };
    let of_tables = SelectedTableBackwardCase { forward: tables.clone(), ..Default::default() };
    vec![
        shape("attention over a selection f32, K = 64 of 10,000, C = 100, d = 64", &attention),
        shape("attention over a selection bf16, K = 64 of 10,000, C = 100, d = 64", &bf16),
        long_shape(
            "gradients of attention over a selection f32, K = 64 of 10,000, C = 100, d = 64",
            &gradients,
        ),
        shape("histogram of similarities, K = 50, C = 100, 21 bins", &histogram),
        shape("attention over a selection from tables f32, K = 64 of 10,000, C = 100, d = 64", &tables),
        long_shape(
            "gradients of attention over a selection from tables f32, K = 64 of 10,000, C = 100, d = 64",
            &of_tables,
        ),
    ]
}

fn tin() -> Vec<Shape> {
    let many = TinCase {
        histories: vec![4096; 8],
        targets: vec![32; 8],
        width: 64,
        positions: 431,
        ..Default::default()
    };
    let few = TinCase { histories: vec![1000; 20], targets: vec![1; 20], dtype: DType::Bf16, ..many.clone() };
    let gradients = |forward: &TinCase| TinBackwardCase { forward: forward.clone(), ..Default::default() };
    vec![
        shape("TIN f32, B = 8, C = 32, L = 4096, d = 64", &many),
        long_shape(
            "TIN bf16, B = 8, C = 32, L = 4096, d = 64",
            &TinCase { dtype: DType::Bf16, ..many.clone() },
        ),
        shape("TIN bf16, B = 20, C = 1, L = 1000, d = 64", &few),
        long_shape("gradients of TIN f32, B = 8, C = 32, L = 4096, d = 64", &gradients(&many)),
        shape("gradients of TIN bf16, B = 20, C = 1, L = 1000, d = 64", &gradients(&few)),
    ]
}

fn channels() -> Vec<Shape> {
    let routed = ChannelsCase {
        histories: vec![10_000],
        targets: vec![16],
        width: 64,
        top_k: 100,
        ..Default::default()
    };
    let all = ChannelsCase { among: KeptAmong::All, dtype: DType::Bf16, ..routed.clone() };
    let gradients = ChannelsBackwardCase { forward: routed.clone(), ..Default::default() };
    vec![
        shape("interest channels f32, 4 of K = 100 of 10,000, C = 16, d = 64", &routed),
        long_shape("interest channels bf16, 4 of K = 100 among all 10,000, C = 16, d = 64", &all),
        shape("gradients of interest channels f32, 4 of K = 100 of 10,000, C = 16, d = 64", &gradients),
    ]
}

/// The resources of a kernel, from the tables that `kernels/compile` writes with ptxas.
fn resources(kernel: &str, architecture: &str) -> Resources {
    let folder = longseq_check::repository().join("kernels/ptx");
    for (stem, _) in cuda::kernels() {
        let table =
            std::fs::read_to_string(folder.join(format!("{stem}.csv"))).expect("a table beside the PTX");
        for line in table.lines() {
            let cells: Vec<&str> = line.split(',').collect();
            if cells[..2] == [kernel, architecture] {
                let numbers: Vec<u32> =
                    cells[2..].iter().map(|cell| cell.parse().expect("a number")).collect();
                let [registers, spill_stores, spill_loads, stack, shared] = numbers[..] else {
                    panic!("{line}")
                };
                return Resources { registers, stack, spill_stores, spill_loads, shared };
            }
        }
    }
    panic!("no table has {kernel} for {architecture}");
}

/// The mark after a number that misses its goal.
fn mark(met: bool) -> &'static str {
    if met { "" } else { " (!)" }
}

fn row(table: &mut String, launch: &LaunchCounts) {
    let counts = &launch.counts;
    let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
    let threads = launch.block.iter().product();
    let report = |target: &Target, architecture| {
        let resources = resources(&launch.kernel, architecture);
        let shared = launch.dynamic_shared_bytes;
        Report::with_dynamic_shared(target, resources, blocks, threads, shared, counts)
    };
    let (a100, h100) = (report(&Target::a100(), "sm_80"), report(&Target::h100(), "sm_90"));
    let sectors = counts.global_sectors as f64 / counts.global_sectors_minimum.max(1) as f64;
    let conflicts = counts.shared_conflicts as f64 / counts.shared_passes.max(1) as f64;
    let times = |report: &Report| {
        format!(
            "{:.1} ({:?}) | {:.1} | {:.1}",
            report.issue_seconds * 1e6,
            report.busiest(),
            report.memory_seconds * 1e6,
            report.latency_seconds * 1e6
        )
    };
    let _ = writeln!(
        table,
        "| `{}` | {blocks} × {threads} | {} | {:.2}{} | {:.1}{} | {} | {}/{} | {} | {} |",
        launch.kernel,
        counts.total(),
        sectors,
        mark(sectors <= MOST_SECTORS),
        100.0 * conflicts,
        mark(conflicts <= MOST_CONFLICTS),
        a100.resources.registers,
        a100.occupancy.warps,
        a100.occupancy.warps_possible,
        times(&a100),
        times(&h100),
    );
}

const HEAD: &str = "\
# What the CUDA kernels ask of a GPU

Counted by the emulator and modelled from the counts; **no time here is measured**. `LONGSEQ_WRITE_EVIDENCE=1 cargo
test --test all evidence` writes this file; the test fails if it is out of date.

- instructions: per warp, in total. sectors: of 32 bytes, requested, relative to the fewest possible. conflicts: extra
  passes over shared memory due to bank conflicts, in percent. registers and warps: on an A100, from ptxas.
- `(!)`: misses the goals, 1.05 times the fewest sectors and 2 % conflicts.
- times in microseconds: how long the busiest unit of the busiest multiprocessor works, and how long device memory takes
  for all requested sectors without any cache. Both are lower bounds that ignore latency. latency: the critical path of the
  longest block, or of as many blocks one after the other as each of those that run at a time has, where blocks do not slow each
  other down (`crates/cuda-emulator/src/exec/timing.rs`).
";

/// The section of a shape.
fn section(shape: &Shape) -> String {
    let mut text = format!("\n## {}\n\n", shape.name);
    text.push_str("| kernel | blocks × threads | instructions | sectors | conflicts % | registers | warps | A100: unit | memory | latency | H100: unit | memory | latency |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for launch in &launches(&shape.case) {
        row(&mut text, launch);
    }
    text
}

#[test]
fn the_evidence_is_up_to_date() {
    if session().is_none() {
        return;
    }
    let shapes = [
        target_attention(),
        din_and_sdim(),
        decoupled_and_lookups(),
        searches(),
        selections(),
        tin(),
        channels(),
    ]
    .into_iter()
    .flatten();
    let path = longseq_check::repository().join("kernels/evidence.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if let Ok(wanted) = std::env::var("LONGSEQ_WRITE_EVIDENCE") {
        let written = |shape: Shape| {
            let is_wanted = wanted == "1" || shape.name.contains(&wanted);
            let parts = committed.split("\n## ").skip(1);
            let mut of_shape = parts.filter(|part| part.starts_with(&format!("{}\n", shape.name)));
            let kept = of_shape.next().filter(|_| !is_wanted).map(|part| format!("\n## {part}"));
            kept.unwrap_or_else(|| section(&shape))
        };
        let sections: String = shapes.map(written).collect();
        return std::fs::write(&path, format!("{HEAD}{sections}")).expect("the file can be written");
    }
    let mut parts = committed.split("\n## ");
    let mut same = parts.next() == Some(HEAD);
    for (index, shape) in shapes.enumerate() {
        let part = parts.next().unwrap_or_default();
        let is_left_out = shape.long || index % sample::by_size(16, 8, 3) != 0;
        same &= if is_left_out && !thorough() {
            part.starts_with(&format!("{}\n", shape.name))
        } else {
            format!("\n## {part}") == section(&shape)
        };
    }
    assert!(
        same && parts.next().is_none(),
        "kernels/evidence.md is out of date: see the top of tests/all/cuda/evidence.rs"
    );
}
