use cuda_emulator::control::AllocationKind;
use cuda_emulator::{Device, Emulator};
use cudarc::driver::{CudaContext, DevicePtr, result, sys};

use super::support::{CUresult, stream};

#[test]
fn copies_work_in_all_directions() {
    let (_emulator, _context, stream) = stream();
    let numbers: Vec<u32> = (0..1000).collect();
    let first = stream.clone_htod(&numbers).unwrap();
    let mut second = stream.alloc_zeros::<u32>(1000).unwrap();
    stream.memcpy_dtod(&first.slice(10..20), &mut second.slice_mut(500..510)).unwrap();
    let mut expected = vec![0; 1000];
    expected[500..510].copy_from_slice(&numbers[10..20]);
    assert_eq!(stream.clone_dtoh(&second).unwrap(), expected);
    assert_eq!(stream.clone_dtoh(&first.try_clone().unwrap()).unwrap(), numbers);
}

#[test]
fn copies_without_a_stream_work_too() {
    let (_emulator, _context, _stream) = stream();
    let address = unsafe { result::malloc_sync(8) }.unwrap();
    let mut back = [0_u16; 4];
    unsafe {
        result::memcpy_htod_sync(address, &[1_u16, 2, 3, 4]).unwrap();
        result::memcpy_dtod_sync(address + 4, address, 4).unwrap();
        result::memcpy_dtoh_sync(&mut back, address).unwrap();
        result::free_sync(address).unwrap();
    }
    assert_eq!(back, [1, 2, 1, 2]);
}

#[test]
fn memory_is_set_to_values_of_one_two_and_four_bytes() {
    let (_emulator, _context, _stream) = stream();
    let address = unsafe { result::malloc_sync(16) }.unwrap();
    let mut back = [0_u8; 16];
    unsafe {
        sys::cuMemsetD32_v2(address, 0x0403_0201, 4).result().unwrap();
        sys::cuMemsetD16_v2(address + 2, 0xBBAA, 2).result().unwrap();
        sys::cuMemsetD8_v2(address + 15, 9, 1).result().unwrap();
        result::memcpy_dtoh_sync(&mut back, address).unwrap();
        let unaligned = sys::cuMemsetD32_v2(address + 2, 0, 1);
        assert_eq!(unaligned, CUresult::CUDA_ERROR_INVALID_VALUE);
        result::free_sync(address).unwrap();
    }
    assert_eq!(back, [1, 2, 0xAA, 0xBB, 0xAA, 0xBB, 3, 4, 1, 2, 3, 4, 1, 2, 3, 9]);
}

#[test]
fn a_copy_past_the_end_of_the_allocation_is_rejected_and_explained() {
    let (emulator, _context, stream) = stream();
    let slice = stream.alloc_zeros::<u8>(100).unwrap();
    let (address, _guard) = slice.device_ptr(&stream);
    let mut host = [0_u8; 101];
    let error = unsafe { result::memcpy_dtoh_sync(&mut host, address) }.unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
    let error = unsafe { result::memcpy_htod_sync(address + 99, &[1_u8, 2]) }.unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
    let misuse = &emulator.misuses()[1];
    assert_eq!(misuse.call, "cuMemcpyHtoD_v2");
    assert!(misuse.message.contains(&format!("{:#x}", address + 99)), "{misuse}");
}

#[test]
fn a_double_free_is_rejected() {
    let (emulator, _context, _stream) = stream();
    let address = unsafe { result::malloc_sync(8) }.unwrap();
    unsafe { result::free_sync(address) }.unwrap();
    for wrong in [address, address + 4, 0x1234] {
        let error = unsafe { result::free_sync(wrong) }.unwrap_err();
        assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
    }
    assert_eq!(emulator.misuses().len(), 3);
    // Freeing a null address is valid.
    unsafe { result::free_sync(0) }.unwrap();
}

