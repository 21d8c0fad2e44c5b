//! Views at odd offsets of searches, of TIN and of interest channels.

use longseq::half::{bf16, f16};
use longseq::*;

use super::batch;
use super::views::Within;

/// Behaviours, candidates, numbers of a row, and behaviours that are kept.
const N: usize = 40;
const M: usize = 3;
const D: usize = 8;
const K: usize = 7;

/// What a search keeps.
struct Kept<B: Backend> {
    positions: Buffer<B, u32>,
    scores: Buffer<B, f32>,
    counts: Buffer<B, u32>,
    /// Lists, and slots of each.
    lists: usize,
    slots: usize,
}

impl<B: Backend> Kept<B> {
    fn new(at: &Within<'_, B>, lists: usize, slots: usize) -> Result<Self> {
        let (positions, scores) = (at.zeros(lists * slots)?, at.zeros(lists * slots)?);
        Ok(Self { positions, scores, counts: at.zeros(lists)?, lists, slots })
    }

    fn of_mut<'a>(&'a mut self, at: &Within<'_, B>) -> Result<SelectionMut<'a, B::Memory>> {
        let slots = self.lists * self.slots;
        Ok(SelectionMut::new(
            at.of_mut(&mut self.positions, slots)?,
            at.of_mut(&mut self.scores, slots)?,
            at.of_mut(&mut self.counts, self.lists)?,
        ))
    }

    fn of<'a>(&'a self, at: &Within<'_, B>) -> Result<Selection<'a, B::Memory>> {
        let slots = self.lists * self.slots;
        Ok(Selection::new(
            at.of(&self.positions, slots)?,
            at.of(&self.scores, slots)?,
            at.of(&self.counts, self.lists)?,
        ))
    }

    fn written(&self, at: &Within<'_, B>) -> Result<Vec<u8>> {
        let slots = self.lists * self.slots;
        let positions = at.written(&self.positions, slots)?;
        Ok([positions, at.written(&self.scores, slots)?, at.written(&self.counts, self.lists)?].concat())
    }
}

/// A search among rows of some kind, and a histogram of the newest of them where there is one.
fn search<B: Backend>(
    at: &Within<'_, B>,
    op: Search,
    [queries, keys]: [SearchRows<'_, B::Memory>; 2],
    bias: bool,
) -> Result<Vec<u8>> {
    let (op, batch) = (op.with_top_k(K), batch(at.backend, N, M));
    let numbers = at.upload(N, |i| (i * 5 % 17) as f32)?;
    let inputs = SimilarityInputs::new(queries, keys);
    let inputs = if bias { inputs.with_bias(at.of(&numbers, N)?) } else { inputs };
    let mut kept = Kept::new(at, M, K)?;
    at.backend.search_into(&op, &batch, inputs, kept.of_mut(at)?)?;
    let mut written = kept.written(at)?;
    let histogram = SimilarityHistogram::new(2).with_top_k(K);
    let mut out = at.zeros::<u32>(M * histogram.bins())?;
    let view = at.of_mut(&mut out, M * histogram.bins())?;
    at.backend.similarity_histogram_into(&histogram, &batch, kept.of(at)?, view)?;
    written.extend(at.written(&out, M * histogram.bins())?);
    if matches!(op.score, SearchScore::Dot { .. } | SearchScore::Cosine) {
        let mut out = at.zeros::<u32>(M * histogram.bins())?;
        let view = at.of_mut(&mut out, M * histogram.bins())?;
        at.backend.newest_histogram_into(&histogram, &op, &batch, inputs, view)?;
        written.extend(at.written(&out, M * histogram.bins())?);
    }
    Ok(written)
}

/// Views as rows that a search compares.
type Rows<B, T> =
    for<'a> fn(View<'a, <B as DeviceOps>::Memory, T>) -> SearchRows<'a, <B as DeviceOps>::Memory>;

