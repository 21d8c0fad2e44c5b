//! The oldest supported driver: every function that came after CUDA 11.4 is missing from its library, and cudarc panics
//! where one is asked for. A process loads one driver, so the test runs in a process of its own.

use cuda_emulator::{CudaVersion, Device, Emulator};
use longseq::*;
use longseq_check::decoupled::DecoupledCase;
use longseq_check::device::assert_check;
use longseq_check::din::DinCase;
use longseq_check::lookup::LookupCase;
use longseq_check::sdim::SdimCase;
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase, MergeCase};

#[test]
fn every_operation_runs_on_a_driver_of_cuda_11_4() {
    crate::alone::run("cuda::old_driver::runs_on_the_oldest_driver", "true");
}

#[test]
#[ignore = "run by every_operation_runs_on_a_driver_of_cuda_11_4, in a process that has loaded no driver"]
fn runs_on_the_oldest_driver() {
    let oldest = CudaVersion::new(11, 4);
    let device = Device::sm_80().with_driver_version(oldest);
    let emulator = match Emulator::installer(device).hide_functions_newer_than(oldest).install() {
        Ok(emulator) => emulator,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let gpu = Cuda::new(0).expect("a device");
    let attention = AttentionCase { histories: vec![3000], ..Default::default() };
    assert_check(&attention, &gpu);
    assert_check(&AttentionBackwardCase { forward: attention, ..Default::default() }, &gpu);
    assert_check(&MergeCase::default(), &gpu);
    assert_check(&DinCase { histories: vec![300], ..Default::default() }, &gpu);
    assert_check(&SdimCase { histories: vec![300], ..Default::default() }, &gpu);
    assert_check(&LookupCase::default(), &gpu);
    assert_check(&DecoupledCase { histories: vec![300], ..Default::default() }, &gpu);
    drop(gpu);
    assert!(emulator.take_leaks().is_empty());
}
