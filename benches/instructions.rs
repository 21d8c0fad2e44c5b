//! The calls of the small cases on `Cpu`, one thread, for an instruction counter: see `scripts/check-instructions`.

#[path = "../tests/support/mod.rs"]
mod support;

use longseq::Cpu;
use support::cases::small;
use support::{Call, Failure};

/// What the counter counts: it knows the function by its name.
#[inline(never)]
fn counted_call(call: &mut Call<'_>) -> Result<(), Failure> {
    call()
}

/// Prints the name of each case after its counted call.
fn count_all() -> Result<(), Failure> {
    for case in small() {
        case.measure(&Cpu::new(), &mut |call| {
            // What is done once a process, such as asking what the processor can do, does not count.
            call()?;
            counted_call(call)
        })?;
        println!("{}", case.name);
    }
    Ok(())
}

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    if let Err(Failure(message)) = pool.install(count_all) {
        eprintln!("{message}");
        std::process::exit(1);
    }
}
