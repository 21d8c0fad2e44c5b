//! Calls a small case on `Cpu`, on one thread, for an instruction counter: see `scripts/check-instructions`. Without the
//! name of a case it prints the names.

use longseq::Cpu;
use longseq_check::cases::small;
use longseq_check::device::TestDevice;
use longseq_check::{Call, Failure, Named};

/// The counter counts this function, which it knows by its name.
#[inline(never)]
fn counted_call(call: &mut Call<'_>) -> Result<(), Failure> {
    call()
}

fn count(case: &Named) -> Result<(), Failure> {
    Cpu::new().measure_case(case, &mut |call| {
        // Work done once per process, such as detecting instruction sets, does not count.
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
    if let Err(failure) = pool.install(|| count(case)) {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}
