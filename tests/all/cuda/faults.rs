//! Failures of the CUDA driver are errors: each call failing in turn, a lost device. Every test runs in a session of its own on the
//! emulator.

use cuda_emulator::control::CallKind;
use cuda_emulator::{CudaError, Device, Emulator};
use longseq::cudarc::driver::CudaContext;
use longseq::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use longseq::*;
use longseq_check::decoupled::{DecoupledBackwardCase, DecoupledCase};
use longseq_check::device::TestDevice;
use longseq_check::device::cuda::session;
use longseq_check::din::{DinBackwardCase, DinCase, StatisticsCase};
use longseq_check::faults::fail_each_allocation;
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use longseq_check::lookup::{LookupBackwardCase, LookupCase, Pool, UpdateRowsCase};
use longseq_check::sdim::{SdimBackwardCase, SdimCase};
use longseq_check::search::{NewestCase, SearchCase};
use longseq_check::selected::{
    HistogramCase, SelectedBackwardCase, SelectedCase, SelectedTableBackwardCase, SelectedTableCase,
};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase, Bias, MergeCase};
use longseq_check::tin::{TinBackwardCase, TinCase};
use longseq_check::{AnyCase, Call, Calls, Failure, sample};

use super::device::{Request, assert_clean};

/// Every driver call of a request, except those whose errors the next wait reports (below), is made to fail once: the call
/// returns an error, nothing stays allocated, and the same request then works on the same driver.
#[test]
fn every_failing_driver_call_is_an_error_and_leaves_nothing() {
    let Some(emulator) = session() else { return };
    // Other tests check the kernels; here they run hundreds of times.
    emulator.set_checks(false);
    let mut failed = fail_each_call(&emulator, |arm| {
        arm();
        Cuda::new(0)?.synchronize()
    });
    // Each operation by itself, on a backend that has been made before calls begin to fail: the others would only repeat.
    for case in operations() {
        failed += fail_each_call(&emulator, |arm| {
            let gpu = Cuda::new(0)?;
            arm();
            run(&gpu, &case)?;
            gpu.synchronize()
        });
    }
    assert!(failed > 50, "only {failed} calls failed");
    all_operations().expect("the driver works again");
    assert_clean(&emulator);
}

/// Makes each driver call of a request fail once, from where the request says that calls may fail. Returns how many failed.
fn fail_each_call(emulator: &Emulator, request: impl Fn(&dyn Fn()) -> Result<()>) -> usize {
    let kinds = [
        CallKind::Device,
        CallKind::Context,
        CallKind::Allocate,
        CallKind::Copy,
        CallKind::Fill,
        CallKind::Module,
        CallKind::Function,
        CallKind::Launch,
        CallKind::Synchronize,
        CallKind::Stream,
    ];
    let mut failed = 0;
    for kind in kinds {
        // Of many calls of a kind, a small sample has every third, the smallest few.
        let mut nth = 0;
        loop {
            nth += match nth {
                3.. if sample::is_smallest() => nth,
                3.. if sample::is_small() => 3,
                _ => 1,
            };
            let result = request(&|| emulator.fail_call(kind, nth, CudaError::LaunchFailed));
            emulator.clear_faults();
            let live = emulator.live();
            assert!(live.is_empty_but_for_contexts(), "call {nth} of {kind:?}: {live}");
            if result.is_ok() {
                break;
            }
            failed += 1;
        }
    }
    failed
}

/// A call that runs out of memory, at whichever allocation, has enqueued nothing, so that nothing is written.
#[test]
fn memory_that_runs_out_leaves_outputs_alone() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let gpu = Cuda::new(0).expect("a device");
    let fail = |nth: u64| match nth {
        0 => emulator.clear_faults(),
        nth => emulator.fail_call(CallKind::Allocate, nth, CudaError::OutOfMemory),
    };
    let mut failed = 0;
    for case in all_cases() {
        let each = fail_each_allocation(&gpu, &case, &fail);
        failed += each.unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert!(failed > 100, "only {failed} allocations");
    drop(gpu);
    assert_clean(&emulator);
}

/// Makes each call of a case in a captured graph. What is written is what the graph's launch writes: all that a call needs is loaded by one
/// whose first kernel fails.
struct Captured<'a> {
    emulator: &'a Emulator,
    gpu: &'a Cuda,
}

