//! Kernels are compiled before calls need them, and calls then compile none.

use longseq::*;

/// Requests of some kinds, which need kernels of several operations.
fn serve<B: Backend>(backend: &B) -> Result<Vec<f32>> {
    let rows: Vec<f32> = (0..8 * 6).map(|i| (i as f32).sin()).collect();
    let (history, candidates) = (backend.upload(&rows)?, backend.upload(&rows[..16])?);
    let (histories, targets) = (Jagged::from_lengths(&[4, 2])?, Jagged::from_lengths(&[1, 1])?);
    let batch = backend.batch(&histories, &targets)?;
    let inputs = TargetAttentionInputs::new(backend.view(&candidates), backend.view(&history));
    let attended = backend.target_attention(&TargetAttention::new(8), &batch, inputs)?;
    let sdim = Sdim::new(8);
    let rotations = backend.upload(&sdim.rotations(7)?)?;
    let hash = Hash::Rotations(backend.view(&rotations));
    let behaviours = SdimEncodeInputs::new(backend.view(&history), hash);
    let table = backend.sdim_encode(&sdim, &backend.jagged(&histories)?, behaviours)?;
    let query = SdimQueryInputs::new(backend.view(&table), hash).with_targets(backend.view(&candidates));
    let found = backend.sdim_query(&sdim, &backend.jagged(&targets)?, query)?;
    Ok([backend.download(backend.view(&attended))?, backend.download(backend.view(&found))?].concat())
}

/// What one device has learned from requests another compiles before them.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn assert_learns<B: Backend>(open: impl Fn() -> B) {
    let (tried, warm) = (open(), open());
    assert_eq!(tried.compiled_kernels(), Vec::<String>::new());
    assert_eq!(warm.warm_up(|_| false), Ok(0));
    let expected = serve(&tried).expect("requests");
    let learned = tried.compiled_kernels();
    assert!(learned.len() >= 3 && learned.is_sorted(), "{learned:?}");
    let is_learned = |name: &str| learned.iter().any(|kernel| kernel == name);
    assert_eq!(warm.warm_up(is_learned), Ok(learned.len()));
    assert_eq!(warm.compiled_kernels(), learned);
    assert_eq!(warm.warm_up(is_learned), Ok(0), "compiled again");
    assert_eq!(serve(&warm), Ok(expected));
    assert_eq!(warm.compiled_kernels(), learned, "a request has compiled a kernel");
    // By operation, and through another handle.
    let fork = warm.fork().expect("another handle");
    let count = fork.warm_up(|name| name.starts_with("merge") || name.contains("lookup")).expect("kernels");
    assert!(count > 3, "{count} kernels");
    assert_eq!(warm.compiled_kernels().len(), learned.len() + count);
}

#[test]
fn a_device_that_compiles_nothing_is_warm() {
    let backend = Cpu::new();
    assert_eq!(backend.warm_up(|_| unreachable!("there are no kernels")), Ok(0));
    assert_eq!(backend.compiled_kernels(), Vec::<String>::new());
    serve(&backend).expect("requests");
}

#[cfg(feature = "wgpu")]
#[test]
fn wgpu_compiles_what_requests_need() {
    use longseq_check::device::webgpu::{device, options};

    if device().is_some() {
        assert_learns(|| AnyBackend::from(Wgpu::with_options(&options()).expect("the same adapter")));
    }
}

/// Every kernel there is, or a sample of them where not all cases run.
#[cfg(feature = "wgpu")]
#[test]
fn wgpu_compiles_every_kernel() {
    use longseq_check::device::webgpu::{device, options};
    use longseq_check::sample;

    if device().is_none() {
        return;
    }
    let gpu = Wgpu::with_options(&options()).expect("the same adapter");
    let count = gpu.warm_up(|name| sample::has(&name)).expect("kernels");
    assert!(count > 20, "{count} kernels");
    assert_eq!(gpu.compiled_kernels().len(), count);
}

/// A kernel that the device refuses is an error, and no panic.
#[cfg(feature = "wgpu")]
#[test]
fn wgpu_reports_a_kernel_that_it_cannot_compile() {
    use longseq_check::device::webgpu::{device, options};

    if device().is_none() {
        return;
    }
    let gpu = Wgpu::with_options(&options()).expect("the same adapter");
    let (device, queue) = (gpu.wgpu_device().clone(), gpu.wgpu_queue().clone());
    let break_query = |name: &str, text: String| match name {
        "sdim/query" => text.replace("fn main", "fn main("),
        _ => text,
    };
    let gpu = Wgpu::with_edited_shaders(device, queue, break_query).expect("a device");
    let error = gpu.warm_up(|name| name.starts_with("sdim/")).expect_err("a broken shader");
    assert!(matches!(error, Error::Device { operation: "warm_up", .. }), "{error:?}");
    assert!(gpu.compiled_kernels().iter().all(|name| !name.starts_with("sdim/query ")));
    // Others are compiled all the same.
    gpu.warm_up(|name| name.starts_with("sdim/encode")).expect("whole shaders");
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_compiles_what_requests_need() {
    use longseq_check::device::cuda::session;

    let Some(emulator) = session() else { return };
    assert_learns(|| AnyBackend::from(Cuda::new(0).expect("the emulator's device")));
    let gpu = Cuda::new(0).expect("the emulator's device");
    let files = longseq::cuda::kernels().len();
    assert_eq!(gpu.warm_up(|_| true), Ok(files));
    // After that a stream may be captured from the first request on: each kernel has been asked for, those of files that a request had loaded
    // as well.
    assert_eq!(gpu.compiled_kernels().len(), files);
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

/// Each driver call fails in turn: an error, and what has been loaded until then is kept or freed.
#[cfg(feature = "cuda")]
#[test]
fn cuda_reports_kernels_that_the_driver_refuses() {
    use cuda_emulator::CudaError;
    use cuda_emulator::control::CallKind;
    use longseq_check::device::cuda::session;

    let Some(emulator) = session() else { return };
    let is_wanted = |name: &str| name == "sdim_query" || name == "sdim_scan";
    let mut failed = 0;
    for kind in [CallKind::Module, CallKind::Context] {
        for nth in 1.. {
            let gpu = Cuda::new(0).expect("the emulator's device");
            emulator.fail_call(kind, nth, CudaError::OutOfMemory);
            let result = gpu.warm_up(is_wanted);
            emulator.clear_faults();
            if result == Ok(2) {
                break;
            }
            let error = result.expect_err("all kernels, or an error");
            assert!(error.to_string().contains("warm_up"), "{error}");
            failed += 1;
            assert!(gpu.warm_up(is_wanted).is_ok(), "after call {nth} of {kind:?} failed");
            assert_eq!(gpu.compiled_kernels(), ["sdim_query", "sdim_scan"]);
        }
    }
    assert!(failed > 4, "{failed} calls failed");
    assert_eq!(emulator.take_findings(), []);
}
