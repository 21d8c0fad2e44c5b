//! Numbers at the edges of `f32` on the emulated CUDA device, with results known by hand: finite masks, scores
//! and values near the largest number, NaN, and parts without behaviours.

use longseq::half::bf16;
use longseq::*;
use longseq_check::device::cuda::session;

type Memory = <Cuda as DeviceOps>::Memory;

fn one_user(gpu: &Cuda, behaviours: usize, candidates: usize) -> <Cuda as DeviceOps>::Batch {
    let single = |rows| Jagged::from_lengths(&[rows]).expect("a length");
    gpu.batch(&single(behaviours), &single(candidates)).expect("a batch")
}

/// Runs a test on a device of its own; no findings are left.
fn on_device(test: impl FnOnce(&Cuda)) {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    test(&gpu);
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

#[track_caller]
fn assert_near(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (&got, &expected) in got.iter().zip(expected) {
        let near = (f64::from(got) - f64::from(expected)).abs() <= 4e-6 * f64::from(expected).abs();
        assert!(
            got == expected || near || (got.is_nan() && expected.is_nan()),
            "{what}: {got:e}, not {expected:e}"
        );
    }
}

/// Target attention with one-column keys and values of a user, for some candidates: out and lse.
struct Attention<'a, T> {
    op: TargetAttention,
    queries: &'a [f32],
    keys: &'a [f32],
    values: Vec<T>,
    bias: Option<Vec<f32>>,
}

impl<T: Element> Attention<'_, T> {
    /// Rows of `width` numbers, of which the last are 0.
    fn padded(rows: &[f32], width: usize) -> Vec<T> {
        let row = |&x: &f32| (0..width).map(move |i| T::from_f32(if i == 0 { x } else { 0.0 }));
        rows.iter().flat_map(row).collect()
    }

    fn run(&self, gpu: &Cuda) -> (Vec<f32>, Vec<f32>) {
        let (width, behaviours) = (self.op.width, self.keys.len());
        let queries = gpu.upload(&Self::padded(self.queries, width)).expect("memory");
        let keys = gpu.upload(&Self::padded(self.keys, width)).expect("memory");
        let values: Vec<T> =
            self.values.iter().flat_map(|&value| std::iter::repeat_n(value, width)).collect();
        let values = gpu.upload(&values).expect("memory");
        let bias = self.bias.as_ref().map(|bias| gpu.upload(bias).expect("memory"));
        let mut inputs =
            TargetAttentionInputs::new(gpu.view(&queries), gpu.view(&keys)).with_values(gpu.view(&values));
        if let Some(bias) = &bias {
            inputs = inputs.with_bias(gpu.view(bias));
        }
        let mut out = gpu.zeros::<T>(self.queries.len() * width).expect("memory");
        let mut lse = gpu.zeros::<f32>(self.queries.len()).expect("memory");
        let softmax = self.op.weighting == Weighting::Softmax;
        let mut outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out));
        if softmax {
            outputs = outputs.with_lse(gpu.view_mut(&mut lse));
        }
        let batch = one_user(gpu, behaviours, self.queries.len());
        gpu.target_attention_into(&self.op, &batch, inputs, outputs).expect("a call");
        let out = gpu.download(gpu.view(&out)).expect("a download");
        (
            out.chunks(width).map(|row| row[width - 1].to_f32()).collect(),
            gpu.download(gpu.view(&lse)).expect("a download"),
        )
    }
}

