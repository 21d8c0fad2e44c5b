//! What a refused call should have written is read by nobody unawares: whoever reads it gets an error, until it is written again.

use longseq::webgpu::{WgpuBuffer, WgpuMemory};
use longseq::*;
use longseq_check::device::webgpu::{device, options};

const HISTORY: [f32; 4] = [9.0, 1.0, 0.0, 1.0];

fn own_device() -> Option<Wgpu> {
    device()?;
    Some(Wgpu::with_options(&options()).expect("a second device of the same adapter"))
}

fn one(rows: usize) -> Jagged {
    Jagged::from_lengths(&[rows]).expect("a small length")
}

/// Records attention of one candidate over two behaviours.
fn attend(gpu: &Wgpu, history: &WgpuBuffer<f32>, out: ViewMut<'_, WgpuMemory, f32>) {
    let batch = gpu.batch(&one(2), &one(1)).expect("one user");
    let queries = gpu.view(history).slice(0, 2).expect("a part");
    let inputs = TargetAttentionInputs::new(queries, gpu.view(history));
    let outputs = TargetAttentionOutputs::new(out);
    gpu.target_attention_into(&TargetAttention::new(2), &batch, inputs, outputs).expect("a valid call");
}

/// A handle records attention over memory that is destroyed before the device sees it; then the device refuses the call.
fn attend_in_vain(gpu: &Wgpu, out: ViewMut<'_, WgpuMemory, f32>) -> Wgpu {
    let unlucky = gpu.fork().expect("a fork");
    let doomed = unlucky.upload(&HISTORY).expect("an upload");
    attend(&unlucky, &doomed, out);
    doomed.buffer().destroy();
    unlucky
}

fn assert_refused<T>(result: Result<T>, expected: &str) {
    let Err(error) = result else { panic!("no error, where one of {expected} was expected") };
    let Error::Device { operation, ref message } = error else { panic!("{error}") };
    assert_eq!(operation, expected, "{message}");
}

/// Writes a buffer of two numbers.
type Way<'a> = &'a dyn Fn(&mut WgpuBuffer<f32>);

/// Whether it is the result of [`attend`] over [`HISTORY`].
fn is_right(got: &[f32]) -> bool {
    got[0] > 8.99 && (got[1] - 1.0).abs() < 1e-6
}

#[test]
fn every_handle_that_reads_it_hears_of_it() {
    let Some(gpu) = own_device() else { return };
    for flushes in [false, true] {
        let mut arena = gpu.upload(&[7.0f32; 4]).expect("an upload");
        let out = gpu.view_mut(&mut arena).slice(0, 2).expect("a part");
        let unlucky = attend_in_vain(&gpu, out);
        let out = gpu.view(&arena).slice(0, 2).expect("a part");
        if flushes {
            gpu.flush();
        }
        let [reader, second, third] = [(); 3].map(|()| gpu.fork().expect("a fork"));
        // Also through what was computed from it.
        let mut derived = gpu.zeros(2).expect("a buffer");
        attend(&second, &arena, gpu.view_mut(&mut derived));
        assert_refused(reader.download(out), "download");
        assert_refused(third.download(gpu.view(&derived)), "download");
        assert_refused(second.synchronize(), "target_attention");
        assert_refused(unlucky.synchronize(), "target_attention");
        // The same again, for those who did not listen.
        assert_refused(reader.download(out), "download");
        for handle in [&unlucky, &reader, &second, &third] {
            handle.synchronize().expect("told once");
        }
        // What lies next to it in the buffer was not to be written.
        let rest = gpu.view(&arena).slice(2, 2).expect("a part");
        assert_eq!(reader.download(rest), Ok(vec![7.0; 2]));
    }
}

#[test]
fn it_is_sound_once_it_is_written_again() {
    let Some(gpu) = own_device() else { return };
    let history = gpu.upload(&HISTORY).expect("an upload");
    let mut out = gpu.zeros(2).expect("a buffer");
    let ways: [Way<'_>; 3] = [
        &|out| attend(&gpu, &history, gpu.view_mut(out)),
        &|out| gpu.upload_into(gpu.view_mut(out), &[9.0, 1.0]).expect("an upload"),
        &|out| {
            let from = gpu.view(&history).slice(0, 2).expect("a part");
            gpu.copy(from, gpu.view_mut(out)).expect("a copy");
        },
    ];
    for write in ways {
        let unlucky = attend_in_vain(&gpu, gpu.view_mut(&mut out));
        assert_refused(unlucky.synchronize(), "target_attention");
        // Half of it is not enough.
        let half = gpu.view_mut(&mut out).slice(0, 1).expect("a part");
        gpu.upload_into(half, &[9.0]).expect("an upload");
        let first = gpu.view(&out).slice(0, 1).expect("a part");
        assert_eq!(gpu.download(first), Ok(vec![9.0]));
        assert_refused(gpu.download(gpu.view(&out)), "download");
        write(&mut out);
        assert!(is_right(&gpu.download(gpu.view(&out)).expect("it was written")));
    }
}

