//! Handles: time-outs of one beside others, buffers and batches of another device, and waits without blocking.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use longseq::webgpu::{WgpuBatch, WgpuBuffer, WgpuJagged};
use longseq::*;
use longseq_check::device::webgpu::{device, options};

fn own_device() -> Option<Wgpu> {
    device()?;
    Some(Wgpu::with_options(&options()).expect("a second device of the same adapter"))
}

fn one(rows: usize) -> Jagged {
    Jagged::from_lengths(&[rows]).expect("a small length")
}

fn look_up(gpu: &Wgpu, table: &WgpuBuffer<f32>, ids: &WgpuBuffer<u32>) -> Result<WgpuBuffer<f32>> {
    let tables = [Table::new(2, 1, TableData::F32(gpu.view(table).slice(0, 2)?))];
    let inputs = LookupInputs::new(gpu.view(ids), &tables);
    Ok(gpu.lookup(&Lookup::default(), Bags::Each, inputs)?.0)
}

#[test]
fn a_handle_with_another_time_out_waits_for_the_same_work() {
    let Some(gpu) = device() else { return };
    let other = gpu.clone();
    let table = gpu.upload(&[3.0f32, 4.0]).expect("an upload");
    let ids = gpu.upload(&[1u32, 0]).expect("an upload");
    let out = look_up(&gpu, &table, &ids).expect("a valid call");
    // `other` is alive, so the handle is not the only one.
    let patient = gpu.with_timeout(Some(Duration::from_secs(60)));
    assert_eq!(patient.download(patient.view(&out)).expect("a download"), [4.0, 3.0]);
    let _ = look_up(&other, &table, &patient.upload(&[0u32, 9]).expect("an upload")).expect("a valid call");
    let error = patient.synchronize().expect_err("the id is bad");
    assert!(matches!(error, Error::IndexOutOfRange { position: 1, id: 9, .. }), "{error}");
    other.synchronize().expect("told once");
}

#[test]
fn buffers_and_batches_of_another_device_are_errors() {
    let (Some(gpu), Some(other)) = (device(), own_device()) else { return };
    let refused = |result: Result<()>, name: &str| match result.expect_err(name) {
        Error::Parameter { argument, .. } => assert_eq!(argument, name),
        error => panic!("{name}: {error}"),
    };
    let rows = [1.0f32, 0.0, 0.0, 1.0];
    let [mine, theirs] = [&gpu, &other].map(|gpu| gpu.upload(&rows).expect("an upload"));
    let [own_ids, other_ids] = [&gpu, &other].map(|gpu| gpu.upload(&[1u32, 0]).expect("an upload"));
    refused(look_up(&gpu, &theirs, &own_ids).map(drop), "tables");
    refused(look_up(&gpu, &mine, &other_ids).map(drop), "ids");
    refused(gpu.download(gpu.view(&theirs)).map(drop), "view");

    let batch = |gpu: &Wgpu| gpu.batch(&one(2), &one(1)).expect("one user");
    let attend =
        |queries: &WgpuBuffer<f32>, keys: &WgpuBuffer<f32>, batch: &WgpuBatch, out: &mut WgpuBuffer<f32>| {
            let queries = gpu.view(queries).slice(0, 2).expect("a part");
            let inputs = TargetAttentionInputs::new(queries, gpu.view(keys));
            let outputs = TargetAttentionOutputs::new(gpu.view_mut(out));
            gpu.target_attention_into(&TargetAttention::new(2), batch, inputs, outputs)
        };
    let [mut own_out, mut other_out] = [&gpu, &other].map(|gpu| gpu.zeros::<f32>(2).expect("a buffer"));
    refused(attend(&theirs, &mine, &batch(&gpu), &mut own_out), "queries");
    refused(attend(&mine, &theirs, &batch(&gpu), &mut own_out), "keys");
    refused(attend(&mine, &mine, &batch(&gpu), &mut other_out), "out");
    let foreign = batch(&other);
    refused(attend(&mine, &mine, &foreign, &mut own_out), "batch");
    // A batch that the other device has used.
    let inputs =
        TargetAttentionInputs::new(other.view(&theirs).slice(0, 2).expect("a part"), other.view(&theirs));
    let _ = other.target_attention(&TargetAttention::new(2), &foreign, inputs).expect("a valid call");
    refused(attend(&mine, &mine, &foreign, &mut own_out), "batch");
    attend(&mine, &mine, &batch(&gpu), &mut own_out).expect("all of one device");
    let op = Sdim::new(2).with_groups(1, 1);
    let signatures = gpu.upload(&[0u8, 1]).expect("an upload");
    let hash = || Hash::Signatures8(gpu.view(&signatures));
    let jagged = |gpu: &Wgpu| gpu.jagged(&one(2)).expect("one user");
    let encode = |rows, histories: &WgpuJagged| {
        gpu.sdim_encode(&op, histories, SdimEncodeInputs::new(gpu.view(rows), hash())).map(drop)
    };
    refused(encode(&theirs, &jagged(&gpu)), "history");
    refused(encode(&mine, &jagged(&other)), "histories");
    let query = SdimQueryInputs::new(gpu.view(&mine), hash());
    refused(gpu.sdim_query::<f32>(&op, &jagged(&other), query).map(drop), "targets");
    let tables = [Table::new(2, 2, TableData::F32(gpu.view(&mine)))];
    let bags = jagged(&other);
    let inputs = LookupInputs::new(gpu.view(&own_ids), &tables);
    refused(gpu.lookup(&Lookup::default(), Bags::Sum(&bags), inputs).map(drop), "bags");
    gpu.synchronize().expect("nothing was recorded that the device refuses");
}

