//! Edges of the numbers and sizes that the kernels take, with results that can be given by hand.

use longseq::webgpu::WgpuBuffer;
use longseq::*;
use longseq_check::device::TestDevice;
use longseq_check::device::webgpu::device;
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};

fn one(rows: usize) -> Jagged {
    Jagged::from_lengths(&[rows]).expect("a small length")
}

/// One user's attention of one candidate, heads and width 1: the output and the log-sum-exp.
struct Attend<'a> {
    op: TargetAttention,
    query: f32,
    keys: &'a [f32],
    values: &'a [f32],
    bias: Option<&'a [f32]>,
}

impl Attend<'_> {
    fn run(&self, gpu: &Wgpu) -> (f32, f32) {
        let up = |data: &[f32]| gpu.upload(data).expect("an upload");
        let [query, keys, values, bias] =
            [&[self.query], self.keys, self.values, self.bias.unwrap_or(&[])].map(up);
        let [mut out, mut lse] = [(); 2].map(|()| gpu.zeros::<f32>(1).expect("a buffer"));
        let batch = gpu.batch(&one(self.keys.len()), &one(1)).expect("one user");
        let mut inputs =
            TargetAttentionInputs::new(gpu.view(&query), gpu.view(&keys)).with_values(gpu.view(&values));
        if self.bias.is_some() {
            inputs = inputs.with_bias(gpu.view(&bias));
        }
        let mut outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out));
        if self.op.weighting == Weighting::Softmax {
            outputs = outputs.with_lse(gpu.view_mut(&mut lse));
        }
        gpu.target_attention_into(&self.op, &batch, inputs, outputs).expect("a valid call");
        let get = |buffer: &WgpuBuffer<f32>| gpu.download(gpu.view(buffer)).expect("a download")[0];
        (get(&out), get(&lse))
    }
}

#[test]
fn only_minus_infinity_removes() {
    let Some(gpu) = device() else { return };
    let softmax = TargetAttention::new(1);
    let attend = |keys: &[f32], values: &[f32], bias: &[f32]| {
        Attend { op: softmax, query: 0.0, keys, values, bias: Some(bias) }.run(&gpu)
    };
    // Short histories, and one of several pieces.
    for length in [2usize, 20_000] {
        let keys = vec![1.0; length];
        let values: Vec<f32> = (0..length).map(|l| if l % 2 == 0 { 1.0 } else { 3.0 }).collect();
        let log = (length as f64).ln() as f32;
        for score in [f32::MIN, -3.1e38, -1e30, 0.0, 1e30, f32::MAX] {
            let (out, lse) = attend(&keys, &values, &vec![score; length]);
            assert!((out - 2.0).abs() < 1e-5, "{length} scores of {score}: {out}");
            assert!((lse - (score + log)).abs() <= 1e-6 * lse.abs(), "{length} scores of {score}: {lse}");
        }
        // Scores at both ends of the numbers.
        let mut ends = vec![f32::MIN; length];
        ends[length - 1] = f32::MAX;
        assert_eq!(attend(&keys, &values, &ends), (3.0, f32::MAX));
        let removed = vec![f32::NEG_INFINITY; length];
        assert_eq!(attend(&keys, &values, &removed), (0.0, f32::NEG_INFINITY));
        // What a removed behaviour holds does not show; what has no weight but is not removed does.
        let (mut holey, mut bias) = (values.clone(), vec![0.0; length]);
        (holey[0], bias[0]) = (f32::NAN, f32::NEG_INFINITY);
        let (out, _) = attend(&keys, &holey, &bias);
        assert!((out - 2.0).abs() < 2.0, "{out}");
        bias[0] = -1e30;
        assert!(attend(&keys, &holey, &bias).0.is_nan());
        bias[0] = f32::NAN;
        assert!(attend(&keys, &values, &bias).0.is_nan());
        // Scores that are all NaN or +∞: neither is a part without behaviours.
        for score in [f32::NAN, f32::INFINITY] {
            let (out, lse) = attend(&keys, &values, &vec![score; length]);
            assert!(out.is_nan() && lse.is_nan(), "{length} scores of {score}: {out}, {lse}");
        }
    }
}