/// What an operation changes in place is as suspect after it as before.
#[test]
fn a_change_in_place_does_not_mend_it() {
    let Some(gpu) = own_device() else { return };
    let op = Sdim::new(2).with_groups(1, 1).with_normalise(false);
    let rows = gpu.upload(&HISTORY).expect("an upload");
    let signatures = gpu.upload(&[0u8, 1]).expect("an upload");
    let mut table = gpu.zeros::<f32>(4).expect("a buffer");
    let histories = gpu.jagged(&one(2)).expect("one user");
    let inputs =
        |rows| SdimEncodeInputs::<_, f32>::new(gpu.view(rows), Hash::Signatures8(gpu.view(&signatures)));
    let unlucky = gpu.fork().expect("a fork");
    let doomed = unlucky.upload(&HISTORY).expect("an upload");
    unlucky.sdim_append(&op, &histories, inputs(&doomed), gpu.view_mut(&mut table)).expect("a valid call");
    doomed.buffer().destroy();
    assert_refused(unlucky.synchronize(), "sdim_append");

    gpu.sdim_append(&op, &histories, inputs(&rows), gpu.view_mut(&mut table)).expect("a valid call");
    assert_refused(gpu.synchronize(), "sdim_append");
    assert_refused(gpu.download(gpu.view(&table)), "download");
    gpu.sdim_encode_into(&op, &histories, inputs(&rows), gpu.view_mut(&mut table)).expect("a valid call");
    gpu.sdim_append(&op, &histories, inputs(&rows), gpu.view_mut(&mut table)).expect("a valid call");
    assert_eq!(gpu.download(gpu.view(&table)), Ok(HISTORY.map(|x| 2.0 * x).to_vec()));
}

/// As for tables: a step of an optimiser does not make a table's rows right that another step should have changed.
#[test]
fn neither_does_a_step_of_an_optimiser() {
    let Some(gpu) = own_device() else { return };
    let (ids, count) = (gpu.upload(&[0u32]).expect("an upload"), gpu.upload(&[1u32]).expect("an upload"));
    let rows = gpu.upload(&[1.0f32, 1.0]).expect("an upload");
    let mut data = gpu.upload(&[5.0f32, 6.0]).expect("an upload");
    let step = |handle: &Wgpu, rows: &WgpuBuffer<f32>, data: &mut WgpuBuffer<f32>| {
        let table = TableMut::new(1, 2, gpu.view_mut(data));
        let gradient = SparseGradient::new(gpu.view(&ids), gpu.view(rows), gpu.view(&count));
        handle.update_rows(&Optimiser::sgd(1.0), table, OptimiserState::Empty, gradient)
    };
    let unlucky = gpu.fork().expect("a fork");
    let doomed = unlucky.upload(&[1.0f32, 1.0]).expect("an upload");
    step(&unlucky, &doomed, &mut data).expect("a valid call");
    doomed.buffer().destroy();
    assert_refused(unlucky.synchronize(), "update_rows");
    step(&gpu, &rows, &mut data).expect("a valid call");
    assert_refused(gpu.synchronize(), "update_rows");
    gpu.upload_into(gpu.view_mut(&mut data), &[5.0, 6.0]).expect("an upload");
    step(&gpu, &rows, &mut data).expect("a valid call");
    assert_eq!(gpu.download(gpu.view(&data)), Ok(vec![4.0, 5.0]));
}

/// Many refused calls do not slow down, or sink, those that have nothing to do with them.
#[test]
fn it_harms_nobody_else() {
    let Some(gpu) = own_device() else { return };
    let history = gpu.upload(&HISTORY).expect("an upload");
    let lost: Vec<WgpuBuffer<f32>> = (0..50)
        .map(|_| {
            let mut out = gpu.zeros(2).expect("a buffer");
            assert_refused(attend_in_vain(&gpu, gpu.view_mut(&mut out)).synchronize(), "target_attention");
            let mut right = gpu.zeros(2).expect("a buffer");
            attend(&gpu, &history, gpu.view_mut(&mut right));
            assert!(is_right(&gpu.download(gpu.view(&right)).expect("innocent work")));
            out
        })
        .collect();
    for out in &lost {
        assert_refused(gpu.download(gpu.view(out)), "download");
    }
}

