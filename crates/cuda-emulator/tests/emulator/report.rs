//! Occupancy and modelled times.

use cuda_emulator::Device;
use cuda_emulator::exec::{Class, Counts};
use cuda_emulator::report::{Limits, Occupancy, Report, Resources, Restriction, Target, Unit};

fn counts_of(class: Class, instructions: u64) -> Counts {
    let mut counts = Counts::default();
    counts.instructions[class as usize] = instructions;
    counts
}

fn report(blocks: u64, counts: &Counts) -> Report {
    Report::new(&Target::a100(), Resources { registers: 32, ..Resources::default() }, blocks, 256, counts)
}

#[test]
fn the_unit_with_the_most_clocks_binds() {
    let report = report(108, &counts_of(Class::Special, 108 * 1000));
    assert_eq!(report.busiest(), Unit::Special);
    assert!((report.issue_seconds - 2000.0 / 1.41e9).abs() < 1e-12);
}

#[test]
fn blocks_that_do_not_fill_the_gpu_leave_multiprocessors_idle() {
    let work = counts_of(Class::Float, 216_000);
    let even = report(216, &work).issue_seconds;
    assert!((report(109, &work).issue_seconds / even - 216.0 / 109.0).abs() < 1e-9);
    assert!((report(1, &work).issue_seconds / even - 108.0).abs() < 1e-9);
    assert_eq!(report(108 * 8 + 1, &work).waves, 2.0);
}

#[test]
fn memory_time_is_sectors_over_bandwidth() {
    let counts = Counts { global_sectors: 2_039_000, global_sectors_minimum: 1_019_500, ..Counts::default() };
    let report = report(1, &counts);
    assert!((report.memory_seconds - 32e-6).abs() < 1e-12);
    assert!((report.memory_seconds_minimum - 16e-6).abs() < 1e-12);
}

fn on(device: &Device, threads: u32, registers: u32, shared: u32) -> Occupancy {
    Occupancy::new(&Limits::from(device), threads, registers, shared)
}

#[test]
fn each_resource_can_be_the_one_that_runs_out() {
    let a100 = Device::sm_80();
    let full = on(&a100, 256, 32, 0);
    assert_eq!((full.blocks, full.warps, full.restriction), (8, 64, Restriction::Warps));
    let small = on(&a100, 32, 16, 0);
    assert_eq!((small.blocks, small.restriction), (32, Restriction::Blocks));
    // 127 registers are 4096 a warp: 16 warps, 4 in each partition.
    let registers = on(&a100, 128, 127, 0);
    assert_eq!((registers.blocks, registers.warps, registers.restriction), (4, 16, Restriction::Registers));
    // 46 KiB and the reserved one: three blocks in 164 KiB.
    let shared = on(&a100, 128, 64, 46 * 1024);
    assert_eq!((shared.blocks, shared.warps, shared.restriction), (3, 12, Restriction::Shared));
}

#[test]
fn a_block_that_does_not_fit_has_no_occupancy() {
    assert_eq!(on(&Device::sm_80(), 1024, 128, 0).blocks, 0);
    assert_eq!(on(&Device::sm_80(), 128, 32, 164 * 1024).blocks, 0);
    assert_eq!(on(&Device::sm_90(), 128, 32, 164 * 1024).blocks, 1);
}

const OUTPUT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'reduce' for 'sm_80'
ptxas info    : Function properties for reduce
8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'reduce_again' for 'sm_80'
ptxas info    : Function properties for reduce_again
0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, 360 bytes cmem[0]
";

#[test]
fn figures_are_those_of_the_kernel_named() {
    let expected = Resources { registers: 40, stack: 8, spill_stores: 4, spill_loads: 12, shared: 1024 };
    assert_eq!(Resources::from_ptxas(OUTPUT, "reduce"), Some(expected));
    let expected = Resources { registers: 10, ..Resources::default() };
    assert_eq!(Resources::from_ptxas(OUTPUT, "reduce_again"), Some(expected));
    assert_eq!(Resources::from_ptxas(OUTPUT, "scan"), None);
}