#[test]
fn other_weightings_at_the_ends_of_the_numbers() {
    let Some(gpu) = device() else { return };
    let run = |weighting, bias: &[f32], values: &[f32]| {
        let op = TargetAttention::new(1).with_weighting(weighting);
        Attend { op, query: 0.0, keys: &[0.0, 0.0], values, bias: Some(bias) }.run(&gpu).0
    };
    let silu = Weighting::silu(1.0);
    for lowest in [f32::MIN, -1e30, -200.0] {
        assert_eq!(run(silu, &[lowest, lowest], &[10.0, 1.0]), 0.0);
    }
    for weighting in [silu, Weighting::Relu] {
        assert_eq!(run(weighting, &[f32::NEG_INFINITY, 0.0], &[f32::NAN, 1.0]), 0.0);
        assert!(run(weighting, &[f32::NEG_INFINITY, 100.0], &[f32::INFINITY, 1.0]) > 99.0);
        assert!(run(weighting, &[-300.0, 0.0], &[f32::NAN, 1.0]).is_nan());
        assert!(run(weighting, &[f32::NAN, 0.0], &[1.0, 1.0]).is_nan());
    }
    assert!(!run(Weighting::Identity, &[f32::NEG_INFINITY, 0.0], &[1.0, 1.0]).is_finite());
}

#[test]
fn the_largest_values_and_scales() {
    let Some(gpu) = device() else { return };
    let op = TargetAttention::new(1);
    for length in [2usize, 1000, 20_000] {
        let (keys, values) = (vec![0.0; length], vec![f32::MAX; length]);
        let run = Attend { op, query: 0.0, keys: &keys, values: &values, bias: None }.run(&gpu);
        assert!((run.0 - f32::MAX).abs() <= 1e-5 * f32::MAX, "{length}: {run:?}");
        let infinite = vec![f32::INFINITY; length];
        let run = Attend { op, query: 0.0, keys: &keys, values: &infinite, bias: None }.run(&gpu);
        assert!(!run.0.is_finite(), "{length}: {run:?}");
    }
    for (scale, query, key, lse) in [
        // Subnormal numbers may count as 0 in WGSL.
        (4e9, 1e30, 2e-38, 80.0),
        (3e38, 2e-38, 1.0, 6.0),
        (3e38, 4.0, 2e-38, 24.0),
        (1e38, 1e-20, 1e-19, 0.1),
        (2e-38, 1e19, 1e19, 2.0),
        (1.0, 0.0, f32::MAX, 0.0),
    ] {
        let op = op.with_scale(scale);
        let run = Attend { op, query, keys: &[key], values: &[5.0], bias: None }.run(&gpu);
        assert!(run.0 == 5.0 && (run.1 - lse).abs() <= 2e-6 * lse, "{scale} · {query} · {key}: {run:?}");
    }
}

#[test]
fn merges_at_the_ends_of_the_numbers() {
    let Some(gpu) = device() else { return };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let merge = |a: [f32; 2], b: [f32; 2]| {
        let buffers = [a[0], a[1], b[0], b[1]].map(|x| gpu.upload(&[x]).expect("an upload"));
        let views = buffers.each_ref().map(|buffer| gpu.view(buffer));
        let [mut out, mut lse] = [(); 2].map(|()| gpu.zeros::<f32>(1).expect("a buffer"));
        let outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out)).with_lse(gpu.view_mut(&mut lse));
        let first = PartialAttention::new(views[0], views[1]);
        let second = PartialAttention::new(views[2], views[3]);
        gpu.merge_attention_into(&TargetAttention::new(1), first, second, outputs).expect("a valid call");
        [out, lse].map(|buffer| gpu.download(gpu.view(&buffer)).expect("a download")[0])
    };
    let largest = merge([f32::MAX, 0.0], [f32::MAX, 0.0]);
    assert!(largest[0] == f32::MAX && (largest[1] - std::f32::consts::LN_2).abs() < 1e-6, "{largest:?}");
    assert_eq!(merge([nan, -inf], [2.0, 1.0]), [2.0, 1.0]);
    assert_eq!(merge([2.0, f32::MIN], [inf, -inf]), [2.0, f32::MIN]);
    assert_eq!(merge([nan, -inf], [inf, -inf]), [0.0, -inf]);
    assert_eq!(merge([1.0, f32::MIN], [3.0, f32::MIN]), [2.0, f32::MIN]);
    assert_eq!(merge([1.0, f32::MIN], [3.0, f32::MAX]), [3.0, f32::MAX]);
    assert!(merge([nan, f32::MIN], [3.0, 0.0])[0].is_nan());
    for bad in [inf, nan] {
        for parts in
            [merge([1.0, bad], [2.0, 0.0]), merge([1.0, 0.0], [2.0, bad]), merge([1.0, bad], [2.0, -inf])]
        {
            assert!(parts.iter().all(|x| x.is_nan()), "{parts:?}");
        }
    }
}

/// Pools bags of rows of a table of width 1.
fn pool(gpu: &Wgpu, table: &[f32], ids: &[u32], bags: &[usize], mean: bool) -> Result<Vec<f32>> {
    let rows = gpu.upload(table)?;
    let ids = gpu.upload(ids)?;
    let tables = [Table::new(table.len(), 1, TableData::F32(gpu.view(&rows)))];
    let bags = gpu.jagged(&Jagged::from_lengths(bags)?)?;
    let bags = if mean { Bags::Mean(&bags) } else { Bags::Sum(&bags) };
    let out = gpu.lookup(&Lookup::default(), bags, LookupInputs::new(gpu.view(&ids), &tables))?.0;
    gpu.download(gpu.view(&out))
}