impl Calls for Captured<'_> {
    fn make(&mut self, operation: &'static str, call: &mut Call<'_>) -> Result<(), Failure> {
        const THREAD_LOCAL: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        self.emulator.fail_call(CallKind::Launch, 1, CudaError::LaunchFailed);
        let failed = call();
        self.emulator.clear_faults();
        if failed.is_ok() {
            return Err(Failure::new(format!("{operation} launches nothing")));
        }
        let stream = self.gpu.stream();
        stream.begin_capture(THREAD_LOCAL).expect("a capture");
        let captured = call();
        let graph = stream.end_capture(flags).expect("the capture is whole");
        captured?;
        let graph = graph.expect("with work in it");
        graph.launch().expect("a launch");
        Ok(self.gpu.synchronize()?)
    }
}

#[test]
fn every_operation_can_be_captured_and_replayed() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    gpu.set_workspace(Some(gpu.zeros::<u8>(16 << 20).expect("memory"))).expect("its stream");
    for case in all_cases() {
        let expected = gpu.run_case(&case).expect("a valid case");
        let mut calls = Captured { emulator: &emulator, gpu: &gpu };
        let replayed =
            gpu.run_case_with(&case, &mut calls).unwrap_or_else(|failure| panic!("{case:?}: {failure}"));
        assert!(replayed == expected, "{case:?}");
    }
    drop(gpu);
    assert_clean(&emulator);
}

/// The device is lost at a driver call, of any kind: that call of ours and all later ones fail, and nothing stays allocated.
#[test]
fn a_lost_device_is_an_error_from_then_on() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    emulator.take_calls();
    all_operations().expect("a working driver");
    let calls = emulator.take_calls();
    assert!(calls.len() > 200, "{}", calls.len());
    // There is nobody to tell when only what is left is released.
    let releases = |name: &String| {
        ["Free", "Unload", "Destroy", "Release", "SetCurrent", "GetCurrent", "IsCapturing"]
            .iter()
            .any(|part| name.contains(part))
    };
    for nth in (0..calls.len()).step_by(sample::by_size(181, 61, 7)) {
        emulator.lose_device(nth as u64 + 1, CudaError::EccUncorrectable);
        let lost = all_operations();
        emulator.clear_faults();
        let live = emulator.live();
        assert!(live.is_empty_but_for_contexts(), "lost at call {nth}: {live}");
        assert!(
            lost.is_err() || calls[nth..].iter().all(releases),
            "lost at call {nth}: {:?}",
            &calls[nth..]
        );
    }
    all_operations().expect("the driver works again");
    assert_clean(&emulator);
}

