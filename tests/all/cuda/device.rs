//! What only a CUDA device has: the caller's own stream and memory, graphs, unsupported devices. Every test
//! runs in a session of its own on the emulator.

use cuda_emulator::{CudaError, CudaVersion, Device, Emulator};
use longseq::cudarc::driver::{CudaContext, DevicePtr};
use longseq::*;
use longseq_check::AnyCase;
use longseq_check::decoupled::DecoupledCase;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::din::DinCase;
use longseq_check::target_attention::{AttentionCase, MergeCase};

/// No findings, and nothing left allocated but the primary context, where a test still holds one.
#[track_caller]
pub(super) fn assert_clean(emulator: &Emulator) {
    assert_eq!(emulator.take_findings(), []);
    let live = emulator.live();
    assert!(live.is_empty_but_for_contexts(), "{live}");
    assert!(emulator.take_leaks().is_empty());
}

#[test]
fn a_device_without_the_instructions_is_refused() {
    let Some(emulator) = session() else { return };
    emulator.set_device(Device::sm_75());
    assert_eq!(
        Cuda::new(0).unwrap_err().to_string(),
        "Cuda::new: a GPU of compute capability 7.5 is not supported; supported: 8.0 (Ampere) and later"
    );
    let stream = CudaContext::new(0).expect("a context").default_stream();
    let error = Cuda::from_stream(stream).unwrap_err();
    assert!(matches!(error, Error::Unsupported { operation: "Cuda::from_stream", .. }), "{error}");
    assert_clean(&emulator);
}

#[test]
fn a_driver_too_old_is_refused() {
    let Some(emulator) = session() else { return };
    emulator.set_device(Device::sm_80().with_driver_version(CudaVersion::new(11, 2)));
    assert_eq!(
        Cuda::new(0).unwrap_err().to_string(),
        "Cuda::new: a driver for CUDA 11.2 is not supported; supported: drivers for CUDA 11.4 and later"
    );
    emulator.set_device(Device::sm_80().with_driver_version(CudaVersion::new(11, 4)));
    Cuda::new(0).expect("the oldest driver that will do");
    assert_clean(&emulator);
}

#[test]
fn a_driver_without_a_device_is_an_error() {
    let Some(emulator) = session() else { return };
    emulator.fail_call("cuInit", 1, CudaError::NoDevice);
    assert_eq!(
        Cuda::new(0).unwrap_err().to_string(),
        "no CUDA device: Cuda::new: the CUDA driver reports CUDA_ERROR_NO_DEVICE (100)"
    );
    assert_eq!(
        Cuda::new(1).unwrap_err().to_string(),
        "no CUDA device: device 1 was asked for, and there are 1"
    );
    assert!(Cuda::is_available());
    assert_clean(&emulator);
}

#[test]
fn too_much_memory_is_an_error_and_leaves_the_device_usable() {
    let Some(emulator) = session() else { return };
    emulator.set_device(Device::sm_80());
    let gpu = Cuda::new(0).expect("a device");
    let length = 1usize << 40;
    let expected = Error::OutOfMemory { operation: "zeros", bytes: 4 << 40 };
    assert_eq!(gpu.zeros::<f32>(length).unwrap_err(), expected);
    let error = gpu.zeros::<f32>(usize::MAX / 2).unwrap_err();
    assert!(matches!(error, Error::Limit { operation: "zeros", .. }), "{error}");
    assert_check(&AttentionCase::default(), &gpu);
    drop(gpu);
    assert_clean(&emulator);
}

#[test]
fn works_without_memory_pools() {
    let Some(emulator) = session() else { return };
    emulator.set_device(Device::sm_80().without_memory_pools());
    let gpu = Cuda::new(0).expect("a device");
    assert_check(&AttentionCase::default(), &gpu);
    drop(gpu);
    assert_clean(&emulator);
}

#[test]
fn runs_on_the_callers_stream_and_slices() {
    let Some(emulator) = session() else { return };
    let stream = CudaContext::new(0).expect("a context").new_stream().expect("a stream");
    let gpu = Cuda::from_stream(stream.clone()).expect("a device");
    // Two rows of width 4 after a row of somebody else; the caller's slices, not copied.
    let history =
        stream.clone_htod(&[7.0f32, 7.0, 7.0, 7.0, 9.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0]).expect("a copy");
    let candidates = stream.clone_htod(&[9.0f32, 0.0, 0.0, 0.0]).expect("a copy");
    let mut out = stream.alloc_zeros::<f32>(6).expect("memory");
    let before = emulator.live_allocations().len();
    {
        let rows = history.slice(4..);
        let (rows, queries) =
            (gpu.borrow(&rows).expect("the same stream"), gpu.borrow(&candidates).expect("same"));
        let mut middle = out.slice_mut(1..5);
        let mut written = gpu.borrow_mut(&mut middle).expect("the same stream");
        let single = |rows| Jagged::from_lengths(&[rows]).expect("a length");
        let batch = gpu.batch(&single(2), &single(1)).expect("a user");
        let inputs = TargetAttentionInputs::new(queries.view(), rows.view());
        let outputs = TargetAttentionOutputs::new(written.view_mut());
        gpu.target_attention_into(&TargetAttention::new(4), &batch, inputs, outputs).expect("a valid call");
    }
    assert_eq!(emulator.live_allocations().len(), before, "scratch and plans are freed");
    let got = stream.clone_dtoh(&out).expect("a copy");
    assert_eq!((got[0], got[5]), (0.0, 0.0));
    assert!(got[1] > 8.9 && got[2] < 1e-6, "{got:?}");

    let other = stream.context().new_stream().expect("a stream");
    let foreign = other.clone_htod(&[1.0f32]).expect("a copy");
    assert_eq!(
        gpu.borrow(&foreign).map(drop).unwrap_err().to_string(),
        "borrow: memory of another stream is not supported; supported: memory of the backend's own stream"
    );
    let buffer = Cuda::from_stream(other.clone()).expect("a device").upload(&[1.0f32]).expect("memory");
    let error = gpu.download(gpu.view(&buffer)).unwrap_err();
    assert!(matches!(error, Error::Unsupported { operation: "download", .. }), "{error}");
    assert_eq!(history.device_ptr(&stream).0 % 4, 0);
    drop((buffer, foreign, other, history, candidates, out, gpu, stream));
    assert_clean(&emulator);
}

