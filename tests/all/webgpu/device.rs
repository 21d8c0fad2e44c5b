//! What only a `wgpu` device has: the caller's own device, queue and buffers, and limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longseq::webgpu::{WgpuBuffer, WgpuOptions};
use longseq::*;
use longseq_check::decoupled::DecoupledCase;
use longseq_check::device::assert_check;
use longseq_check::device::webgpu::{device, options};
use longseq_check::din::DinCase;
use longseq_check::sdim::SdimCase;
use longseq_check::search::{Compared, SearchCase};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase, Bias};

/// A separate device, for tests that break or delay it.
fn own_device(options: &WgpuOptions) -> Option<Wgpu> {
    device()?;
    Some(Wgpu::with_options(options).expect("a second device of the same adapter"))
}

#[test]
fn works_within_the_default_limits() {
    let Some(gpu) = own_device(&options().with_portable(true)) else { return };
    assert_eq!(gpu.wgpu_device().limits().max_storage_buffers_per_shader_stage, 8);
    assert!(gpu.wgpu_device().features().is_empty());
    assert!(!gpu.uses_subgroups());
    let (histories, targets) = (vec![3000, 0, 65], vec![40, 2, 9]);
    let attention = AttentionCase { histories, targets, width: 20, ..Default::default() };
    assert_check(&attention, &gpu);
    assert_check(&AttentionBackwardCase { forward: attention, ..Default::default() }, &gpu);
    assert_check(&DinCase { hidden: vec![20, 10], ..Default::default() }, &gpu);
    assert_check(&SdimCase { histories: vec![2000, 5], targets: vec![3, 2], ..Default::default() }, &gpu);
    assert_check(
        &DecoupledCase { histories: vec![2000, 5], targets: vec![3, 2], ..Default::default() },
        &gpu,
    );
    // The most storage buffers that a kernel binds.
    let (histories, targets) = (vec![6000, 5], vec![3, 2]);
    let (score, stored) = (SearchScore::Dot { scale: 0.5 }, Compared::Int8);
    let bias = true;
    let search = SearchCase { histories, targets, score, stored, bias, top_k: 1100, ..Default::default() };
    assert_check(&search, &gpu);
}

#[test]
fn sizes_above_the_limits_are_refused() {
    let Some(gpu) = own_device(&options().with_portable(true)) else { return };
    let limit = gpu.wgpu_device().limits().max_buffer_size;
    let expected = Error::Limit { operation: "zeros", argument: "buffer", needed: limit + 16, limit };
    assert_eq!(gpu.zeros::<f32>((limit / 4 + 4) as usize).unwrap_err(), expected);

    let (units, inputs) = (257, 4);
    let [weight, bias, output_weight, output_bias] =
        [4 * units * inputs, units, units, 1].map(|length| gpu.zeros::<f32>(length).expect("a small buffer"));
    let rows = gpu.zeros::<f32>(inputs).expect("a small buffer");
    let single = Jagged::from_lengths(&[1]).expect("a small length");
    let batch = gpu.batch(&single, &single).expect("one user on both sides");
    let layers = [DinLayer::new(gpu.view(&weight), gpu.view(&bias), Activation::Relu)];
    let inputs = DinInputs::new(
        gpu.view(&rows),
        gpu.view(&rows),
        &layers,
        gpu.view(&output_weight),
        gpu.view(&output_bias),
    );
    let expected = Error::Limit { operation: "din", argument: "hidden[0].bias", needed: 257, limit: 256 };
    assert_eq!(gpu.din(&Din::new(4), &batch, inputs).unwrap_err(), expected);

    // 140 MiB of queries: larger than a binding, and candidates cannot be bound in windows.
    let (width, candidates) = (64, 140 << 12);
    let queries = gpu.zeros::<f32>(width * candidates).expect("less than the largest buffer");
    let mut out = gpu.zeros::<f32>(width * candidates).expect("less than the largest buffer");
    let keys = gpu.zeros::<f32>(width).expect("a small buffer");
    let one = |rows| Jagged::from_lengths(&[rows]).expect("a small length");
    let batch = gpu.batch(&one(1), &one(candidates)).expect("one user on both sides");
    let inputs = TargetAttentionInputs::new(gpu.view(&queries), gpu.view(&keys));
    let outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out));
    let error = gpu.target_attention_into(&TargetAttention::new(width), &batch, inputs, outputs).unwrap_err();
    assert!(matches!(error, Error::Limit { operation: "target_attention", .. }), "{error}");

    let op = Decoupled::new([1.0]).with_top_k(Some(Search::MAX_TOP_K + 1));
    let ids = gpu.zeros::<u32>(1).expect("a small buffer");
    let table = Table::new(1, 64, TableData::F32(gpu.view(&keys)));
    let batch = gpu.batch(&one(1), &one(1)).expect("one user on both sides");
    let (ids, attention) = (gpu.view(&ids), &[table][..]);
    let error =
        gpu.decoupled_search(&op, &batch, SearchInputs::new(attention, ids, ids)).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "decoupled_search: top_k needs 4097, above the limit of 4096");
}