#[test]
fn long_bags_are_summed_in_parts() {
    let Some(gpu) = device() else { return };
    let lengths = [3, 65_536, 0, 200_000, 1];
    let total: usize = lengths.iter().sum();
    let ones = pool(&gpu, &[1.0], &vec![0; total], &lengths, false).expect("a sum");
    assert_eq!(ones, lengths.map(|length| length as f32));
    for tenths in pool(&gpu, &[0.1], &vec![0; 1_000_000], &[1_000_000], false).expect("a sum") {
        assert!((tenths - 1e5).abs() < 0.1, "{tenths}");
    }
    let mut ids = vec![0; total];
    ids[69_999] = 1;
    let error = pool(&gpu, &[1.0], &ids, &lengths, false).unwrap_err();
    assert!(matches!(error, Error::IndexOutOfRange { position: 69_999, id: 1, .. }), "{error}");
    for length in [1, 3, 4, 7, 100, 1000, 70_000] {
        let means = pool(&gpu, &[f32::MAX], &vec![0; length], &[length], true).expect("a mean");
        assert!((means[0] - f32::MAX).abs() <= 1e-6 * f32::MAX, "{length}: {means:?}");
    }
}

#[test]
fn many_kept_behaviours_are_aggregated_in_parts() {
    let Some(gpu) = device() else { return };
    let up = |data: &[f32]| gpu.upload(data).expect("an upload");
    let count = 70_000u32;
    let run = |rows: &[f32], scores: &[f32]| {
        let table = up(rows);
        let tables = [Table::new(rows.len(), 1, TableData::F32(gpu.view(&table)))];
        let ids = gpu.upload(&(0..count).map(|l| l % rows.len() as u32).collect::<Vec<_>>()).expect("ids");
        let target = gpu.upload(&[0u32]).expect("an upload");
        let positions = gpu.upload(&(0..count).collect::<Vec<_>>()).expect("an upload");
        let scores = up(scores);
        let counts = gpu.upload(&[count]).expect("an upload");
        let batch = gpu.batch(&one(count as usize), &one(1)).expect("one user");
        let op = Decoupled::new([1.0]).with_top_k(Some(count as usize));
        let kept = Selection::new(gpu.view(&positions), gpu.view(&scores), gpu.view(&counts));
        let inputs = AggregateInputs::new(&tables, gpu.view(&ids), gpu.view(&target));
        let out = gpu.decoupled_aggregate(&op, &batch, inputs, kept).expect("a valid call");
        gpu.download(gpu.view(&out)).expect("a download")[0]
    };
    let all = |score| vec![score; count as usize];
    for score in [0.0, f32::MIN, f32::MAX] {
        let mean = run(&[1.0, 3.0], &all(score));
        assert!((mean - 2.0).abs() < 1e-4, "{mean}");
    }
    let largest = run(&[f32::MAX], &all(0.0));
    assert!((largest - f32::MAX).abs() < 1e-4 * f32::MAX, "{largest}");
    assert_eq!(run(&[f32::NAN], &all(f32::NEG_INFINITY)), 0.0);
    let mut mixed = all(f32::NEG_INFINITY);
    (mixed[1], mixed[3]) = (0.0, f32::MIN);
    assert_eq!(run(&[f32::NAN, 5.0], &mixed), 5.0);
    mixed[2] = f32::MIN;
    assert!(run(&[f32::NAN, 5.0], &mixed).is_nan());
}

#[test]
fn bucket_rows_of_any_size_are_normalised() {
    let Some(gpu) = device() else { return };
    for size in [f32::MAX, 1e19, 1.0, 1e-10, 1e-20] {
        // Two groups of one bit; the buckets of one have rows of four equal numbers.
        let table: Vec<f32> = vec![size; 2 * 2 * 4];
        let op = Sdim::new(4).with_groups(2, 1).with_normalise(true);
        let table = gpu.upload(&table).expect("an upload");
        let codes = gpu.upload(&[0u8, 1]).expect("an upload");
        let inputs = SdimQueryInputs::new(gpu.view(&table), Hash::Signatures8(gpu.view(&codes)));
        let targets = gpu.jagged(&one(1)).expect("one candidate");
        let out = gpu.sdim_query::<f32>(&op, &targets, inputs).expect("a valid call");
        let expected = if size < 1e-13 { size / 1e-12 } else { 0.5 };
        for x in gpu.download(gpu.view(&out)).expect("a download") {
            assert!((x - expected).abs() < 1e-6, "{size}: {x}");
        }
    }
}

