//! Failures of a `wgpu` device are errors: no adapter, out of memory, a lost device, a rejected kernel. The caller's own
//! callbacks are not called for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use longseq::webgpu::{WgpuBuffer, WgpuOptions};
use longseq::*;
use longseq_check::device::TestDevice;
use longseq_check::device::webgpu::{device, options};
use longseq_check::faults::fail_each_allocation;
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use longseq_check::search::NewestCase;
use longseq_check::selected::{
    HistogramCase, SelectedBackwardCase, SelectedCase, SelectedTableBackwardCase, SelectedTableCase,
};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase, Bias};
use longseq_check::tin::{TinBackwardCase, TinCase};
use longseq_check::{AnyCase, sample};

/// A device of its own, for tests that break it.
fn own_device() -> Option<Wgpu> {
    device()?;
    Some(Wgpu::with_options(&options()).expect("a second device of the same adapter"))
}

fn one(rows: usize) -> Jagged {
    Jagged::from_lengths(&[rows]).expect("a small length")
}

/// Attention of one candidate over two behaviours.
fn attend(gpu: &Wgpu, history: &WgpuBuffer<f32>) -> Result<Vec<f32>> {
    let batch = gpu.batch(&one(2), &one(1))?;
    let queries = gpu.view(history).slice(0, 2)?;
    let inputs = TargetAttentionInputs::new(queries, gpu.view(history));
    let out = gpu.target_attention(&TargetAttention::new(2), &batch, inputs)?;
    gpu.download(gpu.view(&out))
}

