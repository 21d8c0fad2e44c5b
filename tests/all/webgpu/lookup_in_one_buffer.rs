//! Gradients of look-ups whose inputs and outputs lie side by side in one buffer. `Wgpu` asserts that no pass binds bytes for
//! writing twice, or a buffer for reading and writing, which browsers refuse and `wgpu-core` accepts.

use longseq::half::bf16;
use longseq::webgpu::WgpuBuffer;
use longseq::*;
use longseq_check::device::webgpu::device;

/// The words of the buffer that are read; all others are this.
const UNTOUCHED: u32 = 0x4048_f5c3;

/// A buffer of which parts are views.
struct Arena {
    gpu: Wgpu,
    all: WgpuBuffer<u32>,
}

impl Arena {
    fn new(gpu: Wgpu, words: &[(usize, Vec<u32>)]) -> Self {
        let mut data = vec![UNTOUCHED; 512];
        for (start, words) in words {
            data[*start..start + words.len()].copy_from_slice(words);
        }
        let all = gpu.upload(&data).expect("an upload");
        Self { gpu, all }
    }

    /// `length` elements from a byte on.
    fn part<T: Scalar>(&self, byte: usize, length: usize) -> WgpuBuffer<T> {
        WgpuBuffer::from_buffer(self.all.buffer().clone(), byte as u64, length).expect("a part")
    }