#[test]
fn memory_info_follows_allocations() {
    let (emulator, context, stream) = stream();
    let before = context.mem_get_info().unwrap();
    assert_eq!(before, (80 << 30, 80 << 30));
    let slice = stream.alloc_zeros::<f32>(1 << 20).unwrap();
    let (free, total) = context.mem_get_info().unwrap();
    assert_eq!(total, before.1);
    assert!(free <= before.0 - (4 << 20));
    let live = emulator.live_allocations();
    assert_eq!((live.len(), live[0].bytes, live[0].kind), (1, 4 << 20, AllocationKind::Pool));
    drop(slice);
    assert_eq!(context.mem_get_info().unwrap(), before);
    assert_eq!(emulator.live_allocations(), []);
}

#[test]
fn a_small_device_runs_out_of_memory() {
    let _emulator = Emulator::install(Device::sm_80().with_total_memory(1 << 20)).unwrap();
    let stream = CudaContext::new(0).unwrap().default_stream();
    let half = stream.alloc_zeros::<u8>(600_000).unwrap();
    let error = stream.alloc_zeros::<u8>(600_000).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    drop(half);
    stream.alloc_zeros::<u8>(600_000).unwrap();
}

#[test]
fn a_size_of_zero_allocates_nothing() {
    let (emulator, _context, stream) = stream();
    let empty = stream.alloc_zeros::<f32>(0).unwrap();
    assert!(stream.clone_dtoh(&empty).unwrap().is_empty());
    drop(empty);
    assert_eq!(unsafe { result::malloc_sync(0) }.unwrap_err().0, CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(emulator.live_allocations(), []);
}

#[test]
fn what_a_context_still_holds_when_destroyed_is_a_leak() {
    let (emulator, context, stream) = stream();
    let kept = stream.clone_htod(&[1.0_f32, 2.0]).unwrap().leak();
    assert_ne!(kept, 0);
    drop((stream, context));
    let leaks = emulator.take_leaks();
    assert_eq!(leaks.len(), 1);
    assert_eq!(leaks[0].allocations.len(), 1);
    assert_eq!((leaks[0].allocations[0].address, leaks[0].allocations[0].bytes), (kept, 8));
    // It was freed together with the context.
    assert!(emulator.live().is_empty_but_for_contexts());
}

#[test]
fn page_locked_memory_is_host_memory() {
    let (emulator, context, stream) = stream();
    let mut pinned = unsafe { context.alloc_pinned::<u32>(100) }.unwrap();
    assert_eq!(emulator.live_allocations()[0].kind, AllocationKind::Host);
    for (index, value) in pinned.as_mut_slice().unwrap().iter_mut().enumerate() {
        *value = index as u32;
    }
    let device = stream.clone_htod(&pinned).unwrap();
    pinned.as_mut_slice().unwrap().fill(0);
    stream.memcpy_dtoh(&device, &mut pinned).unwrap();
    assert_eq!(pinned.as_slice().unwrap()[99], 99);
    drop((pinned, device));
    assert_eq!(emulator.live_allocations(), []);
    let mut nothing = 0_u8;
    let error = unsafe { result::free_host((&raw mut nothing).cast()) }.unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn copies_cross_contexts() {
    let (_emulator, _context, stream) = stream();
    let first = stream.clone_htod(&[7_u8; 32]).unwrap();
    let mut foreign = std::ptr::null_mut();
    unsafe { sys::cuCtxCreate_v4(&mut foreign, std::ptr::null_mut(), 0, 0) }.result().unwrap();
    let other = unsafe { CudaContext::from_raw_context(0, 0, foreign) }.unwrap();
    let second = other.default_stream().clone_dtod(&first).unwrap();
    assert_eq!(other.default_stream().clone_dtoh(&second).unwrap(), [7; 32]);
}

#[test]
fn unsupported_features_are_reported_as_such() {
    let (emulator, context, _stream) = stream();
    use sys::CUdevice_attribute as Attribute;
    assert_eq!(context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY).unwrap(), 0);
    let flags = sys::CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL;
    let error = unsafe { result::malloc_managed(16, flags) }.unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(emulator.misuses()[0].message, "managed memory is not emulated");
}