#[test]
fn runs_on_the_callers_device_and_buffers() {
    let Some(own) = own_device(&options()) else { return };
    let (device, queue) = (own.wgpu_device().clone(), own.wgpu_queue().clone());
    let uncaptured = Arc::new(AtomicUsize::new(0));
    let count = uncaptured.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let lost = Arc::new(AtomicUsize::new(0));
    let count = lost.clone();
    device.set_device_lost_callback(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let gpu = Wgpu::from_device(device.clone(), queue.clone()).expect("a working device");

    // One buffer of the caller holds history, candidates and output, none of them at offset 0.
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 4 * 32, usage, mapped_at_creation: false };
    let arena = device.create_buffer(&descriptor);
    let numbers: Vec<f32> = [7.0, 1.0, 0.0, 0.0, 1.0, 9.0, 0.0].to_vec();
    queue.write_buffer(&arena, 0, bytemuck::cast_slice(&numbers));
    let part =
        |offset, length| WgpuBuffer::<f32>::from_buffer(arena.clone(), offset, length).expect("a part");
    let (history, candidate, mut out) = (part(4, 4), part(20, 2), part(36, 2));
    let one = |rows| Jagged::from_lengths(&[rows]).expect("a small length");
    let batch = gpu.batch(&one(2), &one(1)).expect("one user on both sides");
    let inputs = TargetAttentionInputs::new(gpu.view(&candidate), gpu.view(&history));
    let outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out));
    gpu.target_attention_into(&TargetAttention::new(2), &batch, inputs, outputs).expect("a valid call");
    let got = gpu.download(gpu.view(&out)).expect("a download");
    assert!(got[0] > 0.99 && got[1] < 0.01, "{got:?}");
    let all = gpu.download(View::new(&part(0, 32))).expect("a download");
    assert_eq!(all[..7], numbers[..]);
    assert!(all[7..9].iter().chain(&all[11..]).all(|&x| x == 0.0), "{all:?}");

    let error = WgpuBuffer::<f32>::from_buffer(arena.clone(), 120, 3).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "length", .. }), "{error}");
    let error = WgpuBuffer::<f32>::from_buffer(arena, 2, 1).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "offset", .. }), "{error}");

    assert_eq!(uncaptured.load(Ordering::Relaxed), 0);
    assert_eq!(lost.load(Ordering::Relaxed), 0);
    device.destroy();
    let _ = device.poll(wgpu::PollType::Poll);
    assert_eq!(lost.load(Ordering::Relaxed), 1, "the caller's callback is gone");
}

#[test]
fn a_destroyed_device_is_an_error() {
    let Some(gpu) = own_device(&options()) else { return };
    let buffer = gpu.upload(&[1.0f32]).expect("an upload");
    gpu.wgpu_device().destroy();
    let error = gpu.download(gpu.view(&buffer)).unwrap_err();
    assert_eq!(error, Error::DeviceLost { operation: "download" });
    assert_eq!(gpu.synchronize().unwrap_err(), Error::DeviceLost { operation: "synchronize" });
}

#[test]
fn no_adapter_is_an_error() {
    let error = Wgpu::with_options(&WgpuOptions::default().with_adapter("no such adapter")).unwrap_err();
    assert!(matches!(&error, Error::NoAdapter { reason } if reason.contains("no such adapter")), "{error}");
}

#[test]
fn waits_no_longer_than_allowed() {
    let Some(gpu) = own_device(&options().with_timeout(Some(Duration::from_millis(1)))) else { return };
    let (width, length) = (64, 1 << 17);
    let rows = gpu.zeros::<f32>(width * length).expect("a buffer");
    let queries = gpu.zeros::<f32>(width * 32).expect("a buffer");
    let one = |rows| Jagged::from_lengths(&[rows]).expect("a small length");
    let batch = gpu.batch(&one(length), &one(32)).expect("one user on both sides");
    let inputs = TargetAttentionInputs::new(gpu.view(&queries), gpu.view(&rows));
    let out = gpu.target_attention(&TargetAttention::new(width), &batch, inputs).expect("a valid call");
    let error = gpu.download(gpu.view(&out)).unwrap_err();
    assert!(matches!(error, Error::Timeout { operation: "download", .. }), "{error}");
    // Waiting again, for longer, succeeds.
    let patient = gpu.with_timeout(None);
    patient.synchronize().expect("the device finished");
}

#[test]
fn downloads_without_blocking() {
    let Some(gpu) = device() else { return };
    let data: Vec<u16> = (0..1001).collect();
    let buffer = gpu.upload(&data).expect("an upload");
    let mut download = std::pin::pin!(gpu.download_async(gpu.view(&buffer).slice(3, 990).expect("a part")));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let got = loop {
        if let std::task::Poll::Ready(got) = download.as_mut().poll(&mut context) {
            break got.expect("a download");
        }
    };
    assert_eq!(got, data[3..993]);
}

