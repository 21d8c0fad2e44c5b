//! Work that the device refuses is told to the handles that it belongs to, once each, and to nobody else; and what waits to
//! run does not hold memory without bound.

use longseq::webgpu::WgpuBuffer;
use longseq::*;
use longseq_check::device::webgpu::{device, options};

fn own_device() -> Option<Wgpu> {
    device()?;
    Some(Wgpu::with_options(&options()).expect("a second device of the same adapter"))
}

fn one(rows: usize) -> Jagged {
    Jagged::from_lengths(&[rows]).expect("a small length")
}

/// Records attention of one candidate over two behaviours.
fn attend(gpu: &Wgpu, history: &WgpuBuffer<f32>) -> WgpuBuffer<f32> {
    let batch = gpu.batch(&one(2), &one(1)).expect("one user");
    let queries = gpu.view(history).slice(0, 2).expect("a part");
    let inputs = TargetAttentionInputs::new(queries, gpu.view(history));
    gpu.target_attention(&TargetAttention::new(2), &batch, inputs).expect("a valid call")
}

const HISTORY: [f32; 4] = [9.0, 1.0, 0.0, 1.0];

/// Whether it is the result of [`attend`] over [`HISTORY`].
fn assert_right(got: &[f32]) {
    assert!(got[0] > 8.99 && (got[1] - 1.0).abs() < 1e-6, "{got:?}");
}

fn assert_refused(result: Result<()>) {
    let error = result.expect_err("the handle is told");
    assert!(matches!(error, Error::Device { operation: "target_attention", .. }), "{error}");
}

#[test]
fn a_buffer_destroyed_before_its_submission_harms_its_own_calls_only() {
    let Some(gpu) = own_device() else { return };
    let shared = gpu.upload(&HISTORY).expect("an upload");
    for waits_first in [true, false] {
        let handles: Vec<Wgpu> = (0..8).map(|_| gpu.fork().expect("a fork")).collect();
        let (unlucky, innocent) = handles.split_first().expect("some handles");
        let doomed = unlucky.upload(&HISTORY).expect("an upload");
        let before = attend(&innocent[0], &shared);
        let _ = attend(unlucky, &doomed);
        let after: Vec<_> = innocent.iter().map(|handle| attend(handle, &shared)).collect();
        doomed.buffer().destroy();
        if waits_first {
            assert_refused(unlucky.synchronize());
        } else {
            gpu.flush();
        }
        assert_right(&innocent[0].download(innocent[0].view(&before)).expect("innocent work"));
        for (handle, out) in innocent.iter().zip(&after) {
            assert_right(&handle.download(handle.view(out)).expect("innocent work"));
        }
        if !waits_first {
            assert_refused(unlucky.synchronize());
        }
        unlucky.synchronize().expect("told once");
        assert_right(&unlucky.download(unlucky.view(&attend(unlucky, &shared))).expect("it still works"));
    }
}

#[test]
fn a_submission_that_nobody_asked_for_tells_only_the_handle_at_fault() {
    let Some(gpu) = own_device() else { return };
    let shared = gpu.upload(&HISTORY).expect("an upload");
    let unlucky = gpu.fork().expect("a fork");
    let doomed = unlucky.upload(&HISTORY).expect("an upload");
    let _ = attend(&unlucky, &doomed);
    doomed.buffer().destroy();
    // Far more passes than one submission has.
    let results: Vec<_> = (0..200).map(|_| attend(&gpu, &shared)).collect();
    for out in &results {
        assert_right(&gpu.download(gpu.view(out)).expect("innocent work"));
    }
    assert_refused(unlucky.synchronize());
}

#[test]
fn every_clone_hears_of_lost_work() {
    let Some(gpu) = own_device() else { return };
    let doomed = gpu.upload(&HISTORY).expect("an upload");
    let clone = gpu.clone();
    let out = attend(&gpu, &doomed);
    doomed.buffer().destroy();
    gpu.flush();
    assert_refused(gpu.synchronize());
    assert_refused(clone.download(clone.view(&out)).map(drop));
    for handle in [&gpu, &clone, &gpu.clone()] {
        handle.synchronize().expect("told once");
    }
}

#[test]
fn an_output_destroyed_in_the_meantime_is_an_error() {
    let Some(gpu) = own_device() else { return };
    let history = gpu.upload(&HISTORY).expect("an upload");
    let out = attend(&gpu, &history);
    out.buffer().destroy();
    gpu.flush();
    assert!(matches!(gpu.synchronize(), Err(Error::Device { .. })));
    assert!(matches!(gpu.download(gpu.view(&out)), Err(Error::Device { operation: "download", .. })));
    gpu.synchronize().expect("told once");
}

