//! `longseq-check explain`.

use std::process::Command;

use clap::Args;
use longseq_check::support::{CALLS, small_case};
use longseq_check::{Failure, Named, cases, explain};

use crate::select::Select;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    select: Select,
    /// The name of a case, as `longseq-check bench --list` or `longseq-check test --list` print it, or a call such as
    /// din_bf16; without one, the names are printed.
    name: Option<String>,
}

/// Every case that has a name.
fn named() -> Vec<(String, Named)> {
    let mut all: Vec<(String, Named)> =
        cases::small().into_iter().map(|named| (named.name.into(), named)).collect();
    all.extend(cases::benchmarks().into_iter().map(|named| (named.name.into(), named)));
    for (_, call) in CALLS {
        for storage in longseq_check::lookup::Storage::ALL {
            let case = small_case(call, storage);
            all.extend(case.map(|named| (format!("{call}_{}", storage.name()), named)));
        }
    }
    all
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let all = named();
    let Some(name) = &options.name else {
        all.iter().for_each(|(name, named)| println!("{}::{name}", named.stem()));
        return Ok(());
    };
    let wanted = name.rsplit("::").next().unwrap_or(name);
    let (_, named) = all
        .iter()
        .find(|(name, _)| name == wanted)
        .ok_or_else(|| Failure::new(format!("there is no case {name}; without a name, all are printed")))?;
    // The backends read the variable when they start, so the trace needs a process that begins with it.
    if std::env::var_os("LONGSEQ_TRACE").is_none() {
        return again_with_trace();
    }
    println!("{}", explain::describe(named));
    for (backend, device) in options.select.devices() {
        println!("\n== {backend}: {}\n", device.description());
        eprintln!("launches (with LONGSEQ_TRACE=1)");
        println!("{}\n", explain::trace(&device, named)?);
        print!("{}", explain::errors(&device, named)?);
    }
    Ok(())
}

/// Runs this very command with `LONGSEQ_TRACE=1`.
fn again_with_trace() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot run this program again: {error}"));
    let status = Command::new(std::env::current_exe().map_err(failed)?)
        .args(std::env::args_os().skip(1))
        .env("LONGSEQ_TRACE", "1")
        .status()
        .map_err(failed)?;
    if status.success() { Ok(()) } else { std::process::exit(status.code().unwrap_or(1)) }
}