/// With a workspace, calls neither allocate nor wait.
#[test]
fn a_call_with_a_workspace_only_launches() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let request = Request::new(&gpu);
    request.attend(&gpu);
    let bytes = gpu.scratch_taken();
    assert!(bytes > 0, "the case splits its history");
    gpu.set_workspace(Some(gpu.zeros::<u8>(bytes + 128).expect("memory"))).expect("its own stream");
    let mut out = gpu.zeros::<f32>(request.out.len()).expect("memory");
    emulator.take_calls();
    request.attend_into(&gpu, &mut out);
    let calls = emulator.take_calls();
    assert!(calls.iter().any(|name| name == "cuLaunchKernel"));
    assert!(
        calls.iter().all(|name| ["cuLaunchKernel", "cuCtxGetCurrent"].contains(&name.as_str())),
        "{calls:?}"
    );
    drop((out, request, gpu));
    assert_clean(&emulator);
}

#[test]
fn calls_can_be_captured_and_replayed() {
    use longseq::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let request = Request::new(&gpu);
    let expected = request.attend(&gpu);
    let workspace = gpu.zeros::<u8>(gpu.scratch_taken() + 128).expect("memory");
    gpu.set_workspace(Some(workspace)).expect("its own stream");
    let mut out = gpu.zeros::<f32>(request.out.len()).expect("memory");
    let stream = gpu.stream().clone();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("a capture");
    request.attend_into(&gpu, &mut out);
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).expect("a graph").expect("with work in it");
    assert_eq!(gpu.download(gpu.view(&out)).expect("a download"), vec![0.0; out.len()], "only recorded");
    graph.launch().expect("a launch");
    assert_eq!(gpu.download(gpu.view(&out)).expect("a download"), expected);
    drop((graph, out, request, stream, gpu));
    assert_clean(&emulator);
}

/// One user of many behaviours, so that the history is split.
pub(super) struct Request {
    pub(super) history: <CudaMem as Memory>::Buffer<f32>,
    pub(super) candidates: <CudaMem as Memory>::Buffer<f32>,
    out: Vec<f32>,
    pub(super) batch: <Cuda as DeviceOps>::Batch,
}

type CudaMem = <Cuda as DeviceOps>::Memory;

impl Request {
    pub(super) const WIDTH: usize = 16;

    pub(super) fn new(gpu: &Cuda) -> Self {
        let mut rng = longseq_check::data::rng(3);
        let mut rows = |count| {
            longseq_check::data::rows::<f32>(&mut rng, longseq_check::data::Data::Normal, count, Self::WIDTH)
        };
        let (histories, targets) = ([20_000, 3], [3, 1]);
        let history = gpu.upload(&rows(20_003)).expect("memory");
        let candidates = gpu.upload(&rows(4)).expect("memory");
        let [histories, targets] =
            [histories, targets].map(|lengths| Jagged::from_lengths(&lengths).expect("lengths"));
        let batch = gpu.batch(&histories, &targets).expect("a batch");
        Self { history, candidates, out: vec![0.0; 4 * Self::WIDTH], batch }
    }

    pub(super) fn attend_into(&self, gpu: &Cuda, out: &mut <CudaMem as Memory>::Buffer<f32>) {
        let (queries, keys) = (gpu.view(&self.candidates), gpu.view(&self.history));
        let inputs = TargetAttentionInputs::new(queries, keys);
        let outputs = TargetAttentionOutputs::new(gpu.view_mut(out));
        gpu.target_attention_into(&TargetAttention::new(Self::WIDTH), &self.batch, inputs, outputs)
            .expect("a valid call");
    }

    pub(super) fn attend(&self, gpu: &Cuda) -> Vec<f32> {
        let mut out = gpu.zeros(self.out.len()).expect("memory");
        self.attend_into(gpu, &mut out);
        gpu.download(gpu.view(&out)).expect("a download")
    }
}

#[test]
fn results_hold_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let mut cases: Vec<AnyCase> = vec![
        (&MergeCase { rows: 300, value_width: 7, ..Default::default() }).into(),
        (&DecoupledCase { histories: vec![700, 3], targets: vec![5, 2], ..Default::default() }).into(),
    ];
    let (histories, targets) = (vec![0, 700, 33], vec![1, 9, 3]);
    let attention = AttentionCase {
        histories: histories.clone(),
        targets: targets.clone(),
        width: 32,
        ..Default::default()
    };
    let (hidden, pooling) = (vec![20, 12], DinPooling::Softmax);
    let din = DinCase { histories, targets, hidden, pooling, ..Default::default() };
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        cases.push((&AttentionCase { dtype, ..attention.clone() }).into());
        cases.push((&DinCase { dtype, ..din.clone() }).into());
    }
    for (index, case) in cases.iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
        }
    }
    drop(gpu);
    assert_clean(&emulator);
}
