//! A machine without any CUDA driver. A process keeps the driver it loads, so the test runs in a process of its own.

use longseq::{Cuda, Error};

#[test]
fn a_machine_without_a_driver_gets_an_error() {
    crate::alone::run("cuda::without_driver::finds_no_driver", "true");
}

#[test]
#[ignore = "run by a_machine_without_a_driver_gets_an_error, in a process that has loaded no driver"]
fn finds_no_driver() {
    match Cuda::new(0) {
        Err(error @ Error::NoCudaDriver { .. }) => {
            assert_eq!(
                error.to_string(),
                "no CUDA driver: the NVIDIA driver's library libcuda.so (nvcuda.dll) cannot be loaded"
            );
            assert!(!Cuda::is_available());
        }
        other => eprintln!("skipped: this machine has a CUDA driver ({:?})", other.map(|_| "and a device")),
    }
}
