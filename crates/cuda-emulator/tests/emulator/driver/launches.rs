use std::sync::Arc;

use cuda_emulator::control::ErrorDelivery;
use cuda_emulator::exec::{Class, FindingKind};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg,
};

use super::support::{CUresult, blocks_of_64, emulator, kernel, stream};

fn saxpy(
    stream: &Arc<CudaStream>,
    function: &CudaFunction,
    y: &mut CudaSlice<f32>,
    x: &CudaSlice<f32>,
    a: f32,
    n: u32,
) -> Result<(), DriverError> {
    let mut launch = stream.launch_builder(function);
    launch.arg(y).arg(x).arg(&a).arg(&n);
    unsafe { launch.launch(blocks_of_64(n)) }.map(drop)
}

#[test]
fn arguments_have_the_sizes_that_the_ptx_declares() {
    let (emulator, context, stream) = stream();
    let function = kernel(&context, "saxpy");
    let n = 1000;
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let (device_x, mut y) = (stream.clone_htod(&x).unwrap(), stream.clone_htod(&vec![1.0; n]).unwrap());
    saxpy(&stream, &function, &mut y, &device_x, 2.0, n as u32).unwrap();
    let expected: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0).collect();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), expected);

    let counts = emulator.take_counts();
    assert_eq!(counts.len(), 1);
    assert_eq!(
        (counts[0].kernel.as_str(), counts[0].grid, counts[0].block),
        ("saxpy", [16, 1, 1], [64, 1, 1])
    );
    // 32 warps, the last one with 8 lanes in range; three accesses each.
    assert_eq!(counts[0].counts.of(Class::Global), 32 * 3);
    assert_eq!(counts[0].counts.blocks, 16);
    assert_eq!(counts[0].counts.global_bytes_written, 4000);
    assert_eq!(emulator.counts(), []);
}

#[test]
fn launches_on_several_streams_and_threads_are_independent() {
    let emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let function = kernel(&context, "saxpy");
    std::thread::scope(|scope| {
        for thread in 0..4_u16 {
            let (context, function) = (&context, &function);
            scope.spawn(move || {
                let stream = context.new_stream().unwrap();
                let x = stream.clone_htod(&[f32::from(thread); 128]).unwrap();
                let mut y = stream.alloc_zeros::<f32>(128).unwrap();
                for _ in 0..10 {
                    saxpy(&stream, function, &mut y, &x, 1.0, 128).unwrap();
                }
                assert_eq!(stream.clone_dtoh(&y).unwrap(), [f32::from(thread * 10); 128]);
            });
        }
    });
    assert_eq!(emulator.counts().len(), 40);
    assert_eq!(emulator.live_allocations(), []);
}

#[test]
fn dimensions_that_no_device_supports_are_rejected() {
    let (emulator, context, stream) = stream();
    let (saxpy, shared) = (kernel(&context, "saxpy"), kernel(&context, "shared_memory"));
    let shape =
        |grid_dim, block_dim, shared_mem_bytes| LaunchConfig { grid_dim, block_dim, shared_mem_bytes };
    for (function, config) in [
        (&saxpy, shape((0, 1, 1), (64, 1, 1), 0)),
        (&saxpy, shape((1, 1, 1), (0, 1, 1), 0)),
        (&saxpy, shape((1, 1, 1), (1025, 1, 1), 0)),
        (&saxpy, shape((1, 1, 1), (512, 4, 1), 0)),
        (&saxpy, shape((1, 1, 1), (1, 1, 65), 0)),
        (&saxpy, shape((1, 65_536, 1), (1, 1, 1), 0)),
        (&saxpy, shape((1, 1, 1), (64, 1, 1), 48 * 1024 + 1)),
        (&shared, shape((1, 1, 1), (129, 1, 1), 0)),
        (&shared, shape((1, 1, 1), (128, 1, 1), 47 * 1024 + 1)),
    ] {
        let mut launch = stream.launch_builder(function);
        launch.arg(&0_u64).arg(&0_u64).arg(&0_f32).arg(&0_u32);
        let error = unsafe { launch.launch(config) }.unwrap_err();
        assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE, "{config:?}");
    }
    assert_eq!(emulator.counts(), []);
    assert_eq!(emulator.misuses().len(), 9);
}

