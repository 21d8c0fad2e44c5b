//! Views at odd offsets.

use longseq::half::f16;
use longseq::*;

use super::batch;
use super::views_of_histories::{
    interacted, routed, searched_bf16, searched_f16, searched_f32, searched_integers,
};
use crate::case::Rules;
use crate::sample;

/// Buffers whose views start at an element and end before the last.
pub(super) struct Within<'b, B> {
    pub(super) backend: &'b B,
    start: usize,
}

impl<B: Backend> Within<'_, B> {
    /// The same numbers in the view, wherever it starts; around it others.
    pub(super) fn upload<T: Scalar>(
        &self,
        count: usize,
        number: impl Fn(usize) -> T,
    ) -> Result<Buffer<B, T>> {
        // `i` is at `start`, where a count of 130 more is the same number.
        let numbers = (0..self.start + count + 1).map(|i| number(i + 130 - self.start));
        self.backend.upload(&numbers.collect::<Vec<T>>())
    }

    pub(super) fn rows<T: Element>(&self, count: usize) -> Result<Buffer<B, T>> {
        self.upload(count, |i| T::from_f32((i % 13 * 7 % 13) as f32 - 6.0))
    }

    pub(super) fn zeros<T: Scalar>(&self, count: usize) -> Result<Buffer<B, T>> {
        self.backend.zeros(self.start + count + 1)
    }

    pub(super) fn of<'a, T: Scalar>(
        &self,
        buffer: &'a Buffer<B, T>,
        count: usize,
    ) -> Result<View<'a, B::Memory, T>> {
        self.backend.view(buffer).slice(self.start, count)
    }

    pub(super) fn of_mut<'a, T: Scalar>(
        &self,
        buffer: &'a mut Buffer<B, T>,
        count: usize,
    ) -> Result<ViewMut<'a, B::Memory, T>> {
        self.backend.view_mut(buffer).slice(self.start, count)
    }

    /// The bytes of a view; nothing around it was written.
    pub(super) fn written<T: Scalar>(&self, buffer: &Buffer<B, T>, count: usize) -> Result<Vec<u8>> {
        let all = self.backend.download(self.backend.view(buffer))?;
        let bytes = |part: &[T]| bytemuck::cast_slice::<T, u8>(part).to_vec();
        let (before, rest) = all.split_at(self.start);
        let (view, after) = rest.split_at(count);
        assert!([before, after].into_iter().flat_map(bytes).all(|byte| byte == 0), "written outside");
        Ok(bytes(view))
    }
}

impl<B: Backend> Within<'_, B> {
    /// As [`written`](Self::written), as numbers.
    pub(super) fn numbers<T: Element>(&self, buffer: &Buffer<B, T>, count: usize) -> Result<Vec<f32>> {
        let bytes = self.written(buffer, count)?;
        Ok(bytemuck::pod_collect_to_vec::<u8, T>(&bytes).into_iter().map(T::to_f32).collect())
    }
}