/// Rows of floats: by dot products, cosines, and their packed signs.
fn searched<B: Backend, T: Element>(at: &Within<'_, B>, rows: Rows<B, T>) -> Result<Vec<u8>> {
    let (queries, keys) = (at.rows::<T>(M * D)?, at.rows::<T>(N * D)?);
    let (queries, keys) = (at.of(&queries, M * D)?, at.of(&keys, N * D)?);
    let sides = || [rows(queries), rows(keys)];
    // A factor that makes similarities small, exactly.
    let mut written = search(at, Search::dot(D).with_scale(1.0 / 256.0), sides(), true)?;
    written.extend(search(at, Search::cosine(D), sides(), false)?);
    let op = Signs::new(D, 40);
    let rotations = at.upload(40 * D, |i| (i * 11 % 23) as f32 - 11.0)?;
    let rotations = at.of(&rotations, 40 * D)?;
    let (mut of_queries, mut of_keys) = (at.zeros::<u32>(M * 2)?, at.zeros::<u32>(N * 2)?);
    let view = at.of_mut(&mut of_queries, M * 2)?;
    at.backend.pack_signs_into(&op, queries, rotations, view)?;
    let view = at.of_mut(&mut of_keys, N * 2)?;
    at.backend.pack_signs_into(&op, keys, rotations, view)?;
    let sides = [SearchRows::Signs(at.of(&of_queries, M * 2)?), SearchRows::Signs(at.of(&of_keys, N * 2)?)];
    written.extend(search(at, Search::hamming(40), sides, false)?);
    written.extend(at.written(&of_queries, M * 2)?);
    written.extend(at.written(&of_keys, N * 2)?);
    Ok(written)
}

pub(super) fn searched_f32<B: Backend>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    fn rows<S: Memory>(rows: View<'_, S, f32>) -> SearchRows<'_, S> {
        SearchRows::F32(rows)
    }
    searched::<B, f32>(at, rows)
}

pub(super) fn searched_f16<B: Backend>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    fn rows<S: Memory>(rows: View<'_, S, f16>) -> SearchRows<'_, S> {
        SearchRows::F16(rows)
    }
    searched::<B, f16>(at, rows)
}

pub(super) fn searched_bf16<B: Backend>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    fn rows<S: Memory>(rows: View<'_, S, bf16>) -> SearchRows<'_, S> {
        SearchRows::Bf16(rows)
    }
    searched::<B, bf16>(at, rows)
}

/// 8-bit rows with scales and offsets and without, and keys.
pub(super) fn searched_integers<B: Backend>(at: &Within<'_, B>) -> Result<Vec<u8>> {
    let code = |i: usize| (i * 7 % 13) as i8 - 6;
    let (queries, keys) = (at.upload(M * D, code)?, at.upload(N * D, code)?);
    let (queries, keys) = (at.of(&queries, M * D)?, at.of(&keys, N * D)?);
    let scale = at.upload(N, |i| (i % 5) as f32 / 4.0)?;
    let offset = at.upload(N, |i| (i % 3) as f32 - 1.0)?;
    let side = |codes, rows| {
        let (scale, offset) = (at.of(&scale, rows)?, at.of(&offset, rows)?);
        Ok(SearchRows::Int8 { codes, scale, offset })
    };
    let op = Search::dot(D).with_scale(1.0 / 256.0);
    let mut written = search(at, op, [side(queries, M)?, side(keys, N)?], true)?;
    for op in [op, Search::cosine(D)] {
        written.extend(search(at, op, [SearchRows::Codes(queries), SearchRows::Codes(keys)], false)?);
    }
    let (queries, keys) = (at.upload(M, |i| i as u32 % 4)?, at.upload(N, |i| i as u32 % 5)?);
    let sides = [SearchRows::Keys(at.of(&queries, M)?), SearchRows::Keys(at.of(&keys, N)?)];
    written.extend(search(at, Search::matching(), sides, false)?);
    Ok(written)
}

