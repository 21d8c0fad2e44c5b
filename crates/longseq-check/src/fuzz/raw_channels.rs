//! Interest channels whose every argument comes from the bytes.

use arbitrary::{Result, Unstructured};
use longseq::*;

use super::bytes::*;
use super::raw::{alike, both};
use super::raw_backward::{Outputs, wide};

/// A call of interest channels.
struct Call {
    op: InterestChannels,
    batch: Batch,
    axes: Vec<f32>,
    history: Vec<f32>,
}

impl Call {
    fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let Some(batch) = batch(bytes)? else { return Ok(None) };
        let (width, channels) = (size(bytes)?, size(bytes)?);
        // Mostly no more than a row has numbers.
        let channels = if bytes.ratio(7, 8)? { channels.min(width.max(1)) } else { channels };
        let op = InterestChannels::new(width)
            .with_channels(channels)
            .with_top_k(size(bytes)?)
            .with_among(*bytes.choose(&[KeptAmong::Routed, KeptAmong::All])?)
            .with_normalise(bytes.arbitrary()?)
            .with_dependent(*bytes.choose(&[DependentAxes::Error, DependentAxes::Zero])?);
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let axes = numbers(bytes, kind, product(&[m, op.channels, op.width]))?;
        let history = numbers(bytes, kind, product(&[n, op.width]))?;
        Ok(Some(Self { op, batch, axes, history }))
    }

    fn inputs(&self) -> InterestChannelsInputs<'_, Host, f32> {
        InterestChannelsInputs::new(Host::view(&self.axes), Host::view(&self.history))
    }
}

/// Where scores are near each other, rounding decides what goes where: what both answer is compared by its size alone.
pub(super) fn interest_channels(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(call) = Call::new(bytes, kind)? else { return Ok(()) };
    // What the reference keeps takes memory for every slot.
    if product(&[call.batch.targets().rows(), call.op.channels, call.op.top_k]) > 1 << 20 {
        let _ = Cpu::new().interest_channels(&call.op, &call.batch, call.inputs());
        return Ok(());
    }
    let exact = reference::interest_channels(&call.op, &call.batch, &call.inputs());
    let got = Cpu::new().interest_channels(&call.op, &call.batch, call.inputs());
    if let Some((exact, got)) = both(exact, got) {
        assert_eq!(exact.out.len(), got.len());
    }
    Ok(())
}

pub(super) fn interest_channels_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = Call::new(bytes, kind)? else { return Ok(()) };
    let (op, batch, inputs) = (&call.op, &call.batch, call.inputs());
    let lists = product(&[batch.targets().rows(), op.channels]);
    // Mostly inside: of the shortest history that has any behaviour, and of the slots.
    let lengths = batch.histories().ranges().map(|history| history.len());
    let shortest = lengths.filter(|&length| length > 0).min().unwrap_or(1);
    let has_empty = batch.histories().ranges().any(|history| history.is_empty());
    let most = if has_empty { 1 } else { op.top_k.saturating_add(1) };
    let positions = ids(bytes, product(&[lists, op.top_k]), shortest)?;
    let (scores, counts) = (vec![0.0; positions.len()], ids(bytes, lists, most)?);
    let grad_out = numbers(bytes, kind, product(&[lists, op.width]))?;
    let asked: [bool; 2] = bytes.arbitrary()?;
    let kept = Selection::new(Host::view(&positions), Host::view(&scores), Host::view(&counts));
    let exact = reference::interest_channels_backward(op, batch, &inputs, &kept, &wide(&grad_out));
    let mut places = [inputs.axes.len(), inputs.history.len()].map(|length| outputs.of(length));
    let [axes, history] = &mut places;
    let mut grads = InterestChannelsGradients::<Host, f32>::new();
    grads.axes = asked[0].then(|| Host::view_mut(axes));
    grads.history = asked[1].then(|| Host::view_mut(history));
    let (saved, grad) = (InterestChannelsSaved::new(kept), Host::view(&grad_out));
    let got = Cpu::new().interest_channels_backward_into(op, batch, inputs, saved, grad, grads);
    let outputs = Outputs { is_wrong: outputs.is_wrong && asked.contains(&true) };
    let Some((exact, ())) = outputs.both(exact, got) else { return Ok(()) };
    let used = [batch.targets().total() * op.channels * op.width, batch.histories().total() * op.width];
    for (i, exact) in [exact.axes, exact.history].iter().enumerate() {
        if asked[i] && kind != Numbers::Any {
            alike(exact, &places[i], used[i], false);
        }
    }
    Ok(())
}
