//! What a driver accepts during a capture although the graph cannot work, and what the emulator reports for it.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_emulator::Emulator;
use cuda_emulator::control::AllocationKind;
use cuda_emulator::exec::FindingKind;
use cudarc::driver::sys::{CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};
use cudarc::driver::sys::{CUstream_flags, CUstreamCaptureStatus as Status};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, PushKernelArg, result, sys};

use super::graphs::{MODE, untracked};
use super::support::{CUresult, blocks_of_64, emulator, kernel};

fn error<T>(code: CUresult) -> Result<T, DriverError> {
    Err(DriverError(code))
}

#[test]
fn memory_allocated_in_a_capture_is_the_graphs_and_exists_once_it_is_launched() {
    let emulator = emulator();
    let (_context, stream) = untracked();
    stream.begin_capture(MODE).unwrap();
    let slice = stream.alloc_zeros::<u32>(4).unwrap();
    let graph = stream.end_capture(Flags(0)).unwrap().unwrap();

    assert_eq!(emulator.live_allocations(), [], "a reservation is not an allocation");
    assert_eq!(stream.clone_dtoh(&slice).err(), Some(DriverError(CUresult::CUDA_ERROR_INVALID_VALUE)));
    assert!(emulator.take_misuses()[0].message.contains("has no memory now"));

    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&slice).unwrap(), [0; 4]);
    assert_eq!(emulator.live_allocations()[0].kind, AllocationKind::Graph);
    // It must be freed before the next launch.
    assert_eq!(graph.launch(), error(CUresult::CUDA_ERROR_INVALID_VALUE));
    assert!(emulator.take_misuses()[0].message.contains("still allocated"));
    drop(slice);
    assert_eq!(emulator.live_allocations(), []);
    graph.launch().unwrap();
    assert_eq!(emulator.live_allocations().len(), 1);
    // Memory outlives the graph that allocated it.
    drop(graph);
    let address = emulator.live_allocations()[0].address;
    unsafe { result::free_async(address, stream.cu_stream()) }.unwrap();
    assert_eq!(emulator.live_allocations(), []);
}

#[test]
fn a_graph_can_free_its_memory_itself_or_at_the_next_launch() {
    let emulator = emulator();
    let (_context, stream) = untracked();
    for (flags, freed) in [(Flags(0), true), (Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH, false)]
    {
        stream.begin_capture(MODE).unwrap();
        let slice = stream.alloc_zeros::<u32>(4).unwrap();
        let address = if freed {
            drop(slice);
            None
        } else {
            Some(slice.leak())
        };
        let graph = stream.end_capture(flags).unwrap().unwrap();
        for _ in 0..3 {
            graph.launch().unwrap();
            assert_eq!(emulator.live_allocations().len(), usize::from(!freed));
        }
        if let Some(address) = address {
            unsafe { result::free_async(address, stream.cu_stream()) }.unwrap();
        }
        assert_eq!(graph.clone_fails(), CUresult::CUDA_ERROR_INVALID_VALUE);
    }
    assert_eq!(emulator.live_allocations(), []);
}

trait Clones {
    fn clone_fails(&self) -> CUresult;
}

impl Clones for cudarc::driver::CudaGraph {
    /// Graphs with allocations can be neither cloned nor instantiated twice.
    fn clone_fails(&self) -> CUresult {
        let (mut copy, mut second) = (std::ptr::null_mut(), std::ptr::null_mut());
        let again = unsafe { sys::cuGraphInstantiateWithFlags(&mut second, self.cu_graph(), 0) };
        assert_eq!(again, CUresult::CUDA_ERROR_INVALID_VALUE);
        unsafe { sys::cuGraphClone(&mut copy, self.cu_graph()) }
    }
}