#[test]
fn large_dynamic_shared_memory_can_be_launched_after_opting_in() {
    let (emulator, context, stream) = stream();
    let function = kernel(&context, "shared_memory");
    let limit = cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(limit, 100 * 1024).unwrap();
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 100 * 1024 };
    let mut launch = stream.launch_builder(&function);
    let structure = [0_u64; 3];
    launch.arg(&structure).arg(&1_u8);
    unsafe { launch.launch(config) }.unwrap();
    let counts = &emulator.counts()[0];
    assert_eq!((counts.static_shared_bytes, counts.dynamic_shared_bytes), (1024, 100 * 1024));
}

#[test]
fn cooperative_launches_are_reported_as_unsupported() {
    let (_emulator, context, stream) = stream();
    use cudarc::driver::sys::CUdevice_attribute as Attribute;
    assert_eq!(context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH).unwrap(), 0);
    let function = kernel(&context, "shared_memory");
    let mut launch = stream.launch_builder(&function);
    let error = unsafe { launch.launch_cooperative(blocks_of_64(64)) }.unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_NOT_SUPPORTED);
}

#[test]
fn a_finding_fails_the_launch_and_no_later_call() {
    let (emulator, context, stream) = stream();
    let function = kernel(&context, "saxpy");
    let x = stream.clone_htod(&[1.0_f32; 64]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(64).unwrap();
    let error = saxpy(&stream, &function, &mut y, &x, 1.0, 1000).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    let findings = emulator.take_findings();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].kind, findings[0].kernel.as_str()), (FindingKind::OutOfBounds, "saxpy"));
    assert_eq!(emulator.counts(), []);

    saxpy(&stream, &function, &mut y, &x, 1.0, 64).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(emulator.findings(), []);
}

#[test]
fn a_finding_can_be_returned_by_the_synchronisation_as_on_a_device() {
    let (emulator, context, stream) = stream();
    emulator.set_error_delivery(ErrorDelivery::AtSynchronisation);
    let function = kernel(&context, "saxpy");
    let x = stream.clone_htod(&[1.0_f32; 64]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(64).unwrap();
    let illegal = Err(DriverError(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
    saxpy(&stream, &function, &mut y, &x, 1.0, 1000).unwrap();
    assert_eq!(stream.synchronize(), illegal);
    stream.synchronize().unwrap();
    // A copy to the host synchronises as well.
    saxpy(&stream, &function, &mut y, &x, 1.0, 1000).unwrap();
    assert_eq!(stream.clone_dtoh(&y).map(drop), illegal);
    assert_eq!(emulator.findings().len(), 2);
}

#[test]
fn sticky_errors_fail_all_calls_until_the_context_is_destroyed() {
    let (emulator, context, stream) = stream();
    emulator.set_sticky_errors(true);
    let function = kernel(&context, "saxpy");
    let x = stream.clone_htod(&[1.0_f32; 64]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(64).unwrap();
    let illegal = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
    assert_eq!(saxpy(&stream, &function, &mut y, &x, 1.0, 1000).unwrap_err().0, illegal);
    assert_eq!(stream.synchronize().unwrap_err().0, illegal);
    assert_eq!(stream.alloc_zeros::<u8>(1).unwrap_err().0, illegal);
    assert_eq!(context.mem_get_info().unwrap_err().0, illegal);
    drop((x, y, function, stream, context));
    assert_eq!(emulator.leaks(), [], "freeing works in a context with a sticky error");

    let context = CudaContext::new(0).unwrap();
    context.default_stream().alloc_zeros::<u8>(1).unwrap();
}