/// A case of softmax attention: query, keys, scale, biases, values, the right result and log-sum-exp.
type Case = (&'static str, f32, Vec<f32>, f32, Option<Vec<f32>>, Vec<f32>, f32, f32);

fn softmax_cases() -> Vec<Case> {
    const MIN: f32 = f32::MIN;
    const MAX: f32 = f32::MAX;
    const GONE: f32 = f32::NEG_INFINITY;
    const NAN: f32 = f32::NAN;
    let inf = f32::INFINITY;
    vec![
        ("masked alike", 0.0, vec![0.0; 2], 1.0, Some(vec![MIN; 2]), vec![1.0, 3.0], 2.0, MIN),
        ("masked but one", 0.0, vec![0.0; 2], 1.0, Some(vec![MIN, 0.0]), vec![1.0, 3.0], 3.0, 0.0),
        ("one masked, one removed", 0.0, vec![0.0; 2], 1.0, Some(vec![MIN, GONE]), vec![1.0, NAN], 1.0, MIN),
        ("removed", 0.0, vec![0.0; 2], 1.0, Some(vec![GONE; 2]), vec![NAN, inf], 0.0, GONE),
        ("large biases", 0.0, vec![0.0; 2], 1.0, Some(vec![MAX; 2]), vec![1.0, 3.0], 2.0, MAX),
        ("a large bias", 0.0, vec![0.0; 2], 1.0, Some(vec![MAX, 0.0]), vec![1.0, 3.0], 1.0, MAX),
        ("large scores", 1.0, vec![3e38; 2], 1.0, None, vec![1.0, 3.0], 2.0, 3e38),
        ("large negative scores", 1.0, vec![-3e38; 2], 1.0, None, vec![1.0, 3.0], 2.0, -3e38),
        ("large scale", 1.0, vec![1e-38; 2], 3e38, None, vec![1.0, 3.0], 2.0, 3.0 + 2f32.ln()),
        ("they cancel", 1.0, vec![-3e38, -2.0], 1.0, Some(vec![3e38, 2.0]), vec![1.0, 3.0], 2.0, 2f32.ln()),
        ("equal and huge", 1.0, vec![1e16; 2], 1.0, None, vec![1.0, 3.0], 2.0, 1e16),
        ("large values", 0.0, vec![0.0; 3], 1.0, None, vec![MAX; 3], MAX, 3f32.ln()),
        ("large values of both signs", 0.0, vec![0.0; 2], 1.0, None, vec![MAX, -MAX], 0.0, 2f32.ln()),
        ("NaN without weight", 0.0, vec![0.0; 2], 1.0, Some(vec![-1000.0, 0.0]), vec![NAN, 3.0], NAN, 0.0),
        ("NaN in a mask", 0.0, vec![0.0; 2], 1.0, Some(vec![NAN, 0.0]), vec![1.0, 3.0], NAN, NAN),
        ("NaN in a removed key", 1.0, vec![NAN, 0.0], 1.0, Some(vec![GONE, 0.0]), vec![1.0, 3.0], NAN, NAN),
        ("infinite score", 0.0, vec![0.0; 2], 1.0, Some(vec![inf, 0.0]), vec![1.0, 3.0], NAN, NAN),
    ]
}

/// Repeats a case's behaviours until there are `length`; the log-sum-exp grows by the logarithm of the repeats.
fn softmax<T: Element>(gpu: &Cuda, width: usize, candidates: usize, repeats: usize) {
    for (name, query, keys, scale, bias, values, out, lse) in softmax_cases() {
        // In 16 bits the largest number is another one, and 1e-38 is none.
        let values: Vec<T> = values.iter().map(|&value| T::from_f32(value)).collect();
        if T::DTYPE != DType::F32 && name.contains("cancel") {
            continue;
        }
        let narrow = T::DTYPE == DType::F16
            && (name.contains("large") || name.contains("cancel") || name.contains("huge"));
        if narrow || (T::DTYPE == DType::Bf16 && name.starts_with("large values")) {
            continue;
        }
        let repeat = |numbers: &[f32]| numbers.repeat(repeats);
        let attention = Attention {
            op: TargetAttention::new(width).with_scale(scale),
            queries: &vec![query; candidates],
            keys: &repeat(&keys),
            values: values.repeat(repeats),
            bias: bias.map(|bias| repeat(&bias)),
        };
        let (got, got_lse) = attention.run(gpu);
        let what =
            format!("{name}: {:?}, width {width}, {candidates} candidates, {repeats} repeats", T::DTYPE);
        let bf16_of = |x: f32| if T::DTYPE == DType::F32 { x } else { T::from_f32(x).to_f32() };
        if name != "large values of both signs" {
            assert_near(&got, &vec![bf16_of(out); candidates], &what);
        } else {
            assert!(got.iter().all(|x| x.abs() < 1e33), "{what}: {got:?}");
        }
        let expected =
            (f64::from(lse) + (repeats as f64).ln()).clamp(f64::from(f32::MIN), f64::from(f32::MAX));
        let expected = if lse.is_finite() { expected as f32 } else { lse };
        // Large scores are rounded to 16 bits.
        if T::DTYPE == DType::F32 || (lse.abs() < 1e9 && scale == 1.0) {
            let near =
                |&got: &f32| (got - expected).abs() <= 2e-6 * expected.abs().max(1.0) || got == expected;
            let right = got_lse.iter().all(|got| near(got) || (got.is_nan() && expected.is_nan()));
            assert!(right, "{what}: lse {got_lse:?}, not {expected:e}");
        }
    }
}

#[test]
fn softmax_holds_to_the_edges_of_f32() {
    on_device(|gpu| {
        // A whole history, and one that is split; few rows and many; every way to compute.
        for repeats in [1, 20, 700] {
            for candidates in [1, 3, 9] {
                softmax::<f32>(gpu, 4, candidates, repeats);
                softmax::<f32>(gpu, 3, candidates, repeats);
                softmax::<bf16>(gpu, 8, candidates, repeats);
                softmax::<half::f16>(gpu, 8, candidates, repeats);
            }
        }
    });
}

/// Only the last part of a split history has scores that count: parts of masked behaviours are computed again, and do not.
#[test]
fn masked_parts_of_a_split_history_count_for_nothing() {
    on_device(|gpu| {
        for mask in [f32::MIN, f32::NEG_INFINITY, -2.5e38, -2e38] {
            for (held, expected) in [(7.0, 3.0), (f32::MAX, 3.0)] {
                let length = 3000;
                let mut bias = vec![mask; length];
                let mut values = vec![held; length];
                bias[length - 1] = 0.0;
                values[length - 1] = 3.0;
                let op = TargetAttention::new(4).with_scale(1.0);
                let attention =
                    Attention { op, queries: &[0.0; 6], keys: &vec![0.0; length], values, bias: Some(bias) };
                let (out, lse) = attention.run(gpu);
                assert_near(&out, &[expected; 6], &format!("{mask:e}, {held:e}"));
                assert_near(&lse, &[0.0; 6], &format!("{mask:e}, {held:e}"));
            }
        }
    });
}

#[test]
fn silu_and_relu_of_the_most_negative_score_are_zero() {
    on_device(|gpu| {
        for (weighting, held, bias, expected) in [
            (Weighting::silu(1.0), 10.0, f32::MIN, 2.0),
            (Weighting::silu(1.0), f32::NAN, f32::NEG_INFINITY, 2.0),
            (Weighting::silu(1.0), f32::NAN, f32::MIN, f32::NAN),
            (Weighting::Relu, 10.0, f32::MIN, 2.0),
            (Weighting::Relu, f32::NAN, f32::NEG_INFINITY, 2.0),
            (Weighting::Relu, f32::NAN, -1.0, f32::NAN),
            (Weighting::Identity, 10.0, f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            for candidates in [1, 9] {
                let silu = matches!(weighting, Weighting::Silu { .. });
                // The second behaviour has the weight 1.
                let one = if silu { 1.278_464_5 } else { 1.0 };
                let op = TargetAttention::new(4).with_scale(1.0).with_weighting(weighting);
                let attention = Attention {
                    op,
                    queries: &vec![0.0; candidates],
                    keys: &[0.0; 2],
                    values: vec![held, 2.0],
                    bias: Some(vec![bias, one]),
                };
                assert_near(
                    &attention.run(gpu).0,
                    &vec![expected; candidates],
                    &format!("{weighting:?} {bias:e}"),
                );
            }
        }
    });
}

#[test]
fn merging_holds_to_the_edges_of_f32() {
    const GONE: f32 = f32::NEG_INFINITY;
    const MAX: f32 = f32::MAX;
    on_device(|gpu| {
        let nan = f32::NAN;
        let op = TargetAttention::new(2);
        for (a, lse_a, b, lse_b, out, lse) in [
            (MAX, 0.0, MAX, 0.0, MAX, 2f32.ln()),
            (MAX, 0.3, MAX, 0.0, MAX, 0.3 + 1f32.exp().powf(-0.3).ln_1p()),
            (MAX, MAX, 3.0, f32::MIN, MAX, MAX),
            (1.0, f32::MIN, 3.0, f32::MIN, 2.0, f32::MIN),
            (1.0, 1e16, 3.0, 1e16, 2.0, 1e16),
            (nan, GONE, 3.0, 1.0, 3.0, 1.0),
            (nan, GONE, nan, GONE, 0.0, GONE),
            (nan, -1000.0, 3.0, 0.0, nan, 0.0),
            (1.0, nan, 3.0, 0.0, nan, nan),
            (1.0, nan, 3.0, GONE, nan, nan),
            (1.0, f32::INFINITY, 3.0, 0.0, nan, nan),
            (1.0, f32::INFINITY, 3.0, GONE, nan, nan),
        ] {
            for swapped in [false, true] {
                let buffers = [[a; 2], [b; 2]].map(|row| gpu.upload(&row).expect("memory"));
                let lses = [lse_a, lse_b].map(|lse| gpu.upload(&[lse]).expect("memory"));
                let part = |i: usize| PartialAttention::new(gpu.view(&buffers[i]), gpu.view(&lses[i]));
                let (mut merged, mut merged_lse) =
                    (gpu.zeros::<f32>(2).expect("memory"), gpu.zeros::<f32>(1).expect("memory"));
                let outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut merged))
                    .with_lse(gpu.view_mut(&mut merged_lse));
                let (first, second) = if swapped { (1, 0) } else { (0, 1) };
                gpu.merge_attention_into(&op, part(first), part(second), outputs).expect("a call");
                let what = format!("{a:e} at {lse_a:e}, {b:e} at {lse_b:e}");
                assert_near(&gpu.download(gpu.view(&merged)).expect("a download"), &[out; 2], &what);
                assert_near(&gpu.download(gpu.view(&merged_lse)).expect("a download"), &[lse], &what);
            }
        }
    });
}