/// Lists longer than workgroup memory holds, in which every behaviour replaces one that was kept, or none does; of candidates whose
/// keys are reversed, and of ties.
#[test]
fn long_lists_are_merged_in_memory() {
    let Some(gpu) = device() else { return };
    let (length, top_k) = (40_000u32, 4096);
    let op = Search::dot(1).with_top_k(top_k);
    let batch = gpu.batch(&one(length as usize), &one(2)).expect("one user");
    for kind in 0..3 {
        let row = |l: u32| match kind {
            0 => l as f32,
            1 => (length - l) as f32,
            _ => (l / 8192) as f32,
        };
        let keys = gpu.upload(&(0..length).map(row).collect::<Vec<_>>()).expect("an upload");
        let queries = gpu.upload(&[1.0f32, -1.0]).expect("an upload");
        let rows = |rows| SearchRows::F32(gpu.view(rows));
        let kept = gpu.search(&op, &batch, SimilarityInputs::new(rows(&queries), rows(&keys)));
        let got = gpu.download(gpu.view(&kept.expect("a valid call").positions)).expect("a download");
        let k = 0..top_k as u32;
        let (rising, falling): (Vec<u32>, Vec<u32>) = k.map(|k| (k, length - 1 - k)).unzip();
        let expected = match kind {
            0 => [falling, rising],
            1 => [rising, falling],
            // The last numbers are those of the behaviours from 32,768 on.
            _ => [rising.iter().map(|k| k + 32_768).collect(), rising],
        };
        assert!(got[..top_k] == expected[0], "kind {kind}: {:?} …", &got[..8]);
        assert!(got[top_k..] == expected[1], "kind {kind}: {:?} …", &got[top_k..top_k + 8]);
    }
}

/// More lists than one round combines, each of which replaces all kept before it, or none.
#[test]
fn long_searches_are_combined_in_rounds() {
    let Some(gpu) = device() else { return };
    let length = 60_000u32;
    for (rising, top_k) in
        [(true, 1024), (false, 1024), (true, Search::MAX_TOP_K), (false, Search::MAX_TOP_K)]
    {
        let rows: Vec<f32> =
            (0..length).map(|l| if rising { l as f32 } else { (length - l) as f32 }).collect();
        let table = gpu.upload(&rows).expect("an upload");
        let tables = [Table::new(length as usize, 1, TableData::F32(gpu.view(&table)))];
        let ids = gpu.upload(&(0..length).collect::<Vec<_>>()).expect("an upload");
        // A score is the row times that of the candidate, of 1.
        let target = gpu.upload(&[if rising { 1u32 } else { length - 1 }]).expect("an upload");
        let batch = gpu.batch(&one(length as usize), &one(1)).expect("one user");
        let op = Decoupled::new([1.0]).with_top_k(Some(top_k));
        let inputs = SearchInputs::new(&tables, gpu.view(&ids), gpu.view(&target));
        let kept = gpu.decoupled_search(&op, &batch, inputs).expect("a valid call");
        let got = gpu.download(gpu.view(&kept.positions)).expect("a download");
        let expected: Vec<u32> = (0..top_k as u32).map(|k| if rising { length - 1 - k } else { k }).collect();
        assert!(got == expected, "rising: {rising}, {top_k}: {:?} …", &got[..8]);
    }
}

/// Axes that take several dispatches, in lists that take several tiles; and those that are too many or too wide.
#[test]
fn axes_of_many_numbers_are_put_at_right_angles() {
    let Some(gpu) = device() else { return };
    let forward = ChannelsCase {
        histories: vec![30],
        targets: vec![2],
        width: 600,
        channels: 100,
        shared: 0.0,
        ..Default::default()
    };
    gpu.check_case(&(&forward).into()).unwrap_or_else(|failure| panic!("{failure}"));
    let backward = ChannelsBackwardCase { forward, ..Default::default() };
    gpu.check_case(&(&backward).into()).unwrap_or_else(|failure| panic!("{failure}"));
    for (width, channels, named) in [(16_385, 1, "width"), (500, 394, "axes")] {
        let op = InterestChannels::new(width).with_channels(channels).with_top_k(1);
        let axes = gpu.zeros::<f32>(width * channels).expect("memory");
        let history = gpu.zeros::<f32>(width).expect("memory");
        let batch = gpu.batch(&one(1), &one(1)).expect("one user");
        let inputs = InterestChannelsInputs::new(gpu.view(&axes), gpu.view(&history));
        match gpu.interest_channels(&op, &batch, inputs) {
            Err(Error::Limit { argument, .. }) => assert_eq!(argument, named),
            other => panic!("{other:?}"),
        }
    }
}