#[test]
fn a_capture_cannot_free_what_is_not_a_graphs() {
    let emulator = emulator();
    let (context, stream) = untracked();
    let slice = stream.alloc_zeros::<u32>(4).unwrap();
    stream.begin_capture(MODE).unwrap();
    drop(slice);
    assert_eq!(context.check_err(), error(CUresult::CUDA_ERROR_INVALID_VALUE));
    let inside = stream.alloc_zeros::<u32>(4).unwrap().leak();
    unsafe { result::free_async(inside, stream.cu_stream()) }.unwrap();
    let again = unsafe { result::free_async(inside, stream.cu_stream()) };
    assert_eq!(again, error(CUresult::CUDA_ERROR_INVALID_VALUE));
    assert!(emulator.take_misuses()[0].message.contains("is not an allocation of a graph"));
    stream.end_capture(Flags(0)).unwrap().unwrap();
    assert_eq!(emulator.live_allocations().len(), 1, "the slice has leaked");
}

/// A page of host memory that can be taken away.
struct Page(*mut c_void);

unsafe extern "C" {
    fn mmap(at: *mut c_void, bytes: usize, access: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
    fn mprotect(at: *mut c_void, bytes: usize, access: i32) -> i32;
}

impl Page {
    fn new() -> Self {
        // Readable and writable, private, anonymous.
        Self(unsafe { mmap(std::ptr::null_mut(), 4096, 3, 0x22, -1, 0) })
    }

    fn words(&mut self) -> &mut [u32] {
        unsafe { std::slice::from_raw_parts_mut(self.0.cast(), 4) }
    }

    fn take_away(&self) {
        assert_eq!(unsafe { mprotect(self.0, 4096, 0) }, 0);
    }
}

#[test]
fn a_graph_that_copies_from_or_to_host_memory_that_is_gone_is_reported() {
    let emulator = emulator();
    let (_context, stream) = untracked();
    for to_host in [false, true] {
        let mut page = Page::new();
        let mut device = stream.alloc_zeros::<u32>(4).unwrap();
        stream.begin_capture(MODE).unwrap();
        if to_host {
            stream.memcpy_dtoh(&device, page.words()).unwrap();
        } else {
            page.words().fill(3);
            stream.memcpy_htod(page.words(), &mut device).unwrap();
        }
        let graph = stream.end_capture(Flags(0)).unwrap().unwrap();
        graph.launch().unwrap();
        assert_eq!(page.words(), [if to_host { 0 } else { 3 }; 4]);
        page.take_away();
        assert_eq!(graph.launch(), error(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        let finding = &emulator.take_findings()[0];
        assert_eq!(finding.kind, FindingKind::HostMemory);
        assert!(finding.to_string().contains("was freed before the copy"), "{finding}");
    }
}

/// `capture` begins a capture, and returns what frees something that the graph names, and may return what is to stay: the next
/// launch is a finding.
fn named(
    emulator: &Emulator,
    what: &str,
    capture: impl FnOnce(&Arc<CudaContext>, &Arc<CudaStream>) -> Box<dyn FnOnce() -> Option<CudaFunction>>,
) {
    let (context, stream) = untracked();
    let free = capture(&context, &stream);
    let graph = stream.end_capture(Flags(0)).unwrap().unwrap();
    graph.launch().unwrap();
    stream.synchronize().unwrap();
    let kept = free();
    assert_eq!(graph.launch(), error(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), "{what}");
    let findings = emulator.take_findings();
    assert_eq!(findings[0].kind, FindingKind::UseAfterFree, "{what}: {}", findings[0]);
    assert!(findings[0].message.contains("the graph names"), "{what}: {}", findings[0]);
    assert!(findings[0].to_string().contains("cuGraphLaunch"), "{what}: {}", findings[0]);
    assert_eq!(findings.len(), 1, "{what}: nothing of the graph runs");
    drop(kept);
}

#[test]
fn freed_memory_that_a_graph_still_names_is_reported_at_its_launch() {
    let emulator = emulator();
    named(&emulator, "a memset", |_, stream| {
        let mut slice = stream.alloc_zeros::<u32>(4).unwrap();
        stream.begin_capture(MODE).unwrap();
        stream.memset_zeros(&mut slice).unwrap();
        Box::new(|| {
            drop(slice);
            None
        })
    });
    named(&emulator, "a copy", |_, stream| {
        let (from, mut to) = (stream.alloc_zeros::<u32>(4).unwrap(), stream.alloc_zeros::<u32>(4).unwrap());
        stream.begin_capture(MODE).unwrap();
        stream.memcpy_dtod(&from, &mut to).unwrap();
        to.leak();
        Box::new(|| {
            drop(from);
            None
        })
    });
    named(&emulator, "a parameter that the kernel does not use", |context, stream| {
        let saxpy = kernel(context, "saxpy");
        let (mut y, x) = (stream.alloc_zeros::<f32>(64).unwrap(), stream.alloc_zeros::<f32>(64).unwrap());
        stream.begin_capture(MODE).unwrap();
        let mut launch = stream.launch_builder(&saxpy);
        launch.arg(&mut y).arg(&x).arg(&2.0_f32).arg(&0_u32);
        unsafe { launch.launch(blocks_of_64(64)) }.unwrap();
        y.leak();
        Box::new(|| {
            drop(x);
            Some(saxpy)
        })
    });
    named(&emulator, "a module", |context, stream| {
        let saxpy = kernel(context, "saxpy");
        let (mut y, x) = (stream.alloc_zeros::<f32>(64).unwrap(), stream.alloc_zeros::<f32>(64).unwrap());
        stream.begin_capture(MODE).unwrap();
        let mut launch = stream.launch_builder(&saxpy);
        launch.arg(&mut y).arg(&x).arg(&2.0_f32).arg(&0_u32);
        unsafe { launch.launch(blocks_of_64(64)) }.unwrap();
        y.leak();
        x.leak();
        Box::new(|| {
            drop(saxpy);
            None
        })
    });
    named(&emulator, "page-locked memory", |context, stream| {
        let pinned = unsafe { context.alloc_pinned::<u32>(4) }.unwrap();
        let mut to = stream.alloc_zeros::<u32>(4).unwrap();
        stream.begin_capture(MODE).unwrap();
        stream.memcpy_htod(&pinned, &mut to).unwrap();
        to.leak();
        Box::new(|| {
            drop(pinned);
            None
        })
    });
}

/// Calls that are no part of a graph, by the mode of the capture and the thread that makes them.
#[test]
fn unsafe_calls_during_a_capture_are_refused_by_its_mode() {
    let emulator = emulator();
    let (context, stream) = untracked();
    let event = context.new_event(None).unwrap();
    let address = unsafe { result::malloc_sync(8) }.unwrap();
    let calls: [(&str, &(dyn Fn() -> CUresult + Sync)); 7] = [
        ("cuMemAlloc", &|| unsafe { sys::cuMemAlloc_v2(&mut 0, 8) }),
        ("cuMemFree", &|| unsafe { sys::cuMemFree_v2(0) }),
        ("cuMemHostAlloc", &|| unsafe { sys::cuMemHostAlloc(&mut std::ptr::null_mut(), 8, 0) }),
        ("cuMemcpyHtoD", &|| unsafe { sys::cuMemcpyHtoD_v2(address, (&raw const address).cast(), 8) }),
        ("cuMemsetD8", &|| unsafe { sys::cuMemsetD8_v2(address, 0, 8) }),
        (
            "cuModuleLoadData",
            &|| match context.load_module(cudarc::nvrtc::Ptx::from_src(super::support::PTX)) {
                Ok(_) => CUresult::CUDA_SUCCESS,
                Err(error) => error.0,
            },
        ),
        ("cuEventQuery", &|| match event.try_is_complete() {
            Ok(_) => CUresult::CUDA_SUCCESS,
            Err(error) => error.0,
        }),
    ];
    let modes = [
        (Mode::CU_STREAM_CAPTURE_MODE_GLOBAL, [false, false]),
        (Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, [false, true]),
        (Mode::CU_STREAM_CAPTURE_MODE_RELAXED, [true, true]),
    ];
    for (name, call) in calls {
        assert_eq!(call(), CUresult::CUDA_SUCCESS, "{name} without a capture");
        for (mode, allowed) in modes {
            for (other, allowed) in [false, true].into_iter().zip(allowed) {
                stream.begin_capture(mode).unwrap();
                let got = if other {
                    let (context, session) = (&context, &emulator);
                    std::thread::scope(|scope| {
                        let here = || {
                            session.enter();
                            context.bind_to_thread().unwrap();
                            call()
                        };
                        scope.spawn(here).join().unwrap()
                    })
                } else {
                    call()
                };
                let expected = if allowed {
                    CUresult::CUDA_SUCCESS
                } else {
                    CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
                };
                assert_eq!(got, expected, "{name}, {mode:?}, on another thread: {other}");
                // A refused call invalidates the capture.
                assert_eq!(stream.end_capture(Flags(0)).is_ok(), allowed, "{name}, {mode:?}");
            }
        }
    }
}

/// cudarc makes a stream wait for the event of a slice's last use; during a capture that isolates it.
#[test]
fn a_slice_written_before_the_capture_isolates_it_through_its_event() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let (stream, _second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let mut slice = stream.alloc_zeros::<u32>(4).unwrap();
    stream.begin_capture(MODE).unwrap();
    let invalidated = CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    assert_eq!(stream.memset_zeros(&mut slice), error(invalidated));
    // cudarc hands out the error of the wait at the next call.
    assert_eq!(context.check_err(), error(CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION));
    assert_eq!(stream.end_capture(Flags(0)).err(), Some(DriverError(invalidated)));
}

/// The legacy default stream waits for blocking streams, which a capture does not allow; the per-thread default stream can
/// be captured itself.
#[test]
fn default_streams_and_captures() {
    let emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let (legacy, other) = (context.default_stream(), context.new_stream().unwrap());
    let mut blocking = std::ptr::null_mut();
    let flags = CUstream_flags::CU_STREAM_DEFAULT as u32;
    unsafe { sys::cuStreamCreate(&mut blocking, flags) }.result().unwrap();
    unsafe { sys::cuStreamBeginCapture_v2(blocking, Mode::CU_STREAM_CAPTURE_MODE_RELAXED) }.result().unwrap();
    let mut slice = other.alloc_zeros::<u32>(4).unwrap();
    assert_eq!(legacy.memset_zeros(&mut slice), error(CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT));
    let mut graph = std::ptr::null_mut();
    let ended = unsafe { sys::cuStreamEndCapture(blocking, &mut graph) };
    assert_eq!(ended, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    legacy.memset_zeros(&mut slice).unwrap();
    unsafe { sys::cuStreamDestroy_v2(blocking) }.result().unwrap();

    // One per thread: while this thread's is captured, another thread's is not.
    let mine = context.per_thread_stream();
    mine.begin_capture(MODE).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            emulator.enter();
            context.bind_to_thread().unwrap();
            let theirs = context.per_thread_stream();
            assert_eq!(theirs.capture_status().unwrap(), Status::CU_STREAM_CAPTURE_STATUS_NONE);
            let before = theirs.alloc_zeros::<u32>(4).unwrap();
            assert_eq!(theirs.clone_dtoh(&before).unwrap(), [0; 4]);
        });
    });
    assert_eq!(mine.capture_status().unwrap(), Status::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    unsafe { sys::cuMemsetD32Async(address(&slice, &legacy), 7, 4, mine.cu_stream()) }.result().unwrap();
    let graph = mine.end_capture(Flags(0)).unwrap().unwrap();
    graph.launch().unwrap();
    assert_eq!(legacy.clone_dtoh(&slice).unwrap(), [7; 4]);
    assert_eq!(emulator.take_misuses().len(), 1);
}

fn address(slice: &cudarc::driver::CudaSlice<u32>, stream: &CudaStream) -> u64 {
    cudarc::driver::DevicePtr::device_ptr(slice, stream).0
}