/// Attention of decoupled embeddings, through a selection of all and without one, and aggregation: one feature, whose score is given.
fn decoupled(gpu: &Cuda, scores: &[f32], values: &[f32], width: usize) -> [Vec<f32>; 2] {
    let length = scores.len();
    let mut attention = scores.to_vec();
    attention.push(1.0);
    let mut representation: Vec<f32> =
        values.iter().flat_map(|&value| std::iter::repeat_n(value, width)).collect();
    representation.resize((length + 1) * width, 0.0);
    let buffers = [&attention, &representation].map(|rows| gpu.upload(rows).expect("memory"));
    let [attention, representation] = [(0, 1), (1, width)]
        .map(|(i, width)| [Table::new(length + 1, width, TableData::F32(gpu.view(&buffers[i])))]);
    let ids = gpu.upload(&(0..length as u32).collect::<Vec<u32>>()).expect("memory");
    let targets = gpu.upload(&[length as u32; 3]).expect("memory");
    let batch = one_user(gpu, length, 3);
    let inputs = DecoupledInputs::new(&attention, &representation, gpu.view(&ids), gpu.view(&targets));
    [None, Some((length - 1).min(1024))].map(|top_k| {
        let op = Decoupled::new([1.0]).with_top_k(top_k);
        let out = gpu.decoupled_attend(&op, &batch, inputs).expect("a call");
        gpu.download(gpu.view(&out)).expect("a download")
    })
}

