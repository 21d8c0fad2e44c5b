//! Streams and captures on the emulated CUDA device: what a capture must not contain is refused, records are never given away, the
//! per-thread default stream is refused, and sources of copies live until they are made.

use cuda_emulator::CudaError;
use cuda_emulator::control::{CallKind, PageableCopies, StreamOrder};
use longseq::cuda::CudaMemory;
use longseq::cudarc::driver::CudaContext;
use longseq::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use longseq::*;
use longseq_check::decoupled::DecoupledCase;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::session;
use longseq_check::din::DinCase;
use longseq_check::lookup::LookupCase;
use longseq_check::sdim::SdimCase;
use longseq_check::target_attention::AttentionCase;
use longseq_check::waits::block_on;

const THREAD_LOCAL: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const FREE_ON_LAUNCH: CUgraphInstantiate_flags =
    CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;

fn single(rows: usize) -> Jagged {
    Jagged::from_lengths(&[rows]).expect("a length")
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    match result {
        Err(Error::Unsupported { what: came, .. }) => {
            assert_eq!(came, format!("{what} during a stream capture"))
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// A batch that has not been used has no plan on the device, and a kernel that has not been used is not loaded. Neither is made
/// while the stream is captured; what was refused works afterwards.
#[test]
fn first_use_inside_a_capture_is_refused() {
    let Some(emulator) = session() else { return };
    let stream = CudaContext::new(0).expect("a context").new_stream().expect("a stream");
    let gpu = Cuda::from_stream(stream.clone()).expect("a device");
    let rows = gpu.upload(&[1.0f32; 8]).expect("memory");
    let slice = stream.clone_htod(&[1.0f32; 4]).expect("a copy");
    let mut out = gpu.zeros::<f32>(4).expect("memory");
    let dropped = gpu.zeros::<f32>(4).expect("memory");
    let new = gpu.batch(&single(2), &single(1)).expect("a batch");
    let attend = |batch: &<Cuda as DeviceOps>::Batch, out: &mut _| {
        let outputs = TargetAttentionOutputs::new(gpu.view_mut(out));
        let inputs =
            TargetAttentionInputs::new(gpu.view(&rows).slice(0, 4).expect("a part"), gpu.view(&rows));
        gpu.target_attention_into(&TargetAttention::new(4), batch, inputs, outputs)
    };
    stream.begin_capture(THREAD_LOCAL).expect("a capture");
    assert_refused(attend(&new, &mut out), "an allocation");
    assert_refused(gpu.upload(&[1.0f32]), "an allocation");
    assert_refused(gpu.zeros::<f32>(4), "an allocation");
    assert_refused(gpu.fork(), "an allocation");
    assert_refused(gpu.upload_into(gpu.view_mut(&mut out), &[2.0; 4]), "a copy from the host");
    assert_refused(gpu.download(gpu.view(&rows)), "a copy to the host");
    assert_refused(gpu.synchronize(), "a wait");
    assert_refused(block_on(gpu.download_async(gpu.view(&rows))), "a copy to the host");
    assert_refused(block_on(gpu.synchronize_async()), "a wait");
    assert_refused(gpu.borrow(&slice).map(drop), "borrowing a slice");
    drop(dropped);
    stream.end_capture(FREE_ON_LAUNCH).expect("the capture is whole");

    attend(&new, &mut out).expect("a valid call");
    let workspace = gpu.zeros::<u8>(gpu.scratch_taken() + 1024).expect("memory");
    gpu.set_workspace(Some(workspace)).expect("its own stream");
    let mut table = gpu.zeros::<f32>(8).expect("memory");
    let mut copied = gpu.zeros::<f32>(4).expect("memory");
    stream.begin_capture(THREAD_LOCAL).expect("a capture");
    assert_refused(
        gpu.sdim_add_tables(&Sdim::new(4).with_groups(1, 1), gpu.view_mut(&mut table), gpu.view(&rows)),
        "loading a kernel",
    );
    attend(&new, &mut out).expect("a call that has been made before");
    gpu.copy(gpu.view(&out), gpu.view_mut(&mut copied)).expect("a copy on the device");
    let graph = stream.end_capture(FREE_ON_LAUNCH).expect("the capture is whole").expect("work in it");
    graph.launch().expect("a launch");
    for out in [&out, &copied] {
        assert_eq!(gpu.download(gpu.view(out)).expect("a download"), [1.0; 4]);
    }
    drop((graph, out, copied, table, new, slice, rows, gpu, stream));
    assert_eq!(emulator.take_findings(), []);
    let live = emulator.live();
    assert!(live.is_empty_but_for_contexts(), "what was dropped during the capture is freed: {live}");
}

/// Calls on short histories take no scratch memory, so that nothing is allocated while they are captured.
#[test]
fn calls_that_need_no_scratch_are_captured_without_a_workspace() {
    let Some(emulator) = session() else { return };
    let stream = CudaContext::new(0).expect("a context").new_stream().expect("a stream");
    let gpu = Cuda::from_stream(stream.clone()).expect("a device");
    let rows = gpu.upload(&[1.0f32; 8]).expect("memory");
    let batch = gpu.batch(&single(2), &single(1)).expect("a batch");
    let op = TargetAttention::new(4).with_weighting(Weighting::Identity);
    let call = |outputs: &mut [_; 2]| {
        let [out, grads] = outputs;
        let query = gpu.view(&rows).slice(0, 4)?;
        let inputs = TargetAttentionInputs::new(query, gpu.view(&rows));
        gpu.target_attention_into(&op, &batch, inputs, TargetAttentionOutputs::new(gpu.view_mut(out)))?;
        let grads = TargetAttentionGradients::new().with_keys(gpu.view_mut(grads));
        let (saved, grad_out) = (TargetAttentionSaved::none(), TargetAttentionGradOut::new(query));
        gpu.target_attention_backward_into(&op, &batch, inputs, saved, grad_out, grads)
    };
    let outputs = || [4, 8].map(|length| gpu.zeros::<f32>(length).expect("memory"));
    let (mut first, mut captured) = (outputs(), outputs());
    call(&mut first).expect("a valid call");
    stream.begin_capture(THREAD_LOCAL).expect("a capture");
    let made = call(&mut captured);
    let graph = stream.end_capture(FREE_ON_LAUNCH).expect("the capture is whole");
    made.expect("calls that have been made before");
    graph.expect("work in it").launch().expect("a launch");
    for output in first.iter().chain(&captured) {
        // Scores and weights of 2.
        assert_eq!(gpu.download(gpu.view(output)).expect("a download"), vec![4.0; output.len()]);
    }
    drop((first, captured, rows, batch, gpu, stream));
    assert_eq!(emulator.take_findings(), []);
}

/// Aggregates with a position out of range for every second batch, without a wait in between.
#[test]
fn many_batches_share_records_and_none_waits() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let gpu = Cuda::new(0).expect("a device");
    let numbers = gpu.upload(&[1.0f32; 12]).expect("memory");
    let tables = [Table::new(3, 4, TableData::F32(gpu.view(&numbers)))];
    let ids = gpu.upload(&[0u32; 1000]).expect("memory");
    let (scores, counts) = (gpu.upload(&[0.0f32; 2]).expect("memory"), gpu.upload(&[2u32]).expect("memory"));
    let op = Decoupled::new([1.0]).with_top_k(Some(2));
    let aggregate = |length: usize, position: u32| {
        let batch = gpu.batch(&single(length), &single(1)).expect("a batch");
        let positions = gpu.upload(&[0, position]).expect("memory");
        let selection = Selection::new(gpu.view(&positions), gpu.view(&scores), gpu.view(&counts));
        let (history, target) =
            (gpu.view(&ids).slice(0, length).expect("a part"), gpu.view(&ids).slice(0, 1).expect("a part"));
        gpu.decoupled_aggregate(&op, &batch, AggregateInputs::new(&tables, history, target), selection)
    };
    emulator.take_calls();
    for length in 1..300 {
        aggregate(length, length as u32 - 1).expect("a valid call");
    }
    aggregate(300, 305).expect("reported by the next wait");
    let waits = emulator.take_calls().iter().filter(|name| name.contains("Synchronize")).count();
    assert_eq!(waits, 0);
    let bound = 300;
    let (operation, argument) = ("decoupled_aggregate", "positions");
    let expected = Error::IndexOutOfRange { operation, argument, position: 1, id: 305, bound };
    assert_eq!(gpu.synchronize(), Err(expected));
    gpu.synchronize().expect("reported once");
    // The bound is that of the call that went wrong, whatever was called after it with the same argument.
    aggregate(5, 8).expect("reported by the next wait");
    for length in [2, 300, 7] {
        aggregate(length, 1).expect("a valid call");
    }
    let bound = 5;
    let expected = Error::IndexOutOfRange { operation, argument, position: 1, id: 8, bound };
    assert_eq!(gpu.synchronize(), Err(expected));
    gpu.synchronize().expect("reported once");
    // As many kinds of checks as there are sizes of tables.
    for rows in 1..400 {
        let size = gpu.zeros::<f32>(rows).expect("memory");
        let tables = [Table::new(rows, 1, TableData::F32(gpu.view(&size)))];
        let inputs = LookupInputs::new(gpu.view(&ids).slice(0, 3).expect("a part"), &tables);
        gpu.lookup(&Lookup::default(), Bags::Each, inputs).expect("a valid call");
    }
    let size = gpu.zeros::<f32>(2).expect("memory");
    let tables = [Table::new(2, 1, TableData::F32(gpu.view(&size)))];
    let bad = gpu.upload(&[0, 7u32]).expect("memory");
    gpu.lookup(&Lookup::default(), Bags::Each, LookupInputs::new(gpu.view(&bad), &tables))
        .expect("a valid call");
    let expected =
        Error::IndexOutOfRange { operation: "lookup", argument: "ids", position: 1, id: 7, bound: 2 };
    assert_eq!(gpu.synchronize(), Err(expected));
    drop((bad, size, counts, scores, ids, numbers, gpu));
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

/// Many sizes of tables, with a wait after each call, and without. An error tells the bound of the call that went wrong, or, where that has
/// been forgotten, no wrong one.
#[test]
fn bounds_of_many_calls_are_those_of_the_call_that_went_wrong() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let gpu = Cuda::new(0).expect("a device");
    let look_up = |rows: usize, id: u32| {
        let (size, ids) = (gpu.zeros::<f32>(rows)?, gpu.upload(&[id])?);
        let tables = [Table::new(rows, 1, TableData::F32(gpu.view(&size)))];
        let inputs = LookupInputs::new(gpu.view(&ids), &tables);
        gpu.lookup(&Lookup::default(), Bags::Each, inputs).map(drop)
    };
    let bound_of = |found: Result<()>| match found {
        Err(Error::IndexOutOfRange { argument: "ids", bound, .. }) => bound,
        other => panic!("{other:?}"),
    };
    for rows in (1..=80).chain([65, 66, 64, 65, 79, 3]) {
        look_up(rows, 1000).expect("reported by the next wait");
        assert_eq!(bound_of(gpu.synchronize()), rows as u64);
    }
    for i in 0..200 {
        let (rows, id) = if i == 70 { (3, 5) } else { (100 + i, 0) };
        look_up(rows, id).expect("reported by the next wait");
    }
    let bound = bound_of(gpu.synchronize());
    assert!((3..=5).contains(&bound), "{bound}");
    gpu.synchronize().expect("reported once");
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

/// A captured call may be replayed after any wait: its record is nobody else's from then on, however many kinds of checks there are.
#[test]
fn a_replayed_call_reports_its_own_bound() {
    let Some(emulator) = session() else { return };
    let stream = CudaContext::new(0).expect("a context").new_stream().expect("a stream");
    let gpu = Cuda::from_stream(stream.clone()).expect("a device");
    let look_up = |rows: usize, ids: View<'_, CudaMemory, u32>, out: ViewMut<'_, CudaMemory, f32>| {
        let size = gpu.zeros::<f32>(rows)?;
        let tables = [Table::new(rows, 1, TableData::F32(gpu.view(&size)))];
        gpu.lookup_into(
            &Lookup::default(),
            Bags::Each,
            LookupInputs::new(ids, &tables),
            LookupOutputs::new(out),
        )
    };
    let (size, mut out) = (gpu.zeros::<f32>(3).expect("memory"), gpu.zeros::<f32>(1).expect("memory"));
    let mut ids = gpu.upload(&[0u32]).expect("memory");
    look_up(3, gpu.view(&ids), gpu.view_mut(&mut out)).expect("a valid call");
    gpu.synchronize().expect("a valid id");
    let tables = [Table::new(3, 1, TableData::F32(gpu.view(&size)))];
    stream.begin_capture(THREAD_LOCAL).expect("a capture");
    let inputs = LookupInputs::new(gpu.view(&ids), &tables);
    let outputs = LookupOutputs::new(gpu.view_mut(&mut out));
    gpu.lookup_into(&Lookup::default(), Bags::Each, inputs, outputs).expect("a call that can be captured");
    let graph = stream.end_capture(FREE_ON_LAUNCH).expect("the capture is whole").expect("with work in it");
    // Every other check is over with its wait, and its record may be given away; more than have records of their own.
    for rows in 10..200 {
        look_up(rows, gpu.view(&ids), gpu.view_mut(&mut out)).expect("a valid call");
        gpu.synchronize().expect("a valid id");
    }
    gpu.upload_into(gpu.view_mut(&mut ids), &[7]).expect("an upload");
    graph.launch().expect("a launch");
    let (operation, argument) = ("lookup", "ids");
    let expected = Error::IndexOutOfRange { operation, argument, position: 0, id: 7, bound: 3 };
    assert_eq!(gpu.synchronize(), Err(expected));
    drop((graph, gpu));
    assert_eq!(emulator.take_findings(), []);
}

/// The host keeps sources of small copies until a wait, but not for ever, however small they are.
#[test]
fn tiny_copies_are_bounded_without_waits() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let mut bytes = gpu.zeros::<u8>(4).expect("memory");
    let mut copy = |count: usize, times: usize| {
        let mut waits = 0;
        for _ in 0..times / 1000 {
            emulator.take_calls();
            for _ in 0..1000 {
                let out = gpu.view_mut(&mut bytes).slice(1, count).expect("a part");
                gpu.upload_into(out, &[7; 3][..count]).expect("a copy");
            }
            waits += emulator.take_calls().iter().filter(|name| name.contains("Synchronize")).count();
        }
        waits
    };
    assert_eq!((copy(0, 300_000), copy(1, 300_000)), (0, 1));
    assert_eq!(gpu.download(gpu.view(&bytes)).expect("a download"), [0, 7, 0, 0]);
}

#[test]
fn the_per_thread_default_stream_is_refused() {
    let Some(emulator) = session() else { return };
    let context = CudaContext::new(0).expect("a context");
    let error = Cuda::from_stream(context.per_thread_stream()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Cuda::from_stream: the per-thread default stream is not supported; supported: the default stream, and streams that \
         were created"
    );
    Cuda::from_stream(context.default_stream()).expect("the default stream is one for all threads");
    drop(context);
    assert_eq!(emulator.take_findings(), []);
}

/// A driver may make copies from and to pageable memory as late as the stream reaches them.
#[test]
fn copies_may_be_made_late() {
    let Some(emulator) = session() else { return };
    for order in [StreamOrder::Late, StreamOrder::Shuffled(3)] {
        emulator.set_stream_order(order);
        emulator.set_pageable_copies(PageableCopies::Late);
        let gpu = Cuda::new(0).expect("a device");
        let (histories, targets) = (vec![0, 700, 33], vec![1, 9, 3]);
        assert_check(
            &AttentionCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() },
            &gpu,
        );
        assert_check(
            &DinCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() },
            &gpu,
        );
        assert_check(
            &SdimCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() },
            &gpu,
        );
        assert_check(&DecoupledCase { histories, targets, ..Default::default() }, &gpu);
        assert_check(&LookupCase::default(), &gpu);
        // Longer than what is kept, and more of them.
        let large = vec![1.5f32; 1 << 20];
        let one = gpu.upload(&large).expect("memory");
        for _ in 0..40 {
            gpu.upload(&large[..100_000]).expect("memory");
        }
        assert!(gpu.download(gpu.view(&one)).expect("a download").iter().all(|&x| x == 1.5));
        drop((one, gpu));
        assert_eq!(emulator.take_findings(), []);
    }
}

