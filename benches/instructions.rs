//! Calls a small case on `Cpu`, one thread, for an instruction counter: see `scripts/check-instructions`. Without the
//! name of a case it prints the names.

#[path = "../tests/support/mod.rs"]
mod support;

use longseq::Cpu;
use support::cases::{Named, small};
use support::{Call, Failure};

/// What the counter counts: it knows the function by its name.
#[inline(never)]
fn counted_call(call: &mut Call<'_>) -> Result<(), Failure> {
    call()
}

fn count(case: &Named) -> Result<(), Failure> {
    case.measure(&Cpu::new(), &mut |call| {
        // What is done once a process, such as asking what the processor can do, does not count.
        call()?;
        counted_call(call)
    })
}

fn main() {
    let Some(name) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) else {
        small().iter().for_each(|case| println!("{}", case.name));
        return;
    };
    let cases = small();
    let case = cases.iter().find(|case| case.name == name).expect("the name of a case");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    if let Err(Failure(message)) = pool.install(|| count(case)) {
        eprintln!("{message}");
        std::process::exit(1);
    }
}