/// Calls of an operation on views; what they wrote.
type Call<B> = fn(&Within<'_, B>) -> Result<Vec<u8>>;

/// The same, as numbers.
type Numbers<B> = fn(&Within<'_, B>) -> Result<Vec<f32>>;

fn attended<B: Backend, T: Element>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    let (queries, keys, values) = (at.rows::<T>(3 * 8)?, at.rows(40 * 8)?, at.rows(40 * 5)?);
    let bias = at.upload(40, |i| i as f32 / 64.0)?;
    let inputs = TargetAttentionInputs::new(at.of(&queries, 3 * 8)?, at.of(&keys, 40 * 8)?)
        .with_values(at.of(&values, 40 * 5)?)
        .with_bias(at.of(&bias, 40)?);
    let op = TargetAttention::new(8).with_value_width(5);
    let (mut out, mut lse) = (at.zeros::<T>(3 * 5)?, at.zeros::<f32>(3)?);
    let outputs = TargetAttentionOutputs::new(at.of_mut(&mut out, 3 * 5)?).with_lse(at.of_mut(&mut lse, 3)?);
    at.backend.target_attention_into(&op, &batch(at.backend, 40, 3), inputs, outputs)?;
    let (mut merged, mut merged_lse) = (at.zeros::<T>(3 * 5)?, at.zeros::<f32>(3)?);
    let outputs =
        TargetAttentionOutputs::new(at.of_mut(&mut merged, 3 * 5)?).with_lse(at.of_mut(&mut merged_lse, 3)?);
    let part = PartialAttention::new(at.of(&out, 3 * 5)?, at.of(&lse, 3)?);
    at.backend.merge_attention_into(&op, part, part, outputs)?;
    let bytes =
        [at.written(&out, 15)?, at.written(&lse, 3)?, at.written(&merged, 15)?, at.written(&merged_lse, 3)?];
    Ok(bytes.concat())
}

fn pooled<B: Backend, T: Element>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    let small = |i: usize| T::from_f32(((i % 13 * 7 % 13) as f32 - 6.0) / 64.0);
    let (targets, history) = (at.rows::<T>(3 * 8)?, at.rows(40 * 8)?);
    let (weight, output_weight) = (at.upload(5 * 32, small)?, at.upload(5, small)?);
    let (bias, output_bias) = (at.upload(5, |i| i as f32 / 64.0)?, at.upload(1, |i| i as f32 / 128.0)?);
    let (gain, shift) = (at.upload(5, |i| i as f32 / 256.0)?, at.upload(5, |i| 1.0 - i as f32 / 256.0)?);
    let activation =
        Activation::Dice { alpha: at.of(&bias, 5)?, gain: at.of(&gain, 5)?, shift: at.of(&shift, 5)? };
    let hidden = [DinLayer::new(at.of(&weight, 5 * 32)?, at.of(&bias, 5)?, activation)];
    let inputs = DinInputs::new(
        at.of(&targets, 3 * 8)?,
        at.of(&history, 40 * 8)?,
        &hidden,
        at.of(&output_weight, 5)?,
        at.of(&output_bias, 1)?,
    );
    let mut out = at.zeros::<T>(3 * 8)?;
    let view = at.of_mut(&mut out, 3 * 8)?;
    let op = Din::new(8).with_pooling(DinPooling::Softmax);
    at.backend.din_into(&op, &batch(at.backend, 40, 3), inputs, view)?;
    at.written(&out, 3 * 8)
}