#[test]
fn a_device_lost_among_requests_is_an_error_for_every_thread() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let gpu = Cuda::new(0).expect("a device");
    let request = Request::new(&gpu);
    let expected = request.attend(&gpu);
    let served = std::sync::atomic::AtomicUsize::new(0);
    let serve = || {
        let fork = gpu.fork()?;
        let mut out = fork.zeros(expected.len())?;
        let inputs = TargetAttentionInputs::new(fork.view(&request.candidates), fork.view(&request.history));
        loop {
            let outputs = TargetAttentionOutputs::new(fork.view_mut(&mut out));
            fork.target_attention_into(
                &TargetAttention::new(Request::WIDTH),
                &request.batch,
                inputs,
                outputs,
            )?;
            // Right until the end: nobody gets what work that never ran has left.
            assert_eq!(fork.download(fork.view(&out))?, expected);
            served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    std::thread::scope(|threads| {
        let workers = [(); 4].map(|()| threads.spawn(serve));
        while served.load(std::sync::atomic::Ordering::Relaxed) < 8 {
            std::thread::yield_now();
        }
        emulator.lose_device(1, CudaError::EccUncorrectable);
        for worker in workers {
            let ended: Result<()> = worker.join().expect("no panic");
            let error = ended.expect_err("the device is lost");
            assert!(matches!(error, Error::Driver { .. }), "{error}");
        }
    });
    emulator.clear_faults();
    drop((request, gpu));
    assert_clean(&emulator);
}

/// Makes each driver call of a kind fail once: `calls` succeeds nevertheless, the next wait reports the error, and the one
/// after that reports none. Returns how many failed.
fn fail_each_and_wait(emulator: &Emulator, gpu: &Cuda, kind: CallKind, mut calls: impl FnMut()) -> usize {
    for nth in 1.. {
        emulator.take_calls();
        emulator.fail_call(kind, nth, CudaError::LaunchFailed);
        calls();
        let reported = gpu.synchronize();
        let made = emulator.take_calls().iter().filter(|name| CallKind::of(name) == kind).count();
        emulator.clear_faults();
        if made < nth as usize {
            reported.expect("nothing failed");
            return nth as usize - 1;
        }
        assert!(
            matches!(reported, Err(Error::Driver { operation: "synchronize", .. })),
            "{kind:?} {nth}: {reported:?}"
        );
        gpu.synchronize().expect("reported once");
    }
    unreachable!("there are fewer calls")
}

/// Dropping returns nothing, so an error in it is reported by the next wait, and by no call before that.
#[test]
fn a_failing_free_is_reported_by_the_next_wait() {
    let Some(emulator) = session() else { return };
    for device in [Device::sm_80(), Device::sm_80().without_memory_pools()] {
        emulator.set_device(device);
        let gpu = Cuda::new(0).expect("a device");
        let request = Request::new(&gpu);
        let expected = request.attend(&gpu);
        let mut out = gpu.zeros(expected.len()).expect("memory");
        let failed = fail_each_and_wait(&emulator, &gpu, CallKind::Free, || {
            request.attend_into(&gpu, &mut out);
            drop(gpu.zeros::<f32>(3).expect("memory"));
        });
        assert!(failed >= 3, "two of scratch and one of the caller's, not {failed}");
        assert_eq!(gpu.download(gpu.view(&out)).expect("a download"), expected);
        drop((out, request, gpu));
        assert_clean(&emulator);
    }
}

/// The same holds for errors of the events by which cudarc tracks use of the caller's slices.
#[test]
fn a_failing_event_is_reported_by_the_next_wait() {
    let Some(emulator) = session() else { return };
    let stream = CudaContext::new(0).expect("a context").new_stream().expect("a stream");
    let gpu = Cuda::from_stream(stream.clone()).expect("a device");
    let rows = stream.clone_htod(&[1.0f32, 0.0, 0.0, 1.0]).expect("a copy");
    let candidate = stream.clone_htod(&[9.0f32, 0.0]).expect("a copy");
    let mut out = stream.alloc_zeros::<f32>(2).expect("memory");
    let single = |rows| Jagged::from_lengths(&[rows]).expect("a length");
    let batch = gpu.batch(&single(2), &single(1)).expect("a user");
    for kind in [CallKind::Event, CallKind::Stream] {
        let failed = fail_each_and_wait(&emulator, &gpu, kind, || {
            let (keys, queries) = (gpu.borrow(&rows).expect("same"), gpu.borrow(&candidate).expect("same"));
            let mut written = gpu.borrow_mut(&mut out).expect("the same stream");
            let inputs = TargetAttentionInputs::new(queries.view(), keys.view());
            let outputs = TargetAttentionOutputs::new(written.view_mut());
            gpu.target_attention_into(&TargetAttention::new(2), &batch, inputs, outputs)
                .expect("a valid call");
        });
        assert!(failed >= 3, "one a slice, not {failed} of {kind:?}");
    }
    assert!(stream.clone_dtoh(&out).expect("a copy")[0] > 0.99);
    drop((rows, candidate, out, batch, gpu, stream));
    assert_clean(&emulator);
}

/// A call of each operation. Histories are just long enough to be split.
fn operations() -> Vec<AnyCase> {
    let attention = AttentionCase { histories: vec![600], ..Default::default() };
    let mut cases: Vec<AnyCase> = vec![
        (&AttentionBackwardCase { forward: attention.clone(), ..Default::default() }).into(),
        (&attention).into(),
        (&DinCase { histories: vec![200], hidden: vec![8], ..Default::default() }).into(),
        (&SdimCase { histories: vec![700], ..Default::default() }).into(),
        (&MergeCase { rows: 5, ..Default::default() }).into(),
        (&LookupCase::default()).into(),
        // Bags: look-ups that add up.
        (&LookupCase { pool: Pool::Mean, bags: vec![300, 0, 2], ..Default::default() }).into(),
        (&DecoupledCase::default()).into(),
        (&SearchCase { histories: vec![600], score: SearchScore::Hamming, ..Default::default() }).into(),
        (&SearchCase { score: SearchScore::Match, ..Default::default() }).into(),
        (&SelectedBackwardCase { forward: selection(), ..Default::default() }).into(),
        (&HistogramCase::default()).into(),
        (&TinCase { histories: vec![600], ..Default::default() }).into(),
        (&TinBackwardCase::default()).into(),
        (&ChannelsCase { histories: vec![600], ..Default::default() }).into(),
        (&ChannelsBackwardCase::default()).into(),
    ];
    // Dozens of calls each, which a small sample has no time for.
    if !sample::is_small() {
        let din = DinCase { histories: vec![40], targets: vec![2], hidden: vec![8], ..Default::default() };
        let gradients: [AnyCase; 8] = [
            (&DinBackwardCase { forward: din.clone(), ..Default::default() }).into(),
            (&StatisticsCase { forward: din }).into(),
            (&SdimBackwardCase::default()).into(),
            (&LookupBackwardCase::default()).into(),
            (&UpdateRowsCase::default()).into(),
            (&DecoupledBackwardCase::default()).into(),
            (&SelectedTableBackwardCase::default()).into(),
            (&NewestCase::default()).into(),
        ];
        cases.extend(gradients);
    }
    cases
}

/// More slots than fit shared memory, heads that share keys, storage of 16 bits: all scratch memory that there is.
fn selection() -> SelectedCase {
    let (heads, kv_heads, top_k) = (4, 2, 1030);
    SelectedCase { dtype: DType::Bf16, bias: Bias::Normal, heads, kv_heads, top_k, ..Default::default() }
}

/// The calls over a selection.
fn selections() -> [AnyCase; 7] {
    let backward = SelectedBackwardCase { forward: selection(), narrow: true, ..Default::default() };
    let aliased = SelectedCase { value_width: None, bias: Bias::None, ..selection() };
    let of_tables = SelectedTableCase { forward: selection(), ..Default::default() };
    [
        (&selection()).into(),
        (&backward).into(),
        (&SelectedBackwardCase { forward: aliased, ..Default::default() }).into(),
        (&of_tables).into(),
        (&SelectedTableBackwardCase { forward: of_tables.clone(), narrow: true, ..Default::default() })
            .into(),
        (&HistogramCase::default()).into(),
        (&NewestCase::default()).into(),
    ]
}

/// The cases of every backend, and of what this one has.
fn all_cases() -> Vec<AnyCase> {
    let (histories, targets) = (vec![70, 0, 9], vec![3, 1, 2]);
    let tin = TinCase { dtype: DType::Bf16, histories, targets, given: [true, false], ..Default::default() };
    let gradients = TinBackwardCase { forward: tin.clone(), narrow: true, ..Default::default() };
    let counted = TinBackwardCase {
        forward: TinCase { given: [false, true], ..tin.clone() },
        asked: [false, false, true],
        ..Default::default()
    };
    let of_tin: [AnyCase; 3] = [(&tin).into(), (&gradients).into(), (&counted).into()];
    let cases = longseq_check::faults::cases().into_iter().chain(of_tin).chain(selections());
    cases.chain(channels()).collect()
}

/// Interest channels: all scratch memory that there is.
fn channels() -> [AnyCase; 3] {
    let (dtype, normalise) = (DType::Bf16, true);
    let forward = ChannelsCase { dtype, normalise, among: KeptAmong::All, ..Default::default() };
    // More entries than are sorted in shared memory.
    let long = ChannelsCase { histories: vec![3000], targets: vec![1], top_k: 2500, ..forward.clone() };
    let backward = ChannelsBackwardCase { forward: forward.clone(), narrow: true, ..Default::default() };
    [(&forward).into(), (&long).into(), (&backward).into()]
}

fn run(gpu: &Cuda, case: &AnyCase) -> Result<()> {
    let result = gpu.run_case(case).map(drop);
    result.map_err(|failure| Error::Device { operation: "test", message: failure.to_string() })
}

/// A call of each operation, on a backend of its own.
fn all_operations() -> Result<()> {
    let gpu = Cuda::new(0)?;
    operations().iter().try_for_each(|case| run(&gpu, case))?;
    gpu.synchronize()
}
