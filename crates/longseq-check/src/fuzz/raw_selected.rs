//! Attention over a selection and histograms whose every argument comes from the bytes.

use arbitrary::{Result, Unstructured};
use longseq::*;

use super::bytes::*;
use super::raw::{alike, both};
use super::raw_backward::{Outputs, wide};

/// A selection.
pub(super) struct Kept {
    positions: Vec<u32>,
    similarities: Vec<f32>,
    counts: Vec<u32>,
}

impl Kept {
    pub(super) fn new(
        bytes: &mut Unstructured<'_>,
        kind: Numbers,
        batch: &Batch,
        top_k: usize,
    ) -> Result<Self> {
        let rows = batch.targets().rows();
        let slots = product(&[rows, top_k]);
        // Mostly inside: of the shortest history that has any behaviour, and of the slots.
        let lengths = batch.histories().ranges().map(|history| history.len());
        let shortest = lengths.filter(|&length| length > 0).min().unwrap_or(1);
        let has_empty = batch.histories().ranges().any(|history| history.is_empty());
        let most = if has_empty { 1 } else { top_k.saturating_add(1) };
        Ok(Self {
            positions: ids(bytes, slots, shortest)?,
            similarities: numbers(bytes, kind, slots)?,
            counts: ids(bytes, rows, most)?,
        })
    }

    pub(super) fn view(&self) -> Selection<'_, Host> {
        Selection::new(Host::view(&self.positions), Host::view(&self.similarities), Host::view(&self.counts))
    }
}

/// A call of attention over a selection.
struct Call {
    op: SelectedAttention,
    batch: Batch,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    gammas: Option<Vec<f32>>,
    kept: Kept,
}

impl Call {
    fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let Some(batch) = batch(bytes)? else { return Ok(None) };
        let kv_heads = size(bytes)?.min(4);
        let mut op = SelectedAttention::new(size(bytes)?)
            .with_heads(kv_heads.saturating_mul(size(bytes)?), kv_heads)
            .with_value_width(size(bytes)?)
            .with_top_k(size(bytes)?);
        if bytes.arbitrary()? {
            op = op.with_scale(number(bytes, kind)? / if kind == Numbers::Any { 1.0 } else { 8.0 });
        }
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let queries = numbers(bytes, kind, product(&[m, op.heads, op.width]))?;
        let keys = numbers(bytes, kind, product(&[n, op.kv_heads, op.width]))?;
        let values = numbers(bytes, kind, product(&[n, op.kv_heads, op.value_width]))?;
        let bias = numbers(bytes, kind, product(&[n, op.heads]))?;
        let gammas = numbers(bytes, kind, product(&[op.heads, 3]))?;
        let values = bytes.arbitrary::<bool>()?.then_some(values);
        let bias = bytes.arbitrary::<bool>()?.then_some(bias);
        let gammas = bytes.arbitrary::<bool>()?.then_some(gammas);
        let kept = Kept::new(bytes, kind, &batch, op.top_k)?;
        Ok(Some(Self { op, batch, queries, keys, values, bias, gammas, kept }))
    }

    fn inputs(&self) -> SelectedAttentionInputs<'_, Host, f32> {
        let (queries, keys) = (Host::view(&self.queries), Host::view(&self.keys));
        let mut inputs = SelectedAttentionInputs::new(queries, keys, self.kept.view());
        inputs.values = self.values.as_deref().map(Host::view);
        inputs.bias = self.bias.as_deref().map(Host::view);
        inputs.gammas = self.gammas.as_deref().map(Host::view);
        inputs
    }
}

pub(super) fn selected(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    if bytes.ratio(1, 4)? {
        return histogram(bytes, kind);
    }
    let Some(call) = Call::new(bytes, kind)? else { return Ok(()) };
    let (op, batch) = (&call.op, &call.batch);
    let exact = reference::selected_attention(op, batch, &call.inputs());
    let got = Cpu::new().selected_attention(op, batch, call.inputs());
    let Some((exact, got)) = both(exact, got) else { return Ok(()) };
    if kind != Numbers::Any {
        // Scores of hundreds, times factors of up to 8, are exact to a thousandth or so: weights are not compared.
        alike(&exact.out, &got, product(&[batch.targets().total(), op.heads, op.value_width]), false);
    }
    Ok(())
}

fn histogram(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<()> {
    let Some(batch) = batch(bytes)? else { return Ok(()) };
    let op = SimilarityHistogram::new(size(bytes)?).with_top_k(size(bytes)?);
    let kept = Kept::new(bytes, kind, &batch, op.top_k)?;
    let exact = reference::similarity_histogram(&op, &batch, &kept.view());
    let got = Cpu::new().similarity_histogram(&op, &batch, kept.view());
    if let Some((exact, got)) = both(exact, got) {
        let used = batch.targets().total() * op.bins();
        assert_eq!(got[..used], exact[..used]);
    }
    Ok(())
}

pub(super) fn selected_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = Call::new(bytes, kind)? else { return Ok(()) };
    let (op, batch, inputs) = (&call.op, &call.batch, call.inputs());
    let m = batch.targets().rows();
    let grad_out = numbers(bytes, kind, product(&[m, op.heads, op.value_width]))?;
    let grad_lse = numbers(bytes, kind, product(&[m, op.heads]))?;
    let grad_lse = bytes.arbitrary::<bool>()?.then_some(grad_lse);
    let asked: [bool; 6] = bytes.arbitrary()?;
    let wide_lse = grad_lse.as_deref().map(wide);
    let exact =
        reference::selected_attention_backward(op, batch, &inputs, &wide(&grad_out), wide_lse.as_deref());
    let mut grad = SelectedAttentionGradOut::new(Host::view(&grad_out));
    grad.lse = grad_lse.as_deref().map(Host::view);
    let lengths = [
        Some(inputs.queries.len()),
        Some(inputs.keys.len()),
        inputs.values.map(|values| values.len()),
        inputs.bias.map(|bias| bias.len()),
        inputs.gammas.map(|gammas| gammas.len()),
        Some(inputs.selection.scores.len()),
    ];
    let place = |i: usize| lengths[i].filter(|_| asked[i]).map(|length| outputs.of(length));
    let mut places = [0, 1, 2, 3, 4, 5].map(place);
    let mut views = places.each_mut().map(|place| place.as_mut().map(|numbers| Host::view_mut(numbers)));
    let any = views.iter().any(Option::is_some);
    let mut grads = SelectedAttentionGradients::<Host, f32>::new();
    grads.queries = views[0].take();
    grads.keys = views[1].take();
    grads.values = views[2].take();
    grads.bias = views[3].take();
    grads.gammas = views[4].take();
    grads.similarities = views[5].take();
    let got = Cpu::new().selected_attention_backward_into(op, batch, inputs, grad, grads);
    let outputs = Outputs { is_wrong: outputs.is_wrong && any };
    let Some((exact, ())) = outputs.both(exact, got) else { return Ok(()) };
    let (n, m) = (batch.histories().total(), batch.targets().total());
    let exact = [
        (exact.queries, m * op.heads * op.width),
        (exact.keys, n * op.kv_heads * op.width),
        (exact.values.unwrap_or_default(), n * op.kv_heads * op.value_width),
        (exact.bias.unwrap_or_default(), n * op.heads),
        (exact.gammas.unwrap_or_default(), 3 * op.heads),
        (exact.similarities, m * op.top_k),
    ];
    for ((exact, used), got) in exact.iter().zip(places) {
        if let Some(got) = got.filter(|_| kind != Numbers::Any) {
            alike(exact, &got, *used, false);
        }
    }
    Ok(())
}
