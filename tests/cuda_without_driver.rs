//! A machine without any CUDA driver. A process has one driver or none, so this test is alone in its own.

#![cfg(feature = "cuda")]

use longseq::{Cuda, Error};

#[test]
fn a_machine_without_a_driver_gets_an_error() {
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