struct CountWakes(AtomicUsize, std::thread::Thread);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.unpark();
    }
}

/// Waits for a future as a runtime does, and returns how often it was woken.
fn block_on<F: Future>(future: F) -> (F::Output, usize) {
    let wakes = Arc::new(CountWakes(AtomicUsize::new(0), std::thread::current()));
    let waker = wakes.clone().into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (result, wakes.0.load(Ordering::Relaxed));
        }
        std::thread::park();
    }
}

/// Attention that takes a software device a while.
fn long_work(gpu: &Wgpu) -> WgpuBuffer<f32> {
    let (width, length) = (64, 1 << 17);
    let rows = gpu.zeros::<f32>(width * length).expect("a buffer");
    let queries = gpu.zeros::<f32>(width * 32).expect("a buffer");
    let batch = gpu.batch(&one(length), &one(32)).expect("one user on both sides");
    let inputs = TargetAttentionInputs::new(gpu.view(&queries), gpu.view(&rows));
    gpu.target_attention(&TargetAttention::new(width), &batch, inputs).expect("a valid call")
}

#[test]
fn a_download_without_blocking_does_not_spin() {
    let Some(gpu) = own_device() else { return };
    let out = long_work(&gpu);
    let (got, wakes) = block_on(gpu.download_async(gpu.view(&out)));
    assert!(got.expect("a download").iter().all(|&x| x == 0.0));
    assert!(wakes <= 2, "woken {wakes} times");
    // Many at once.
    let small: Vec<_> = (0..20).map(|i| gpu.upload(&[i as f32]).expect("an upload")).collect();
    std::thread::scope(|threads| {
        for (i, buffer) in small.iter().enumerate() {
            let gpu = gpu.fork().expect("a fork");
            threads.spawn(move || {
                let (got, _) = block_on(gpu.download_async(gpu.view(buffer)));
                assert_eq!(got.expect("a download"), [i as f32]);
            });
        }
    });
}

#[test]
fn a_download_without_blocking_keeps_its_time_out() {
    let Some(gpu) = own_device() else { return };
    let out = long_work(&gpu);
    let hasty = gpu.clone().with_timeout(Some(Duration::from_millis(1)));
    let error = block_on(hasty.download_async(hasty.view(&out))).0.expect_err("too slow");
    assert!(matches!(error, Error::Timeout { operation: "download", .. }), "{error}");
    // Waiting again, for longer, succeeds.
    assert!(block_on(gpu.download_async(gpu.view(&out))).0.is_ok());
}

#[test]
fn a_destroyed_device_ends_waits_without_blocking() {
    let Some(gpu) = own_device() else { return };
    let buffer = gpu.upload(&[1.0f32]).expect("an upload");
    gpu.wgpu_device().destroy();
    let error = block_on(gpu.download_async(gpu.view(&buffer))).0.unwrap_err();
    assert_eq!(error, Error::DeviceLost { operation: "download" });
}