/// TIN and its gradients.
pub(super) fn interacted<B: Backend, T: GradientOf<T>>(at: &Within<'_, B>) -> Result<Vec<f32>> {
    const P: usize = 6;
    let small = |i: usize| T::from_f32(((i % 13 * 7 % 13) as f32 - 6.0) / 8.0);
    let (targets, history) = (at.upload(M * D, small)?, at.upload(N * D, small)?);
    let (positions, grad_out) = (at.upload(P * D, small)?, at.upload(M * D, small)?);
    let (of_history, of_targets) = (at.upload(N, |i| i as u32 % 6)?, at.upload(M, |i| i as u32 % 5)?);
    let inputs = TinInputs::new(at.of(&targets, M * D)?, at.of(&history, N * D)?, at.of(&positions, P * D)?)
        .with_history_positions(at.of(&of_history, N)?)
        .with_target_positions(at.of(&of_targets, M)?);
    let (op, batch) = (Tin::new(D).with_positions(P), batch(at.backend, N, M));
    let (mut out, mut pooled, mut lse) = (at.zeros::<T>(M * D)?, at.zeros::<T>(M * D)?, at.zeros(M)?);
    let outputs = TinOutputs::new(at.of_mut(&mut out, M * D)?)
        .with_saved(at.of_mut(&mut pooled, M * D)?, at.of_mut(&mut lse, M)?);
    at.backend.tin_into(&op, &batch, inputs, outputs)?;
    let saved = TinSaved::new(at.of(&pooled, M * D)?, at.of(&lse, M)?);
    let (mut to_targets, mut to_history) = (at.zeros::<T>(M * D)?, at.zeros::<T>(N * D)?);
    let mut to_positions = at.zeros::<T>(P * D)?;
    let grads = TinGradients::new()
        .with_targets(at.of_mut(&mut to_targets, M * D)?)
        .with_history(at.of_mut(&mut to_history, N * D)?)
        .with_positions(at.of_mut(&mut to_positions, P * D)?);
    at.backend.tin_backward_into(&op, &batch, inputs, saved, at.of(&grad_out, M * D)?, grads)?;
    let numbers = [
        at.numbers(&out, M * D)?,
        at.numbers(&pooled, M * D)?,
        at.numbers(&lse, M)?,
        at.numbers(&to_targets, M * D)?,
        at.numbers(&to_history, N * D)?,
        at.numbers(&to_positions, P * D)?,
    ];
    Ok(numbers.concat())
}

/// Interest channels and their gradients.
pub(super) fn routed<B: Backend, T: GradientOf<T>>(at: &Within<'_, B>) -> Result<Vec<f32>> {
    const C: usize = 2;
    // Axes that point along other numbers of a row, nearly.
    let axis = |i: usize| if i % D == i / D { 4.0 } else { 0.5 };
    let axes = at.upload(M * C * D, |i| T::from_f32(axis((i + 14) % (C * D))))?;
    let (history, grad_out) = (at.rows::<T>(N * D)?, at.rows::<T>(M * C * D)?);
    let inputs = InterestChannelsInputs::new(at.of(&axes, M * C * D)?, at.of(&history, N * D)?);
    let (op, batch) = (InterestChannels::new(D).with_channels(C).with_top_k(K), batch(at.backend, N, M));
    let (mut out, mut kept) = (at.zeros::<T>(M * C * D)?, Kept::new(at, M * C, K)?);
    let outputs = InterestChannelsOutputs::new(at.of_mut(&mut out, M * C * D)?).with_kept(kept.of_mut(at)?);
    at.backend.interest_channels_into(&op, &batch, inputs, outputs)?;
    let (mut to_axes, mut to_history) = (at.zeros::<T>(M * C * D)?, at.zeros::<T>(N * D)?);
    let grads = InterestChannelsGradients::new()
        .with_axes(at.of_mut(&mut to_axes, M * C * D)?)
        .with_history(at.of_mut(&mut to_history, N * D)?);
    let saved = InterestChannelsSaved::new(kept.of(at)?);
    let grad_out = at.of(&grad_out, M * C * D)?;
    at.backend.interest_channels_backward_into(&op, &batch, inputs, saved, grad_out, grads)?;
    let numbers = [
        at.numbers(&out, M * C * D)?,
        at.numbers(&kept.scores, M * C * K)?,
        at.numbers(&to_axes, M * C * D)?,
        at.numbers(&to_history, N * D)?,
    ];
    let positions = bytemuck::pod_collect_to_vec::<u8, u32>(&at.written(&kept.positions, M * C * K)?);
    Ok([numbers.concat(), positions.into_iter().map(|position| position as f32).collect()].concat())
}
