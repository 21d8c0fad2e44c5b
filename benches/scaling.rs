//! How time and memory of `Cpu`, on one thread, grow with the history and with the candidates: two plots and a table in
//! `benches/record/`.

#[path = "../examples/rank/src/plot.rs"]
#[allow(unused_imports, reason = "its tests run with the main job")]
mod plot;
#[path = "../examples/rank/src/report.rs"]
#[allow(dead_code, unused_imports, reason = "the main job uses and tests all of it")]
mod report;

use std::fmt::Write;

use clap::Parser;
use longseq::Cpu;
use longseq::prelude::*;
use longseq_check::bench::of_thread;
use longseq_check::data::Ids;
use longseq_check::decoupled::DecoupledCase;
use longseq_check::device::TestDevice;
use longseq_check::din::DinCase;
use longseq_check::sdim::SdimCase;
use longseq_check::target_attention::AttentionCase;
use longseq_check::{AnyCase, Failure, Named};
use peak_alloc::PeakAlloc;
use plot::{Labels, Series};
use report::{count, figures};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Small rows, so that ten million of them fit.
const WIDTH: usize = 16;
const CANDIDATES: usize = 4;
const LENGTH: usize = 2000;

/// Draws latency against history length and against candidates, and writes the table.
#[derive(Parser)]
struct Options {
    /// The longest history.
    #[arg(long, default_value_t = 10_000_000)]
    longest: usize,
    /// Folder for plots and table.
    #[arg(long, default_value_os_t = longseq_check::repository().join("benches/record"))]
    output: std::path::PathBuf,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    if let Err(message) = pool.install(|| run(&options).map_err(|error| error.to_string())) {
        eprintln!("{message}");
        std::process::exit(1);
    }
}

/// The operations that are drawn, for one user.
fn cases(length: usize, candidates: usize) -> Vec<Named> {
    let (histories, targets) = (vec![length], vec![candidates]);
    let (h, t) = (histories.clone(), targets.clone());
    let attention =
        AttentionCase { histories: h, targets: t, width: WIDTH, value_width: None, ..Default::default() };
    let (h, t) = (histories.clone(), targets.clone());
    let din = DinCase { histories: h, targets: t, width: WIDTH, hidden: vec![16], ..Default::default() };
    let (h, t) = (histories.clone(), targets.clone());
    let sdim = SdimCase { histories: h, targets: t, width: WIDTH, ..Default::default() };
    let decoupled = DecoupledCase {
        histories,
        targets,
        table_rows: vec![100_000],
        attention_widths: vec![WIDTH],
        representation_widths: vec![WIDTH],
        top_k: 50,
        ids: Ids::Uniform,
        ..Default::default()
    };
    let named = |name, operation, case| Named { name, operation, case };
    vec![
        named("target attention", "target_attention", AnyCase::Attention(attention)),
        named("DIN, 16 units", "din", AnyCase::Din(din)),
        named("SDIM encode", "sdim_encode", AnyCase::Sdim(sdim.clone())),
        named("SDIM query", "sdim_query", AnyCase::Sdim(sdim)),
        named("search, top 50", "decoupled_search", AnyCase::Decoupled(decoupled)),
    ]
}

/// One curve's worth of numbers.
struct Growth {
    times: Series,
    /// Bytes beyond inputs and outputs, at each size.
    memory: Vec<usize>,
}

