//! `longseq-check explain`.

use clap::Args;
use longseq::DeviceOps;
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
    println!("{}", explain::describe(named));
    for (backend, device) in options.select.devices() {
        println!("\n== {backend}: {}\n", device.device());
        println!("{}\n", explain::trace(&device, named)?);
        print!("{}", explain::errors(&device, named)?);
    }
    Ok(())
}