#[test]
fn decoupled_embeddings_hold_to_the_edges_of_f32() {
    const MIN: f32 = f32::MIN;
    const MAX: f32 = f32::MAX;
    const GONE: f32 = f32::NEG_INFINITY;
    const NAN: f32 = f32::NAN;
    on_device(|gpu| {
        for repeats in [1, 400] {
            for width in [1, 5, 130] {
                for (name, scores, values, expected) in [
                    ("masked alike", [MIN; 3], [2.0; 3], 2.0),
                    ("removed", [GONE; 3], [NAN; 3], 0.0),
                    ("removed but two", [0.0, 0.0, GONE], [2.0, 2.0, NAN], 2.0),
                    ("large scores", [3e38; 3], [2.0; 3], 2.0),
                    ("large values", [0.0; 3], [MAX; 3], MAX),
                    ("NaN without weight", [0.0, -1000.0, GONE], [2.0, NAN, 2.0], NAN),
                    ("NaN scores", [NAN; 3], [2.0; 3], NAN),
                    ("equal and huge", [1e16; 3], [3.0; 3], 3.0),
                ] {
                    let got = decoupled(gpu, &scores.repeat(repeats), &values.repeat(repeats), width);
                    for (got, way) in got.iter().zip(["all", "selected"]) {
                        let what = format!("{name}, {way}, width {width}, {repeats} repeats");
                        assert_near(got, &vec![expected; 3 * width], &what);
                    }
                }
            }
        }
    });
}

/// DIN whose score is the first column of the behaviour, by a network of one unit.
fn din<T: Element>(gpu: &Cuda, history: &[f32], width: usize, candidates: usize, weight: f32) -> Vec<f32> {
    let mut first = vec![T::from_f32(0.0); 4 * width];
    first[width] = T::from_f32(weight);
    let rows: Vec<T> = history.iter().map(|&x| T::from_f32(x)).collect();
    let (first, one, zero) = (
        gpu.upload(&first).expect("memory"),
        gpu.upload(&[T::from_f32(1.0)]).expect("memory"),
        gpu.upload(&[0.0f32]).expect("memory"),
    );
    let alpha = gpu.upload(&[1.0f32]).expect("memory");
    let history = gpu.upload(&rows).expect("memory");
    let targets = gpu.zeros::<T>(candidates * width).expect("memory");
    let activation = Activation::Prelu { alpha: gpu.view(&alpha) };
    let hidden = [DinLayer::new(gpu.view(&first), gpu.view(&zero), activation)];
    let inputs =
        DinInputs::new(gpu.view(&targets), gpu.view(&history), &hidden, gpu.view(&one), gpu.view(&zero));
    let batch = one_user(gpu, rows.len() / width, candidates);
    let op = Din::new(width).with_pooling(DinPooling::Softmax);
    let out = gpu.din(&op, &batch, inputs).expect("a call");
    gpu.download(gpu.view(&out)).expect("a download").into_iter().map(T::to_f32).collect()
}