    /// The words, of which those in `changed` may differ from what was uploaded.
    fn words(&self) -> Vec<u32> {
        self.gpu.download(self.gpu.view(&self.all)).expect("a download")
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_table_its_state_and_its_gradient_may_share_a_buffer() {
    let Some(gpu) = device() else { return };
    let numbers = |count: usize, factor: f32| (1..=count).map(|i| i as f32 * factor).collect::<Vec<f32>>();
    let (table, sums, rows) = (numbers(15, 0.5), numbers(15, 0.25), numbers(6, -1.0));
    let given = [(1, bits(&table)), (17, bits(&sums)), (40, vec![1, 2]), (43, bits(&rows)), (50, vec![2])];
    let arena = Arena::new(gpu, &given);
    let gpu = &arena.gpu;
    let (mut device_table, mut device_sums) = (arena.part::<f32>(4, 15), arena.part::<f32>(4 * 17, 15));
    let (ids, device_rows, count) =
        (arena.part::<u32>(4 * 40, 2), arena.part::<f32>(4 * 43, 6), arena.part::<u32>(4 * 50, 1));
    let gradient = SparseGradient::new(gpu.view(&ids), gpu.view(&device_rows), gpu.view(&count));
    let op = Optimiser::adagrad(0.5);
    let state = OptimiserState::Sums(gpu.view_mut(&mut device_sums));
    gpu.update_rows(&op, TableMut::new(5, 3, gpu.view_mut(&mut device_table)), state, gradient)
        .expect("a valid call");
    let got = arena.words();
    let (mut table, mut sums) = (table, sums);
    let gradient = SparseGradient::new(Host::view(&[1, 2]), Host::view(&rows), Host::view(&[2]));
    let state = OptimiserState::Sums(Host::view_mut(&mut sums));
    Cpu::new()
        .update_rows(&op, TableMut::new(5, 3, Host::view_mut(&mut table)), state, gradient)
        .expect("a valid call");
    for (start, expected) in [(1, &table), (17, &sums)] {
        for (word, &expected) in got[start..start + 15].iter().zip(expected) {
            let got = f32::from_bits(*word);
            assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{got} for {expected}");
        }
    }
    let untouched =
        (0..512).filter(|i| ![1..16, 17..32, 40..42, 43..49, 50..51].iter().any(|r| r.contains(i)));
    assert!(untouched.into_iter().all(|i| got[i] == UNTOUCHED));
}

/// A table of 16-bit numbers that begins and ends in the middle of a word.
#[test]
fn neighbours_of_a_table_keep_their_halves() {
    let Some(gpu) = device() else { return };
    let arena = Arena::new(gpu, &[(40, vec![0, 2]), (43, bits(&[1.0; 6])), (50, vec![2])]);
    let gpu = &arena.gpu;
    let before = gpu.download(gpu.view(&arena.part::<bf16>(0, 20))).expect("a download");
    let mut table = arena.part::<bf16>(2 * 3, 9);
    let (ids, rows, count) =
        (arena.part::<u32>(4 * 40, 2), arena.part::<f32>(4 * 43, 6), arena.part::<u32>(4 * 50, 1));
    let gradient = SparseGradient::new(gpu.view(&ids), gpu.view(&rows), gpu.view(&count));
    let changed = TableMut::new(3, 3, gpu.view_mut(&mut table));
    gpu.update_rows(&Optimiser::sgd(1.0), changed, OptimiserState::Empty, gradient).expect("a valid call");
    let after = gpu.download(gpu.view(&arena.part::<bf16>(0, 20))).expect("a download");
    for (i, (before, after)) in before.iter().zip(after).enumerate() {
        let is_met = (3..6).contains(&i) || (9..12).contains(&i);
        let expected = if is_met { bf16::from_f32(before.to_f32() - 1.0) } else { *before };
        assert_eq!(after.to_bits(), expected.to_bits(), "number {i}");
    }
}

#[test]
fn sorted_ids_and_gradients_may_share_a_buffer_with_what_they_come_from() {
    let Some(gpu) = device() else { return };
    let grad: Vec<f32> = (1..=12).map(|i| i as f32).collect();
    let arena = Arena::new(gpu, &[(3, vec![4, 0, 4, 9, 0, 4]), (10, bits(&grad))]);
    let gpu = &arena.gpu;
    let (ids, grad) = (arena.part::<u32>(12, 6), arena.part::<f32>(40, 12));
    // Room for one more than there is.
    let [mut sorted_ids, mut starts, mut positions, mut count] =
        [(30, 6), (37, 7), (45, 7), (53, 1)].map(|(start, length)| arena.part::<u32>(4 * start, length));
    let column = || IdColumn::new(gpu.view(&ids), 1, 0, 5).with_policy(IdPolicy::Zero);
    let out = SortedIdsMut::new(
        gpu.view_mut(&mut sorted_ids),
        gpu.view_mut(&mut starts),
        gpu.view_mut(&mut positions),
        gpu.view_mut(&mut count),
    );
    gpu.sort_ids_into(column(), out).expect("a valid call");
    let got = arena.words();
    assert_eq!(
        (&got[30..32], &got[37..40], &got[45..50], got[53]),
        (&[0, 4][..], &[0, 2, 5][..], &[1, 4, 0, 2, 5][..], 2)
    );
    let rest = [32..37, 40..45, 50..53, 54..512];
    assert!(rest.into_iter().flatten().all(|i| got[i] == UNTOUCHED));

    let table = gpu.zeros::<f32>(10).expect("memory");
    let tables = [Table::new(5, 2, TableData::F32(gpu.view(&table)))];
    let sorted =
        [SortedIds::new(gpu.view(&sorted_ids), gpu.view(&starts), gpu.view(&positions), gpu.view(&count))];
    for sorted in [&sorted[..], &[]] {
        let (mut out_ids, mut rows, mut out_count) =
            (arena.part::<u32>(4 * 60, 6), arena.part::<f32>(4 * 67, 12), arena.part::<u32>(4 * 80, 1));
        let out = SparseGradientMut::new(
            gpu.view_mut(&mut out_ids),
            gpu.view_mut(&mut rows),
            gpu.view_mut(&mut out_count),
        );
        let grads = LookupGradients::new().with_tables([Some(out.into())]);
        let op = Lookup::default().with_ids(IdPolicy::Zero);
        let inputs = LookupInputs::new(gpu.view(&ids), &tables);
        let saved = LookupSaved::new().with_sorted(sorted);
        let grad_out = LookupGradOut::new(gpu.view(&grad));
        gpu.lookup_backward_into(&op, Bags::Each, inputs, saved, grad_out, grads).expect("a valid call");
        let got = arena.words();
        assert_eq!((&got[60..62], got[80]), (&[0, 4][..], 2));
        assert_eq!(got[67..71], bits(&[3.0 + 9.0, 4.0 + 10.0, 1.0 + 5.0 + 11.0, 2.0 + 6.0 + 12.0]));
        assert!([54..60, 62..67, 71..80, 81..512].into_iter().flatten().all(|i| got[i] == UNTOUCHED));
    }
}