/// Host memory outlives the copies that were asked for, also where a call after them fails.
#[test]
fn copies_may_be_made_late_where_calls_fail() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    emulator.set_stream_order(StreamOrder::Late);
    emulator.set_pageable_copies(PageableCopies::Late);
    let request = || -> Result<()> {
        let gpu = Cuda::new(0)?;
        let rows = gpu.upload(&[1.0f32; 12])?;
        let tables = [Table::new(3, 4, TableData::F32(gpu.view(&rows)))];
        for bad in [0, 7] {
            let ids = gpu.upload(&[1, bad])?;
            let inputs = LookupInputs::new(gpu.view(&ids), &tables);
            let (out, _) = gpu.lookup(&Lookup::default(), Bags::Each, inputs)?;
            match gpu.download(gpu.view(&out)) {
                Ok(got) => assert_eq!((got, bad), (vec![1.0; 8], 0)),
                Err(Error::IndexOutOfRange { .. }) => assert_eq!(bad, 7),
                Err(error) => return Err(error),
            }
        }
        gpu.upload(&[2.0f32; 100]).map(drop)
    };
    let kinds = [CallKind::Allocate, CallKind::Copy, CallKind::Fill, CallKind::Launch, CallKind::Synchronize];
    for kind in kinds {
        for nth in 1.. {
            emulator.take_calls();
            emulator.fail_call(kind, nth, CudaError::LaunchFailed);
            let result = request();
            let made = emulator.take_calls().iter().filter(|name| CallKind::of(name) == kind).count();
            emulator.clear_faults();
            assert_eq!(emulator.take_findings(), [], "call {nth} of {kind:?}: {result:?}");
            if made < nth as usize {
                result.expect("nothing failed");
                break;
            }
        }
    }
}