/// Counts calls of the device's callbacks: uncaptured errors and losses.
fn count_callbacks(device: &wgpu::Device) -> [Arc<AtomicUsize>; 2] {
    let [uncaptured, lost] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let count = uncaptured.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let count = lost.clone();
    device.set_device_lost_callback(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    [uncaptured, lost]
}

#[test]
#[cfg(target_os = "linux")]
fn memory_that_runs_out_is_an_error() {
    if device().is_none_or(|gpu| !gpu.is_software()) {
        return eprintln!("skipped: only a software device takes its memory from this process");
    }
    crate::alone::run("webgpu::faults::allocates_until_memory_runs_out", "ulimit -v 8000000");
}

#[test]
#[ignore = "run by memory_that_runs_out_is_an_error, in a process whose memory is limited"]
fn allocates_until_memory_runs_out() {
    let gpu = Wgpu::with_options(&options()).expect("a device");
    let [uncaptured, lost] = count_callbacks(gpu.wgpu_device());
    let history = gpu.upload(&[1.0f32, 0.0, 0.0, 1.0]).expect("a small buffer");
    let most = usize::try_from(gpu.wgpu_device().limits().max_buffer_size.min(1 << 30)).expect("a size");
    // More than fit in the limit; nothing is written to them, so no physical memory is used.
    let mut kept = Vec::new();
    let error = (0..64).find_map(|_| match gpu.zeros::<u8>(most) {
        Ok(buffer) => {
            kept.push(buffer);
            None
        }
        Err(error) => Some(error),
    });
    let expected = Error::OutOfMemory { operation: "zeros", bytes: most as u64 };
    assert_eq!(error, Some(expected), "after {} buffers", kept.len());
    // The failed call leaked nothing, and the device still works.
    drop(kept);
    gpu.synchronize().expect("the device still works");
    assert!(attend(&gpu, &history).expect("the device still works")[0] > 0.5);
    assert_eq!([uncaptured, lost].map(|count| count.load(Ordering::Relaxed)), [0, 0]);
}

/// Every allocation of a call of each operation fails in turn: that call is out of memory, the handle works again right after
/// it, and another handle hears nothing of it.
#[test]
fn every_failing_allocation_is_an_error_of_its_call() {
    let (Some(gpu), mut failed) = (own_device(), 0) else { return };
    let other = gpu.fork().expect("another handle");
    let forward = AttentionCase { histories: vec![70, 0, 9], targets: vec![3, 1, 2], ..Default::default() };
    let backward = AttentionBackwardCase { forward, narrow: true, ..Default::default() };
    let cases = longseq_check::soak::cases().into_iter().chain([AnyCase::AttentionBackward(backward)]);
    for case in cases.chain(tin()).chain(channels()) {
        let expected = gpu.run_case(&case).expect("a valid case");
        for nth in 1.. {
            gpu.fail_allocation(nth);
            let result = gpu.run_case(&case);
            gpu.fail_allocation(0);
            match result {
                Ok(output) => {
                    assert!(output == expected, "{case:?}, allocation {nth}");
                    break;
                }
                Err(failure) => {
                    let is_expected = matches!(failure.error(), Some(Error::OutOfMemory { .. }));
                    assert!(is_expected, "{case:?}, allocation {nth}: {failure}");
                }
            }
            failed += 1;
            other.synchronize().expect("nothing of its own failed");
            gpu.synchronize().expect("reported once");
            assert!(gpu.run_case(&case).expect("a valid case") == expected, "{case:?} after {nth}");
        }
    }
    assert!(failed > 50, "only {failed} allocations");
}

/// Attention over a selection, in parts, its gradients, and histograms.
fn selected() -> Vec<AnyCase> {
    let (histories, targets) = (vec![70, 0, 9], vec![3, 1, 2]);
    let forward = SelectedCase { dtype: DType::Bf16, histories, targets, heads: 2, ..Default::default() };
    let parts = SelectedCase { top_k: 300, ..forward.clone() };
    let backward = |forward: SelectedCase, narrow| {
        let forward = SelectedCase { bias: Bias::Normal, ..forward };
        SelectedBackwardCase { forward, narrow, with_grad_lse: true, ..Default::default() }
    };
    let of_tables = SelectedTableCase { forward: parts.clone(), ..Default::default() };
    let gradients =
        SelectedTableBackwardCase { forward: of_tables.clone(), narrow: true, ..Default::default() };
    vec![
        AnyCase::SelectedTable(of_tables),
        AnyCase::SelectedTableBackward(gradients),
        AnyCase::Selected(forward.clone()),
        AnyCase::Selected(parts.clone()),
        AnyCase::SelectedBackward(backward(forward, true)),
        AnyCase::SelectedBackward(backward(parts, false)),
        AnyCase::Histogram(HistogramCase::default()),
        AnyCase::Newest(NewestCase::default()),
    ]
}

/// TIN and its gradients, stored so that all of them take scratch memory.
fn tin() -> [AnyCase; 2] {
    let forward = TinCase {
        dtype: DType::Bf16,
        histories: vec![70, 0, 9],
        targets: vec![3, 1, 2],
        given: [false, true],
        ..Default::default()
    };
    let backward = TinBackwardCase { forward: forward.clone(), narrow: true, ..Default::default() };
    [AnyCase::Tin(forward), AnyCase::TinBackward(backward)]
}

/// Interest channels and their gradients, the same.
fn channels() -> [AnyCase; 2] {
    let forward = ChannelsCase {
        dtype: DType::Bf16,
        histories: vec![70, 0, 9],
        targets: vec![3, 1, 2],
        among: KeptAmong::All,
        normalise: true,
        ..Default::default()
    };
    let backward = ChannelsBackwardCase { forward: forward.clone(), narrow: true, ..Default::default() };
    [AnyCase::Channels(forward), AnyCase::ChannelsBackward(backward)]
}

/// A call that runs out of memory, at whichever allocation, has written nothing.
#[test]
fn memory_that_runs_out_leaves_outputs_alone() {
    let (Some(gpu), mut failed) = (own_device(), 0) else { return };
    let cases = longseq_check::faults::cases().into_iter().chain(selected()).chain(tin()).chain(channels());
    for case in cases.step_by(if sample::is_small() { 3 } else { 1 }) {
        let each = fail_each_allocation(&gpu, &case, &|nth| gpu.fail_allocation(nth));
        failed += each.unwrap_or_else(|failure| panic!("{failure}"));
        gpu.synchronize().expect("nothing else failed");
    }
    assert!(failed > 100, "only {failed} allocations");
}

#[test]
#[cfg(target_os = "linux")]
fn no_driver_is_an_error() {
    crate::alone::run(
        "webgpu::faults::finds_no_adapter",
        "export VK_ICD_FILENAMES=/nowhere VK_DRIVER_FILES=/nowhere",
    );
}

#[test]
#[ignore = "run by no_driver_is_an_error, in a process that sees no driver"]
fn finds_no_adapter() {
    assert!(!Wgpu::is_available());
    let error = Wgpu::new().unwrap_err();
    assert!(matches!(error, Error::NoAdapter { .. }), "{error}");
    let error = Wgpu::with_options(&WgpuOptions::default().with_adapter("llvmpipe")).unwrap_err();
    assert!(matches!(error, Error::NoAdapter { .. }), "{error}");
}

#[test]
fn a_kernel_that_the_device_refuses_is_an_error() {
    let Some(own) = own_device() else { return };
    let (device, queue) = (own.wgpu_device().clone(), own.wgpu_queue().clone());
    let [uncaptured, lost] = count_callbacks(&device);
    let edit =
        |name: &str, text: String| if name == "target_attention/attend" { "nonsense".into() } else { text };
    let gpu = Wgpu::with_edited_shaders(device.clone(), queue, edit).expect("a working device");
    let history = gpu.upload(&[1.0f32, 0.0, 0.0, 1.0]).expect("an upload");
    let error = attend(&gpu, &history).unwrap_err();
    assert!(matches!(error, Error::Device { operation: "target_attention", .. }), "{error}");
    // Calls that do not need that kernel still work.
    assert_eq!(gpu.download(gpu.view(&history)).expect("a download"), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!([&uncaptured, &lost].map(|count| count.load(Ordering::Relaxed)), [0, 0]);
    // The caller's errors reach the caller as before.
    let source = wgpu::ShaderSource::Wgsl("nonsense".into());
    let _ = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    assert_eq!(uncaptured.load(Ordering::Relaxed), 1);
}

#[test]
fn a_buffer_that_its_owner_destroyed_is_an_error() {
    let Some(gpu) = own_device() else { return };
    let [uncaptured, lost] = count_callbacks(gpu.wgpu_device());
    let history = gpu.upload(&[1.0f32, 0.0, 0.0, 1.0]).expect("an upload");
    gpu.synchronize().expect("the upload is done");
    history.buffer().destroy();
    let error = attend(&gpu, &history).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    let other = gpu.upload(&[1.0f32, 0.0, 0.0, 1.0]).expect("the device still works");
    assert!(attend(&gpu, &other).expect("the device still works")[0] > 0.5);
    assert_eq!([uncaptured, lost].map(|count| count.load(Ordering::Relaxed)), [0, 0]);
}

#[test]
fn every_call_on_a_lost_device_is_an_error() {
    let Some(gpu) = own_device() else { return };
    let [uncaptured, lost] = count_callbacks(gpu.wgpu_device());
    let history = gpu.upload(&[1.0f32, 0.0, 0.0, 1.0]).expect("an upload");
    gpu.wgpu_device().destroy();
    for error in [
        attend(&gpu, &history).map(drop).unwrap_err(),
        gpu.upload(&[1.0f32]).and_then(|buffer| gpu.download(gpu.view(&buffer))).map(drop).unwrap_err(),
        gpu.synchronize().unwrap_err(),
    ] {
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    }
    let _ = gpu.wgpu_device().poll(wgpu::PollType::Poll);
    assert_eq!([uncaptured, lost].map(|count| count.load(Ordering::Relaxed)), [0, 1]);
}

#[test]
fn a_device_lost_among_requests_is_an_error_for_every_thread() {
    let Some(gpu) = own_device() else { return };
    let served = AtomicUsize::new(0);
    let serve = || {
        let fork = gpu.fork()?;
        let history = fork.upload(&[1.0f32, 0.0, 0.0, 1.0])?;
        loop {
            let out = attend(&fork, &history)?;
            // Right until the end: nobody gets the zeros of work that never ran.
            assert!(out[0] > 0.5 && (out[0] + out[1] - 1.0).abs() < 1e-5, "{out:?}");
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|threads| {
        let workers = [(); 4].map(|()| threads.spawn(serve));
        while served.load(Ordering::Relaxed) < 40 {
            std::thread::yield_now();
        }
        gpu.wgpu_device().destroy();
        for worker in workers {
            let ended: Result<()> = worker.join().expect("no panic");
            let error = ended.expect_err("the device is lost");
            assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
        }
    });
}

#[test]
fn a_panic_of_the_callers_leaves_the_device_usable() {
    let Some(own) = own_device() else { return };
    let (device, queue) = (own.wgpu_device().clone(), own.wgpu_queue().clone());
    let first = std::sync::atomic::AtomicBool::new(true);
    let edit = move |_: &str, text: String| {
        assert!(!first.swap(false, Ordering::Relaxed), "a panic inside a call");
        text
    };
    let gpu = Wgpu::with_edited_shaders(device, queue, edit).expect("a working device");
    let history = gpu.upload(&[1.0f32, 0.0, 0.0, 1.0]).expect("an upload");
    let panicked = std::thread::scope(|threads| threads.spawn(|| attend(&gpu, &history)).join().is_err());
    assert!(panicked);
    assert!(attend(&gpu, &history).expect("the device still works")[0] > 0.5);
}