fn bucketed<B: Backend, T: Element>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    let op = Sdim::new(8).with_groups(3, 2);
    let rotations = op.rotations(1)?;
    let rotations =
        at.upload(rotations.len(), |i| rotations[(i + rotations.len() * 130 - 130) % rotations.len()])?;
    let (targets, history) = (at.rows::<T>(3 * 8)?, at.rows(40 * 8)?);
    let (targets, history) = (at.of(&targets, 3 * 8)?, at.of(&history, 40 * 8)?);
    let hash = Hash::Rotations(at.of(&rotations, 6 * 8)?);
    let [behaviours, candidates] = [40, 3].map(|rows| Jagged::from_lengths(&[rows]).expect("one user"));
    let [behaviours, candidates] = [at.backend.jagged(&behaviours)?, at.backend.jagged(&candidates)?];

    let mut signatures = at.zeros::<u8>(40 * 3)?;
    let view = at.of_mut(&mut signatures, 40 * 3)?;
    at.backend.sdim_signatures_into(&op, history, at.of(&rotations, 6 * 8)?, view)?;
    let given = Hash::Signatures8(at.of(&signatures, 40 * 3)?);
    let length = op.table_length(1)?;
    let (mut table, mut other) = (at.zeros::<f32>(length)?, at.zeros::<f32>(length)?);
    let weights = at.rows::<f32>(40)?;
    for (table, hash) in [(&mut table, hash), (&mut other, given)] {
        at.backend.sdim_encode_into(
            &op,
            &behaviours,
            SdimEncodeInputs::new(history, hash).with_weights(at.of(&weights, 40)?),
            at.of_mut(table, length)?,
        )?;
    }
    at.backend.sdim_add_tables(&op, at.of_mut(&mut table, length)?, at.of(&other, length)?)?;
    at.backend.sdim_decay(&op, at.of_mut(&mut table, length)?, at.of(&weights, 1)?)?;
    let gone = SdimEncodeInputs::new(history, given).with_weights(at.of(&weights, 40)?);
    at.backend.sdim_remove(&op, &behaviours, gone, at.of_mut(&mut table, length)?)?;
    let (mut out, mut attended) = (at.zeros::<T>(3 * 8)?, at.zeros::<T>(3 * 8)?);
    let inputs = SdimQueryInputs::new(at.of(&table, length)?, hash).with_targets(targets);
    at.backend.sdim_query_into(&op, &candidates, inputs, at.of_mut(&mut out, 3 * 8)?)?;
    let inputs = SdimAttendInputs::new(history, given, hash).with_targets(targets);
    let view = at.of_mut(&mut attended, 3 * 8)?;
    at.backend.sdim_attend_into(&op, &batch(at.backend, 40, 3), inputs, view)?;
    let mut by_items = at.zeros::<T>(3 * 8)?;
    let (past, wished) = (at.upload(40, |i| i as u32 % 40)?, at.upload(3, |i| i as u32 % 130 + 37)?);
    let signatures_of = |ids| Hash::Items8 { signatures: at.of(&signatures, 120).expect("all"), ids };
    let [past, wished] = [signatures_of(at.of(&past, 40)?), signatures_of(at.of(&wished, 3)?)];
    let view = at.of_mut(&mut by_items, 3 * 8)?;
    let inputs = SdimAttendInputs::new(history, past, wished);
    at.backend.sdim_attend_into(&op, &batch(at.backend, 40, 3), inputs, view)?;
    let bytes = [
        at.written(&signatures, 120)?,
        at.written(&table, length)?,
        at.written(&out, 24)?,
        at.written(&attended, 24)?,
        at.written(&by_items, 24)?,
    ];
    Ok(bytes.concat())
}

fn looked_up<B: Backend>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    let (codes, numbers) = (at.upload(9, |i| i as i8)?, at.upload(9, |i| i as f32)?);
    let ids = at.upload(4, |i| i as u32 % 3)?;
    let (codes, scale, offset) = (at.of(&codes, 9)?, at.of(&numbers, 3)?, at.of(&numbers, 3)?);
    let tables = [
        Table::new(3, 3, TableData::Int8 { codes, scale, offset }),
        Table::new(3, 3, TableData::F32(at.of(&numbers, 9)?)),
    ];
    let inputs = LookupInputs::new(at.of(&ids, 4)?, &tables);
    let mut out = at.zeros::<f32>(2 * 6)?;
    let outputs = LookupOutputs::new(at.of_mut(&mut out, 2 * 6)?);
    at.backend.lookup_into(&Lookup::default(), Bags::Each, inputs, outputs)?;
    at.written(&out, 2 * 6)
}

