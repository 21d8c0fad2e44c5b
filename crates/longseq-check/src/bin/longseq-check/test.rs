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
}

/// The work that the options select, by name. Tests mix storage types: where one is asked for, only cases run.
fn selected(options: &Options) -> Vec<(String, Work)> {
    let mut all = Vec::new();
    if options.select.precision().is_none() {
        for stem in registry::STEMS {
            let test = |name| (format!("{stem}::{name}"), Work::Test { stem, name });
            all.extend(registry::names(stem).into_iter().map(test));
        }
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
    match work {
        Work::Case(case) => device.check_case(case),
        // The panic's message is printed by the panic hook.
        Work::Test { stem, name } => catch_unwind(AssertUnwindSafe(|| run_test(device, stem, name)))
            .map_err(|_| Failure::new("the test panicked")),
    }
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
        for (name, work) in &selected {
            let start = Instant::now();
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
