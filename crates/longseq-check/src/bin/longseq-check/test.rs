//! `longseq-check test`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use clap::Args;
use longseq::prelude::*;

use longseq::AnyBackend;
use longseq_check::device::{TestDevice, run_test};
use longseq_check::support::{CALLS, small_case};
use longseq_check::{AnyCase, Failure, cases, registry};

use crate::select::Select;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    select: Select,
    /// Run the tests and cases whose STEM::NAME contains this.
    filter: Option<String>,
    /// Run the small named cases alone.
    #[arg(long)]
    cases: bool,
    /// Begin no further test or case on a device after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    budget: Option<f64>,
    /// Print the names and stop.
    #[arg(long)]
    list: bool,
}

/// Something to run on a device.
enum Work {
    /// A test of the registry.
    Test { stem: &'static str, name: &'static str },
    /// A case that is compared with the reference.
    Case(Box<AnyCase>),
    /// Rows that are hashed while they are encoded, which `Cuda` does on matrix units.
    Hashing,
}

/// The work that the options select, by name. Tests mix storage types: where one is asked for, only cases run.
fn selected(options: &Options) -> Vec<(String, Work)> {
    let mut all = Vec::new();
    if options.select.precision().is_none() && !options.cases {
        for stem in registry::STEMS {
            let test = |name| (format!("{stem}::{name}"), Work::Test { stem, name });
            all.extend(registry::names(stem).into_iter().map(test));
        }
        all.push(("sdim::signatures_while_encoding".into(), Work::Hashing));
    }
    for named in cases::small() {
        all.push((format!("{}::{}", named.stem(), named.name), Work::Case(Box::new(named.case))));
    }
    for (stem, call) in CALLS {
        for storage in options.select.storages() {
            let case = small_case(call, storage).map(|named| named.case);
            all.extend(
                case.map(|case| (format!("{stem}::{call}_{}", storage.name()), Work::Case(Box::new(case)))),
            );
        }
    }
    let wanted = |(name, work): &(String, Work)| {
        let stem = name.split("::").next().unwrap_or_default();
        let stored = match (options.select.precision(), work) {
            (Some(storage), Work::Case(case)) => storage == case.storage(),
            _ => true,
        };
        stored
            && options.select.stems().contains(&stem)
            && options.filter.as_ref().is_none_or(|filter| name.contains(filter))
    };
    all.into_iter().filter(wanted).collect()
}

fn run_one(device: &AnyBackend, work: &Work) -> Result<(), Failure> {
    let run = || match work {
        Work::Case(case) => device.check_case(case),
        Work::Test { stem, name } => {
            run_test(device, stem, name);
            Ok(())
        }
        Work::Hashing => check_hashing(device),
    };
    // The panic's message is printed by the panic hook.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(Failure::new("the test panicked")))
}

/// On other devices than `Cuda` rows are hashed by the kernels of `sdim_signatures`: there is nothing to compare.
fn check_hashing(device: &AnyBackend) -> Result<(), Failure> {
    #[cfg(feature = "cuda")]
    if let AnyBackend::Cuda(gpu) = device {
        return longseq_check::hashing::check_all(gpu);
    }
    let _ = device;
    Ok(())
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let selected = selected(options);
    if options.list {
        selected.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    let (mut passed, mut failed) = (0, 0);
    for (backend, device) in options.select.devices() {
        println!("{backend}: {}", device.device());
        let begin = Instant::now();
        for (index, (name, work)) in selected.iter().enumerate() {
            let start = Instant::now();
            if options.budget.is_some_and(|budget| begin.elapsed().as_secs_f64() > budget) {
                println!("{backend}: {} not run, the time is spent", selected.len() - index);
                break;
            }
            let result = run_one(&device, work);
            let time = start.elapsed().as_secs_f64();
            match result {
                Ok(()) => {
                    passed += 1;
                    println!("{backend}::{name} ... ok ({time:.2} s)");
                }
                Err(failure) => {
                    failed += 1;
                    println!("{backend}::{name} ... FAILED ({time:.2} s)\n{failure}");
                }
            }
        }
    }
    println!("\ntest result: {passed} passed; {failed} failed");
    if failed > 0 { Err(Failure::new(format!("{failed} tests failed"))) } else { Ok(()) }
}