/// The outputs of one call lie side by side in one buffer, and an input besides them in another case. `Wgpu` asserts that no
/// pass binds bytes for writing twice, which browsers refuse and `wgpu-core` accepts.
#[test]
fn outputs_may_share_a_buffer() {
    let Some(gpu) = device() else { return };
    let arena = gpu.upload(&[0.0f32; 64]).expect("an upload");
    let part = |offset: u64, length| {
        WgpuBuffer::<f32>::from_buffer(arena.buffer().clone(), 4 * offset, length).expect("a part")
    };
    let (mut out, mut lse) = (part(3, 2), part(5, 1));
    let history = gpu.upload(&HISTORY).expect("an upload");
    let batch = gpu.batch(&one(2), &one(1)).expect("one user");
    let op = TargetAttention::new(2);
    let queries = gpu.view(&history).slice(0, 2).expect("a part");
    let inputs = TargetAttentionInputs::new(queries, gpu.view(&history));
    let outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out)).with_lse(gpu.view_mut(&mut lse));
    gpu.target_attention_into(&op, &batch, inputs, outputs).expect("a valid call");
    let got = gpu.download(gpu.view(&arena)).expect("a download");
    assert_right(&got[3..]);
    assert!(got[5] > 50.0 && got[6..].iter().chain(&got[..3]).all(|&x| x == 0.0), "{got:?}");

    let (mut second_out, mut second_lse) = (part(40, 2), part(42, 1));
    let part_of = |out, lse| PartialAttention::new(gpu.view(out), gpu.view(lse));
    let outputs =
        TargetAttentionOutputs::new(gpu.view_mut(&mut second_out)).with_lse(gpu.view_mut(&mut second_lse));
    gpu.merge_attention_into(&op, part_of(&out, &lse), part_of(&out, &lse), outputs).expect("a valid call");
    let got = gpu.download(gpu.view(&arena)).expect("a download");
    assert_right(&got[40..]);
    assert!((got[42] - got[5] - std::f32::consts::LN_2).abs() < 1e-4, "{got:?}");

    let table = gpu.upload(&[1.0f32, 2.0, 3.0, 4.0]).expect("an upload");
    let ids = gpu.upload(&[1u32, 0]).expect("an upload");
    let tables = [Table::new(2, 2, TableData::F32(gpu.view(&table)))];
    let words = |offset: u64, length| {
        WgpuBuffer::<u32>::from_buffer(arena.buffer().clone(), 4 * offset, length).expect("a part")
    };
    let (mut positions, mut scores, mut counts) = (words(10, 1), part(11, 1), words(12, 1));
    let found =
        SelectionMut::new(gpu.view_mut(&mut positions), gpu.view_mut(&mut scores), gpu.view_mut(&mut counts));
    let target = gpu.view(&ids).slice(0, 1).expect("a part");
    let inputs = SearchInputs::new(&tables, gpu.view(&ids), target);
    let op = Decoupled::new([1.0]).with_top_k(Some(1));
    gpu.decoupled_search_into(&op, &batch, inputs, found).expect("a valid call");
    let got = gpu.download(gpu.view(&words(10, 3))).expect("a download");
    assert_eq!(got, [0, 25.0f32.to_bits(), 1]);
}

/// The bytes of this process that are in memory.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_bounded_without_waits() {
    if device().is_none_or(|gpu| !gpu.is_software()) {
        return eprintln!("skipped: only a software device takes its memory from this process");
    }
    crate::alone::run("webgpu::submissions::uploads_and_looks_up_without_waits", "true");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "run by memory_is_bounded_without_waits, in a process of its own"]
fn uploads_and_looks_up_without_waits() {
    let gpu = Wgpu::with_options(&options()).expect("a device");
    let start = resident();
    let data = vec![1.0f32; 4 << 20];
    for _ in 0..100 {
        drop(gpu.upload(&data).expect("an upload of 16 MiB"));
        assert!(resident() - start < 800 << 20, "{} MiB are held", (resident() - start) >> 20);
    }
    gpu.synchronize().expect("uploads");
    drop(data);

    let table = gpu.upload(&[1.0f32, 2.0]).expect("an upload");
    let ids = gpu.upload(&[1u32, 0]).expect("an upload");
    let mut out = gpu.zeros::<f32>(2).expect("a buffer");
    let mut look_up = |ids: &WgpuBuffer<u32>| {
        let tables = [Table::new(2, 1, TableData::F32(gpu.view(&table)))];
        let inputs = LookupInputs::new(gpu.view(ids), &tables);
        let outputs = LookupOutputs::new(gpu.view_mut(&mut out));
        gpu.lookup_into(&Lookup::default(), Bags::Each, inputs, outputs).expect("a valid call");
    };
    // Bad ids early on are not forgotten.
    look_up(&ids);
    look_up(&gpu.upload(&[0u32, 7]).expect("an upload"));
    (0..2000).for_each(|_| look_up(&ids));
    let warm = resident();
    (0..6000).for_each(|_| look_up(&ids));
    let grown = resident().saturating_sub(warm);
    let expected =
        Error::IndexOutOfRange { operation: "lookup", argument: "ids", position: 1, id: 7, bound: 2 };
    assert_eq!(gpu.synchronize(), Err(expected));
    gpu.synchronize().expect("told once");
    assert!(grown < 6 << 20, "{grown} bytes more after 6000 look-ups");
}
