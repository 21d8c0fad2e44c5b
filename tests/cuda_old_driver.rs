//! The oldest driver that will do: every function that CUDA 11.4 did not have yet is missing from its library, and
//! cudarc panics where one is asked for. A process has one driver, so these tests are in one of their own.

#![cfg(feature = "cuda")]

mod support;

use cuda_emulator::{CudaVersion, Device, Emulator};
use longseq::*;
use support::attention::{AttentionCase, MergeCase};
use support::decoupled::DecoupledCase;
use support::din::DinCase;
use support::lookup::LookupCase;
use support::sdim::SdimCase;
use support::{Rules, assert_check};

#[test]
fn every_operation_runs_on_a_driver_of_cuda_11_4() {
    let oldest = CudaVersion::new(11, 4);
    let device = Device::sm_80().with_driver_version(oldest);
    let emulator = match Emulator::installer(device).hide_functions_newer_than(oldest).install() {
        Ok(emulator) => emulator,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let gpu = Cuda::new(0).expect("a device");
    let rules = Rules::IEEE;
    assert_check(&AttentionCase { histories: vec![3000], ..Default::default() }, &gpu, rules);
    assert_check(&MergeCase { seed: 1, rows: 9, value_width: 4 }, &gpu, rules);
    assert_check(&DinCase { histories: vec![300], ..Default::default() }, &gpu, rules);
    assert_check(&SdimCase { histories: vec![300], ..Default::default() }, &gpu, rules);
    assert_check(&LookupCase::default(), &gpu, rules);
    assert_check(&DecoupledCase { histories: vec![300], ..Default::default() }, &gpu, rules);
    drop(gpu);
    assert!(emulator.take_leaks().is_empty());
}
