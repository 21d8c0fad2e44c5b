//! `longseq-check preload`.

use std::time::Instant;

use clap::Args;
use longseq::prelude::*;
use longseq_check::{Failure, preload};

use crate::select::Select;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    select: Select,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut failed = 0;
    for (backend, device) in options.select.devices() {
        println!("{backend}: {}", device.device());
        let (start, mut count) = (Instant::now(), 0);
        preload::each(&device, &mut |name, seconds| {
            count += 1;
            match seconds {
                Ok(seconds) => println!("{backend}/{name}\t{:.2} ms", seconds * 1e3),
                Err(failure) => {
                    failed += 1;
                    println!("{backend}/{name}\tFAILED: {failure}");
                }
            }
        })?;
        println!("{backend}\t{count} in {:.2} ms\n", start.elapsed().as_secs_f64() * 1e3);
    }
    if failed > 0 { Err(Failure::new(format!("{failed} kernels were not compiled"))) } else { Ok(()) }
}