fn run(options: &Options) -> Outcome<()> {
    let lengths: Vec<usize> =
        (3..8).map(|power| 10usize.pow(power)).filter(|&length| length <= options.longest).collect();
    let candidates = [1, 3, 10, 30, 100, 300, 1000];
    let by_length = grow(&lengths, |length| cases(length, CANDIDATES))?;
    let by_candidates = grow(&candidates, |candidates| cases(LENGTH, candidates))?;
    let device = Cpu::new().device();
    let folder = options.output.as_path();
    let labels = Labels {
        title: "Latency against the length of the history",
        subtitles: [&device, &format!("{CANDIDATES} candidates, width {WIDTH}, f32")],
        x: "behaviours in the history",
        y: "median time of a call, ms",
    };
    let series = |growth: &[Growth]| growth.iter().map(|growth| growth.times.clone()).collect::<Vec<_>>();
    plot::draw(&folder.join("scaling-history.svg"), &labels, &series(&by_length))?;
    let labels = Labels {
        title: "Latency against the number of candidates",
        subtitles: [&device, &format!("{} behaviours, width {WIDTH}, f32", count(LENGTH))],
        x: "candidates",
        ..labels
    };
    plot::draw(&folder.join("scaling-candidates.svg"), &labels, &series(&by_candidates))?;
    let text = format!(
        "# How the operations grow\n\nWritten by `cargo bench --bench scaling -- --longest {}`: {device}, width {WIDTH}, f32; times in ms, the median of up to 20 \
         calls.\n*Growth* is the last time over the first, divided by the sizes' ratio: 1 is linear, 0 is flat.\n\n\
         ## With the history, {CANDIDATES} candidates\n\n{}\n{}\n## With the candidates, {} behaviours\n\n{}",
        options.longest,
        table("behaviours", &by_length, &lengths),
        memory(&by_length, &lengths),
        count(LENGTH),
        table("candidates", &by_candidates, &candidates),
    );
    std::fs::write(folder.join("scaling.md"), &text)?;
    println!("{text}");
    Ok(())
}

/// Measures every operation at every size, after a check of its answer where the first of them, target attention, is
/// small enough for the reference.
fn grow(sizes: &[usize], cases: impl Fn(usize) -> Vec<Named>) -> Outcome<Vec<Growth>> {
    const PATIENCE: u64 = 100_000_000;
    let mut curves: Vec<Growth> = Vec::new();
    for &size in sizes {
        let cases = cases(size);
        let checked = cases[0].work().flops <= PATIENCE;
        for (index, case) in cases.iter().enumerate() {
            let failed = |failure: Failure| format!("{}: {failure}", case.name);
            if checked {
                Cpu::new().check_case(&case.case).map_err(failed)?;
            }
            let (millis, bytes) = measure(case).map_err(failed)?;
            if curves.len() == index {
                let times = Series { name: case.name.into(), offline: index == 2, points: Vec::new() };
                curves.push(Growth { times, memory: Vec::new() });
            }
            curves[index].times.points.push((size, millis));
            curves[index].memory.push(bytes);
            eprintln!("{} {size}: {millis:.4} ms, {bytes} bytes", case.name);
        }
    }
    Ok(curves)
}

/// The median milliseconds of a call, and the most memory it takes beyond inputs and outputs.
fn measure(case: &Named) -> Result<(f64, usize), Failure> {
    let (mut times, mut bytes) = (Vec::new(), 0);
    Cpu::new().measure_case(case, &mut |call| {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        call()?;
        bytes = ALLOCATOR.peak_usage().saturating_sub(before);
        let begin = of_thread();
        while times.is_empty() || (times.len() < 20 && (of_thread() - begin).as_secs_f64() < 1.0) {
            // Short calls, several at once: the clock's own time must not count.
            let (start, mut runs) = (of_thread(), 0);
            while runs == 0 || (of_thread() - start).as_secs_f64() < 1e-3 {
                call()?;
                runs += 1;
            }
            times.push((of_thread() - start).as_secs_f64() * 1e3 / f64::from(runs));
        }
        Ok(())
    })?;
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], bytes))
}

fn table(title: &str, curves: &[Growth], sizes: &[usize]) -> String {
    let mut text = heading(title, sizes, "growth");
    for Growth { times, .. } in curves {
        let (first, last) = (times.points[0], times.points[times.points.len() - 1]);
        let growth = (last.1 / first.1) / (last.0 as f64 / first.0 as f64);
        let cells: Vec<String> = times.points.iter().map(|point| figures(point.1)).collect();
        _ = writeln!(text, "| {} | {} | {} |", times.name, cells.join(" | "), figures(growth));
    }
    text
}

fn memory(curves: &[Growth], sizes: &[usize]) -> String {
    let mut text = heading("KiB beyond inputs and outputs", sizes, "");
    for Growth { times, memory } in curves {
        let cells: Vec<String> = memory.iter().map(|&bytes| count(bytes.div_ceil(1024))).collect();
        _ = writeln!(text, "| {} | {} | |", times.name, cells.join(" | "));
    }
    text
}

fn heading(title: &str, sizes: &[usize], last: &str) -> String {
    let sizes: Vec<String> = sizes.iter().map(|&size| count(size)).collect();
    format!("| {title} | {} | {last} |\n|---|{}---|\n", sizes.join(" | "), "---:|".repeat(sizes.len()))
}