fn searched<B: Backend>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    const K: usize = 7;
    let (halves, numbers) = (at.rows::<f16>(5 * 8)?, at.rows::<f32>(5 * 6)?);
    let (history, targets) = (at.upload(2 * 40, |i| i as u32 * 7 % 5)?, at.upload(2 * 3, |i| i as u32 % 5)?);
    let (history, targets) = (at.of(&history, 2 * 40)?, at.of(&targets, 2 * 3)?);
    let attention = [
        Table::new(5, 8, TableData::F16(at.of(&halves, 5 * 8)?)),
        Table::new(5, 6, TableData::F32(at.of(&numbers, 5 * 6)?)),
    ];
    let representation = [
        Table::new(5, 6, TableData::F32(at.of(&numbers, 5 * 6)?)),
        Table::new(5, 8, TableData::F16(at.of(&halves, 5 * 8)?)),
    ];
    let (op, batch) = (Decoupled::new([0.25, 0.125]).with_top_k(Some(K)), batch(at.backend, 40, 3));
    let (mut positions, mut scores, mut counts) =
        (at.zeros::<u32>(3 * K)?, at.zeros::<f32>(3 * K)?, at.zeros::<u32>(3)?);
    let outputs = SelectionMut::new(
        at.of_mut(&mut positions, 3 * K)?,
        at.of_mut(&mut scores, 3 * K)?,
        at.of_mut(&mut counts, 3)?,
    );
    at.backend.decoupled_search_into(
        &op,
        &batch,
        SearchInputs::new(&attention, history, targets),
        outputs,
    )?;
    let selection = Selection::new(at.of(&positions, 3 * K)?, at.of(&scores, 3 * K)?, at.of(&counts, 3)?);
    let mut out = at.zeros::<f32>(3 * 14)?;
    let inputs = AggregateInputs::new(&representation, history, targets);
    at.backend.decoupled_aggregate_into(&op, &batch, inputs, selection, at.of_mut(&mut out, 3 * 14)?)?;
    let mut all = at.zeros::<f32>(3 * 14)?;
    let inputs = DecoupledInputs::new(&attention, &representation, history, targets);
    let view = at.of_mut(&mut all, 3 * 14)?;
    at.backend.decoupled_attend_into(&op.clone().with_top_k(None), &batch, inputs, view)?;
    let bytes = [
        at.written(&positions, 3 * K)?,
        at.written(&scores, 3 * K)?,
        at.written(&counts, 3)?,
        at.written(&out, 3 * 14)?,
        at.written(&all, 3 * 14)?,
    ];
    Ok(bytes.concat())
}

/// Every input and output as a view that starts at an odd element, and ends before its buffer does.
pub(super) fn reads_views_at_any_offset<B: Backend>(backend: &B, _: Rules) {
    let calls: [(&str, Call<B>); 12] = [
        ("attention f32", attended::<B, f32>),
        ("attention f16", attended::<B, f16>),
        ("din f32", pooled::<B, f32>),
        ("din f16", pooled::<B, f16>),
        ("sdim f32", bucketed::<B, f32>),
        ("sdim f16", bucketed::<B, f16>),
        ("lookup", looked_up),
        ("decoupled", searched),
        ("search f32", searched_f32),
        ("search f16", searched_f16),
        ("search bf16", searched_bf16),
        ("search integers", searched_integers),
    ];
    for (name, call) in calls {
        let expected = call(&Within { backend, start: 0 }).expect("a valid call");
        for &start in starts(name.starts_with("search")) {
            assert_eq!(call(&Within { backend, start }).as_ref(), Ok(&expected), "{name} from {start} on");
        }
    }
    // Rows that are not aligned are added up in another order.
    let numbers: [(&str, Numbers<B>, f32); 4] = [
        ("tin f32", interacted::<B, f32>, 1e-5),
        ("tin f16", interacted::<B, f16>, 2e-3),
        ("channels f32", routed::<B, f32>, 1e-5),
        ("channels f16", routed::<B, f16>, 2e-3),
    ];
    for (name, call, near) in numbers {
        let expected = call(&Within { backend, start: 0 }).expect("a valid call");
        let largest = expected.iter().fold(1.0f32, |largest, x| largest.max(x.abs()));
        for &start in starts(true) {
            let got = call(&Within { backend, start }).expect("a valid call");
            let is_near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= near * largest;
            let all = got.len() == expected.len() && got.iter().zip(&expected).all(is_near);
            assert!(all, "{name} from {start} on: {got:?}, not {expected:?}");
        }
    }
}

/// The elements at which views start.
fn starts(few: bool) -> &'static [usize] {
    if few && sample::is_small() { &[3] } else { &[1, 3, 5] }
}