#[test]
fn din_holds_to_the_edges_of_f32() {
    on_device(|gpu| {
        // One behaviour per row: its score comes from the first column, the second is pooled.
        let two = |scores: [f32; 2], values: [f32; 2]| vec![scores[0], values[0], scores[1], values[1]];
        const GONE: f32 = f32::NEG_INFINITY;
        for (name, rows, expected) in [
            ("NaN in all scores", two([f32::NAN; 2], [1.0, 3.0]), f32::NAN),
            ("all removed", two([GONE; 2], [1.0, 3.0]), f32::NAN),
            ("equal and low", two([-3e38; 2], [1.0, 3.0]), 2.0),
            ("equal and high", two([3e38; 2], [1.0, 3.0]), 2.0),
            ("large values", two([0.0; 2], [f32::MAX; 2]), f32::MAX),
            ("unequal, large values", two([0.0, 0.5], [f32::MAX; 2]), f32::MAX),
        ] {
            for (repeats, candidates) in [(1, 1), (40, 9), (700, 2)] {
                // An infinite column times the weight 0 of the other terms is NaN, so that nothing is removed here.
                let got = din::<f32>(gpu, &rows.repeat(repeats), 2, candidates, 1.0);
                let pooled: Vec<f32> = got.chunks(2).map(|row| row[1]).collect();
                assert_near(
                    &pooled,
                    &vec![expected; candidates],
                    &format!("{name}, {repeats}, {candidates}"),
                );
            }
        }
        let got = din::<bf16>(gpu, &[0.0, 3e38].repeat(100), 2, 3, 1.0);
        assert_near(&got[1..2], &[bf16::from_f32(3e38).to_f32()], "bf16");
    });
}

#[test]
fn look_ups_hold_to_the_edges_of_f32() {
    on_device(|gpu| {
        let table = [1e38, f32::MAX, f32::MAX, -f32::MAX, 0.1, f32::NAN];
        let numbers = gpu.upload(&table).expect("memory");
        let tables = [Table::new(table.len(), 1, TableData::F32(gpu.view(&numbers)))];
        for (ids, expected) in [
            (vec![0u32; 4], 1e38),
            ([0; 4].repeat(3000), 1e38),
            ([1, 2].repeat(3), f32::MAX),
            ([1, 2].repeat(3000), f32::MAX),
            ([4; 1].repeat(20_000), 0.1),
            ([1, 3].repeat(3), 0.0),
            ([1, 5].repeat(3), f32::NAN),
        ] {
            let length = ids.len();
            let ids = gpu.upload(&ids).expect("memory");
            let bags = gpu.jagged(&Jagged::from_lengths(&[length]).expect("a length")).expect("memory");
            let inputs = LookupInputs::new(gpu.view(&ids), &tables);
            let out = gpu.lookup(&Lookup::default(), Bags::Mean(&bags), inputs).expect("a call");
            let out = gpu.download(gpu.view(&out.0)).expect("a download");
            assert_near(&out, &[expected], &format!("mean of {length}"));
        }
    });
}

/// Rows of any finite numbers have a direction.
#[test]
fn normalising_holds_to_the_edges_of_f32() {
    on_device(|gpu| {
        for (x, expected) in [(1e19, 0.5), (f32::MAX, 0.5), (1e-10, 0.5), (1e-30, 1e-18)] {
            let op = Sdim::new(4).with_groups(3, 2);
            let table = gpu.upload(&vec![x; op.table_length(1).expect("a length")]).expect("memory");
            let codes = gpu.zeros::<u8>(3).expect("memory");
            let hash = Hash::Signatures8(gpu.view(&codes));
            let targets = gpu.jagged(&Jagged::from_lengths(&[1]).expect("a length")).expect("memory");
            let inputs = SdimQueryInputs::<Memory, f32>::new(gpu.view(&table), hash);
            let out = gpu.sdim_query(&op, &targets, inputs).expect("a call");
            assert_near(
                &gpu.download(gpu.view(&out)).expect("a download"),
                &[expected; 4],
                &format!("{x:e}"),
            );
        }
    });
}