/// naga accepts every variant; with `LONGSEQ_SHADER_FOLDER` they are written there for other compilers.
#[test]
fn every_shader_is_valid_wgsl() {
    let shaders = webgpu::shaders();
    assert!(shaders.len() > 50);
    for (index, (name, text)) in shaders.iter().enumerate() {
        if let Ok(folder) = std::env::var("LONGSEQ_SHADER_FOLDER") {
            let kernel = name.split(' ').next().unwrap_or_default().replace('/', "_");
            let path = std::path::Path::new(&folder).join(format!("{index:03}_{kernel}.wgsl"));
            std::fs::write(path, text).expect("a folder to write to");
        }
        if let Some(gpu) = device() {
            let device = gpu.wgpu_device();
            if name.contains("QUADS=1") && !device.features().contains(wgpu::Features::SUBGROUP) {
                continue;
            }
            let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
            let source = wgpu::ShaderSource::Wgsl(text.as_str().into());
            let _ = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(name), source });
            let mut error = std::pin::pin!(scope.pop());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match error.as_mut().poll(&mut context) {
                std::task::Poll::Ready(None) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

/// More candidates than a thread may go over in one dispatch: some devices stop loops after 65,536 iterations.
#[test]
fn gradients_of_many_candidates_take_several_dispatches() {
    let Some(gpu) = device() else { return };
    let forward = AttentionCase {
        histories: vec![10, 3],
        targets: vec![30_000, 2],
        value_width: Some(8),
        bias: Bias::Normal,
        ..Default::default()
    };
    assert_check(&AttentionBackwardCase { forward, ..Default::default() }, &gpu);
}

/// A device that binds at most 64 KiB.
pub(super) fn device_of_small_bindings() -> Option<Wgpu> {
    let gpu = device()?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let mut adapters = std::pin::pin!(instance.enumerate_adapters(wgpu::Backends::all()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(adapters) = adapters.as_mut().poll(&mut context) else {
        panic!("native adapters are there at once");
    };
    let name = gpu.wgpu_device().adapter_info().name;
    let adapter =
        adapters.into_iter().find(|adapter| adapter.get_info().name == name).expect("the same adapter");
    let required_limits =
        wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..wgpu::Limits::default() };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let mut request = std::pin::pin!(adapter.request_device(&descriptor));
    let std::task::Poll::Ready(device) = request.as_mut().poll(&mut context) else {
        panic!("a native device is there at once");
    };
    let (device, queue) = device.expect("a device of smaller limits");
    Some(Wgpu::from_device(device, queue).expect("a working device"))
}

/// Every operation reads histories in windows.
#[test]
fn histories_beyond_one_binding_are_read_in_windows() {
    let Some(gpu) = device_of_small_bindings() else { return };
    // 3000 behaviours of 16 numbers are 188 KiB.
    let (histories, targets) = (vec![3000, 0, 40], vec![3, 1, 2]);
    let (h, t) = (|| histories.clone(), || targets.clone());
    let attention = AttentionCase { histories: h(), targets: t(), ..Default::default() };
    assert_check(&attention, &gpu);
    for dtype in [DType::F32, DType::Bf16] {
        let forward = AttentionCase { dtype, bias: Bias::Mask, heads: 2, kv_heads: 1, ..attention.clone() };
        assert_check(&AttentionBackwardCase { forward, narrow: true, ..Default::default() }, &gpu);
    }
    // Users in groups, whose gradients share words where rows are of an odd number of 16-bit numbers.
    for (dtype, width) in [(DType::F32, 16), (DType::Bf16, 7)] {
        let forward = AttentionCase {
            dtype,
            width,
            value_width: Some(5),
            histories: (0..300).map(|user| user % 7 * 5).collect(),
            targets: (0..300).map(|user| [1, 0, 3, 1, 1][user % 5]).collect(),
            bias: Bias::Normal,
            tail: 3,
            ..Default::default()
        };
        for narrow in [false, true] {
            assert_check(
                &AttentionBackwardCase { forward: forward.clone(), narrow, ..Default::default() },
                &gpu,
            );
        }
    }
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        let case = DinCase { histories: h(), targets: t(), pooling, hidden: vec![12], ..Default::default() };
        assert_check(&case, &gpu);
    }
    let case = SdimCase { histories: h(), targets: t(), width: 16, ..Default::default() };
    assert_check(&case, &gpu);
    // With this many features, rows are gathered first, window by window.
    let features = 4;
    let case = DecoupledCase {
        histories: h(),
        targets: t(),
        table_rows: vec![50; features],
        attention_widths: vec![8; features],
        representation_widths: vec![1; features],
        ..Default::default()
    };
    assert_check(&case, &gpu);
    // Rows, biases, lengths and keys of one window at a time.
    let dot = SearchScore::Dot { scale: 0.5 };
    for (score, stored, width) in [
        (dot, Compared::F32, 16),
        (dot, Compared::Int8, 61),
        (SearchScore::Cosine, Compared::Bf16, 33),
        (SearchScore::Match, Compared::F32, 1),
    ] {
        let bias = score == dot;
        let (histories, targets) = (vec![20_000, 0, 40], t());
        let case = SearchCase { histories, targets, score, stored, width, bias, ..Default::default() };
        assert_check(&case, &gpu);
    }
}
