//! Trains a click model on MovieLens with one system after another, and shows what each makes of long histories and what it costs.
//!
//! ```text
//! cargo run --release --manifest-path examples/train/Cargo.toml -- --help
//! ```

mod contents;
mod cost;
#[path = "../../rank/src/data.rs"]
mod data;
mod estimates;
mod groups;
mod inputs;
#[path = "../../rank/src/metrics.rs"]
mod metrics;
mod model;
mod options;
mod plot;
#[path = "../../rank/src/progress.rs"]
mod progress;
#[path = "../../rank/src/protocol.rs"]
#[allow(dead_code, reason = "of rank's protocol, what makes batches for its own operations is not needed")]
mod protocol;
#[path = "../../rank/src/report.rs"]
#[allow(dead_code, reason = "of rank's texts, rates are not needed")]
mod report;
mod samples;
mod save;
mod summary;
#[cfg(test)]
mod synthetic;
mod systems;
mod table;
mod training;
mod weights;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use peak_alloc::PeakAlloc;

use crate::data::Log;
use crate::estimates::Estimates;
use crate::options::Options;
use crate::plot::{Curve, Dot, Labels};
use crate::progress::Progress;
use crate::summary::Outcomes;
use crate::training::{Data, Trained, train};

/// A result whose error is shown to the user.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Counts the memory that is in use.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    let begin = Instant::now();
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    let log = match &options.events {
        Some(path) => Log::open(path)?,
        None => Log::movielens()?,
    };
    // Created first, so that a bad `--output` fails before any work is done.
    std::fs::create_dir_all(&options.output).map_err(|e| format!("{}: {e}", options.output.display()))?;
    let data = Data::new(&log, options)?;
    if let Some(path) = &options.save {
        save::check_size(path, &data, options)?;
    }
    let progress = Progress::new();
    progress.print(&summary::header(&log, &data, options))?;
    let mut all = Vec::new();
    for system in options.systems() {
        let outcomes = of_system(system, options, &data, &progress)?;
        progress.print(&format!(
            "{}: validation's GAUC {:.4}, after {:.0} s",
            system.name(),
            outcomes.validation(),
            begin.elapsed().as_secs_f64()
        ))?;
        all.push(outcomes);
    }
    progress.print(&summary::quality(&all, options))?;
    progress.print(&summary::groups(&all, &data))?;
    if let Some(costs) = summary::costs(&all, options) {
        progress.print(&costs)?;
    }
    progress.print(&summary::notes(&all, options))?;
    let plots = draw(&all, &log, options)?;
    if let Some(path) = &options.save {
        let models: Vec<_> = all.iter().filter_map(|outcomes| Some(&outcomes.runs.first()?.model)).collect();
        save::save(path, &models, &log, options)?;
        progress.print(&format!("\nModels: {}", path.display()))?;
    }
    progress.print(&format!("\nPlots: {plots}\nDone in {:.1} s.", begin.elapsed().as_secs_f64()))
}

/// Trains a system with every seed, and measures what a step costs.
fn of_system(
    system: systems::System,
    options: &Options,
    data: &Data,
    progress: &Progress,
) -> Outcome<Outcomes> {
    let mut runs: Vec<Trained> = Vec::with_capacity(options.seeds);
    for index in 0..options.seeds {
        runs.push(train(system, options, data, options.seed + index as u64, progress)?);
    }
    let scores: Vec<&[Vec<f32>]> = runs.iter().map(|run| &run.scores[..]).collect();
    let estimates = Estimates::new(&scores);
    let costs = match options.timed_steps() {
        0 => None,
        _ => Some(cost::compare(system, options, data, progress)?),
    };
    Ok(Outcomes { system, runs, estimates, costs })
}

/// Draws the plots; returns where they are.
fn draw(all: &[Outcomes], log: &Log, options: &Options) -> Outcome<String> {
    let path = |name: &str| options.output.join(name);
    let labels = |title, x, y| Labels { title, subtitle: &log.name, x, y };
    let dots: Vec<Dot> = all
        .iter()
        .map(|outcomes| Dot {
            name: outcomes.system.name(),
            cost: outcomes.seconds(),
            quality: outcomes.estimates.gauc,
        })
        .collect();
    let against = labels(
        "Quality against cost",
        "seconds of training per epoch (log scale)",
        "GAUC, with 95 % interval",
    );
    plot::quality(&path("quality.svg"), &against, &dots)?;
    let curves = |value: fn(&training::Epoch) -> f64| -> Vec<Curve> {
        let curve = |outcomes: &Outcomes| {
            let values =
                outcomes.runs.first().map_or(Vec::new(), |run| run.curve.iter().map(value).collect());
            Curve { name: outcomes.system.name(), values }
        };
        all.iter().map(curve).collect()
    };
    let loss = labels("Loss of training, first seed", "epoch", "mean binary cross-entropy");
    plot::curves(&path("loss.svg"), &loss, &curves(|epoch| epoch.loss))?;
    let valid = labels("Validation, first seed", "epoch", "GAUC");
    plot::curves(&path("validation.svg"), &valid, &curves(|epoch| epoch.valid))?;
    Ok(path("{quality,loss,validation}.svg").display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_from_a_log_to_plots_and_a_model() {
        let folder = std::env::temp_dir().join(format!("longseq-train-{}", std::process::id()));
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::create_dir_all(&folder).unwrap();
        let mut events = String::from("user,item,timestamp\n");
        for user in 0..12 {
            (0..20)
                .for_each(|event| events += &format!("{user},{},{event}\n", (7 * user + event * event) % 90));
        }
        std::fs::write(path("log.csv"), events).unwrap();
        let arguments = ["train", "--quick", "--seeds", "2", "--width", "8", "--batch", "32"];
        let files = ["--events", "log.csv", "--output", "plots", "--save", "model.safetensors"];
        let files = files.map(|name| if name.starts_with("--") { name.into() } else { path(name) });
        let options = arguments.into_iter().map(String::from).chain(files);
        let options = Options::parse_from(options);
        run(&options).unwrap();
        for name in ["quality.svg", "loss.svg", "validation.svg"] {
            assert!(folder.join("plots").join(name).is_file(), "{name}");
        }
        let model =
            candle_core::safetensors::load(path("model.safetensors"), &candle_core::Device::Cpu).unwrap();
        assert!(
            options.systems().iter().all(|system| model.contains_key(&format!("{}.items", system.key())))
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