/// Of the tables of many users only those that a refused call should have changed are suspect.
#[test]
fn tables_in_other_slots_stay_sound() {
    let Some(gpu) = own_device() else { return };
    let op = Sdim::new(2).with_groups(1, 1).with_normalise(false);
    let rows = gpu.upload(&HISTORY).expect("an upload");
    let signatures = gpu.upload(&[0u8, 1]).expect("an upload");
    let mut tables = gpu.zeros::<f32>(3 * 4).expect("a buffer");
    let jagged = |slot: u32| gpu.jagged(&one(2).with_slots(&[slot], 3).expect("a slot")).expect("one user");
    let inputs =
        |rows| SdimEncodeInputs::<_, f32>::new(gpu.view(rows), Hash::Signatures8(gpu.view(&signatures)));
    let unlucky = gpu.fork().expect("a fork");
    let doomed = unlucky.upload(&HISTORY).expect("an upload");
    unlucky.sdim_append(&op, &jagged(1), inputs(&doomed), gpu.view_mut(&mut tables)).expect("a valid call");
    doomed.buffer().destroy();
    assert_refused(unlucky.synchronize(), "sdim_append");
    for slot in [0, 2] {
        gpu.sdim_append(&op, &jagged(slot), inputs(&rows), gpu.view_mut(&mut tables)).expect("a valid call");
        let table = gpu.view(&tables).slice(4 * slot as usize, 4).expect("a table");
        assert_eq!(gpu.download(table), Ok(HISTORY.to_vec()));
    }
    assert_refused(gpu.download(gpu.view(&tables)), "download");
    gpu.sdim_encode_into(&op, &jagged(1), inputs(&rows), gpu.view_mut(&mut tables)).expect("a valid call");
    assert_eq!(gpu.download(gpu.view(&tables)), Ok(HISTORY.repeat(3)));
}

/// A number that shares a word with suspect ones is sound.
#[test]
fn it_ends_within_a_word() {
    let Some(gpu) = own_device() else { return };
    let mut signatures = gpu.upload(&[7u8; 8]).expect("an upload");
    let unlucky = gpu.fork().expect("a fork");
    let doomed = unlucky.upload(&[1u8, 2, 3]).expect("an upload");
    let to = gpu.view_mut(&mut signatures).slice(2, 3).expect("a part");
    unlucky.copy(unlucky.view(&doomed), to).expect("a copy");
    doomed.buffer().destroy();
    assert_refused(unlucky.synchronize(), "copy");
    for (start, length) in [(0, 2), (5, 3)] {
        let part = gpu.view(&signatures).slice(start, length).expect("a part");
        assert_eq!(gpu.download(part), Ok(vec![7; length]));
    }
    let part = gpu.view(&signatures).slice(1, 2).expect("a part");
    assert_refused(gpu.download(part), "download");
}

/// Whoever made a buffer may write it unseen.
#[test]
fn memory_of_the_caller_is_never_suspect() {
    let Some(gpu) = own_device() else { return };
    let history = gpu.upload(&HISTORY).expect("an upload");
    let arena = gpu.zeros::<f32>(2).expect("a buffer");
    let mut out = WgpuBuffer::<f32>::from_buffer(arena.buffer().clone(), 0, 2).expect("a part");
    assert_refused(attend_in_vain(&gpu, gpu.view_mut(&mut out)).synchronize(), "target_attention");
    gpu.wgpu_queue().write_buffer(arena.buffer(), 0, bytemuck::cast_slice(&[3.0f32, 4.0]));
    assert_eq!(gpu.download(gpu.view(&out)), Ok(vec![3.0, 4.0]));
    attend(&gpu, &history, gpu.view_mut(&mut out));
    assert!(is_right(&gpu.download(gpu.view(&out)).expect("it was written")));
}

/// A thread that downloads what is sound does not hear of the refused download of another one, with the same handle, in its stead.
#[test]
fn each_download_hears_of_its_own_refusal() {
    let Some(gpu) = own_device() else { return };
    let sound = gpu.upload(&HISTORY).expect("an upload");
    let mut out = gpu.zeros(2).expect("a buffer");
    assert_refused(attend_in_vain(&gpu, gpu.view_mut(&mut out)).synchronize(), "target_attention");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..200).for_each(|_| assert_refused(gpu.download(gpu.view(&out)), "download"));
        });
        scope.spawn(|| {
            (0..200).for_each(|_| assert_eq!(gpu.download(gpu.view(&sound)), Ok(HISTORY.to_vec())));
        });
    });
}
