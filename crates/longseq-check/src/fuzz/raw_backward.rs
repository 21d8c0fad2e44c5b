//! Backward passes whose every argument comes from the bytes, on the CPU backend and in the reference.
//!
//! A gradient that goes out has its right size, except in a few calls, which must be refused. Numbers are compared where the formula
//! is linear in numbers that are exact; elsewhere, what is not finite: the exact bounds are those of the cases.

use arbitrary::{Result, Unstructured};
use longseq::*;

use super::bytes::*;
use super::raw::{Attention, Hashed, Layer, Network, alike, both};

/// Gradients that go out.
pub(super) struct Outputs {
    /// One number more than is right, in all of them.
    pub(super) is_wrong: bool,
}

impl Outputs {
    pub(super) fn new(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self { is_wrong: bytes.ratio(1, 16)? })
    }

    pub(super) fn of(&self, length: usize) -> Vec<f32> {
        vec![0.0; length + usize::from(self.is_wrong)]
    }

    /// What both answered; nothing where the backend was to refuse.
    pub(super) fn both<E, G>(&self, exact: longseq::Result<E>, got: longseq::Result<G>) -> Option<(E, G)> {
        if self.is_wrong {
            assert!(got.is_err(), "a gradient of the wrong size was taken");
            return None;
        }
        both(exact, got)
    }
}

pub(super) fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|&x| x.into()).collect()
}

pub(super) fn narrow(numbers: Vec<f64>) -> Vec<f32> {
    numbers.into_iter().map(|x| x as f32).collect()
}

/// A number of rows and columns that a small buffer can have.
pub(super) fn area(rows: usize, width: usize) -> usize {
    product(&[rows, width]).min(1 << 13)
}

pub(super) fn target_attention_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    if bytes.ratio(1, 8)? {
        return merge_backward(bytes);
    }
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = Attention::new(bytes, kind)? else { return Ok(()) };
    let (op, batch, inputs) = (&call.op, &call.batch, call.inputs());
    let m = batch.targets().rows();
    let grad_out = numbers(bytes, kind, product(&[m, op.heads, op.value_width]))?;
    let grad_lse = numbers(bytes, kind, product(&[m, op.heads]))?;
    let grad_lse = bytes.arbitrary::<bool>()?.then_some(grad_lse);
    let asked: [bool; 4] = bytes.arbitrary()?;
    let forward = reference::target_attention(op, batch, &inputs).ok();
    let (out, lse) = forward.map_or_else(Default::default, |saved| (narrow(saved.out), narrow(saved.lse)));
    let saved = match op.weighting {
        Weighting::Softmax => TargetAttentionSaved::new(Host::view(&out), Host::view(&lse)),
        _ => TargetAttentionSaved::none(),
    };
    let wide_lse = grad_lse.as_deref().map(wide);
    let exact =
        reference::target_attention_backward(op, batch, &inputs, &wide(&grad_out), wide_lse.as_deref());
    let mut grad = TargetAttentionGradOut::new(Host::view(&grad_out));
    grad.lse = grad_lse.as_deref().map(Host::view);
    let lengths = [
        Some(inputs.queries.len()),
        Some(inputs.keys.len()),
        inputs.values.map(|values| values.len()),
        inputs.bias.map(|bias| bias.len()),
    ];
    let place = |i: usize| lengths[i].filter(|_| asked[i]).map(|length| outputs.of(length));
    let mut places = [0, 1, 2, 3].map(place);
    let mut views = places.each_mut().map(|place| place.as_mut().map(|numbers| Host::view_mut(numbers)));
    let any = views.iter().any(Option::is_some);
    let mut grads = TargetAttentionGradients::<Host, f32>::new();
    grads.queries = views[0].take();
    grads.keys = views[1].take();
    grads.values = views[2].take();
    grads.bias = views[3].take();
    let got = Cpu::new().target_attention_backward_into(op, batch, inputs, saved, grad, grads);
    let outputs = Outputs { is_wrong: outputs.is_wrong && any };
    let Some((exact, ())) = outputs.both(exact, got) else { return Ok(()) };
    let (n, m) = (batch.histories().total(), batch.targets().total());
    let exact = [
        (exact.queries, m * op.heads * op.width),
        (exact.keys, n * op.kv_heads * op.width),
        (exact.values.unwrap_or_default(), n * op.kv_heads * op.value_width),
        (exact.bias.unwrap_or_default(), n * op.heads),
    ];
    for ((exact, used), got) in exact.iter().zip(places) {
        if let Some(got) = got.filter(|_| kind != Numbers::Any) {
            alike(exact, &got, *used, false);
        }
    }
    Ok(())
}

fn merge_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let (op, rows) = (TargetAttention::new(size(bytes)?), size(bytes)?.min(300));
    let width = product(&[rows, op.value_width]);
    let mut part = || -> Result<_> { Ok((numbers(bytes, kind, width)?, numbers(bytes, kind, rows)?)) };
    let (first, second, grad) = (part()?, part()?, part()?);
    let parts = [&first, &second].map(|(out, lse)| PartialAttention::new(Host::view(out), Host::view(lse)));
    let exact =
        reference::merge_attention_backward(&op, parts[0], parts[1], &wide(&grad.0), Some(&wide(&grad.1)));
    let grad_out = TargetAttentionGradOut::new(Host::view(&grad.0)).with_lse(Host::view(&grad.1));
    let place = || (outputs.of(area(rows, op.value_width)), outputs.of(rows));
    let mut places = [place(), place()];
    let grads = places.each_mut().map(|(out, lse)| {
        PartialAttentionGradients::<Host, f32>::new()
            .with_out(Host::view_mut(out))
            .with_lse(Host::view_mut(lse))
    });
    let [first_grads, second_grads] = grads;
    let cpu = Cpu::new();
    let got = cpu.merge_attention_backward_into(&op, parts[0], parts[1], grad_out, first_grads, second_grads);
    let Some((exact, ())) = outputs.both(exact, got) else { return Ok(()) };
    for (exact, (out, lse)) in [exact.0, exact.1].iter().zip(&places).filter(|_| kind != Numbers::Any) {
        alike(&exact.out, out, usize::MAX, false);
        alike(&exact.lse, lse, usize::MAX, false);
    }
    Ok(())
}

pub(super) fn din_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = Network::new(bytes, kind)? else { return Ok(()) };
    if bytes.ratio(1, 4)? {
        return din_statistics(bytes, kind, &outputs, &call);
    }
    let (op, batch, hidden) = (&call.op, &call.batch, call.hidden());
    let inputs = call.inputs(&hidden);
    let grad_out = numbers(bytes, kind, product(&[batch.targets().rows(), op.width]))?;
    let exact = reference::din_backward(op, batch, &inputs, &wide(&grad_out));
    let mut outside = [
        outputs.of(inputs.targets.len()),
        outputs.of(inputs.history.len()),
        outputs.of(inputs.output_weight.len()),
        outputs.of(1),
    ];
    let inside = |layer: &Layer| {
        let vectors = [0, 0, 1, 3][usize::from(layer.activation)];
        let mut all = vec![outputs.of(layer.weight.len()), outputs.of(layer.bias.len())];
        all.extend((0..vectors).map(|_| outputs.of(layer.vector.len())));
        all
    };
    let mut layers: Vec<Vec<Vec<f32>>> = call.layers.iter().map(inside).collect();
    let mut layer_grads: Vec<_> = layers
        .iter_mut()
        .map(|places| {
            let mut views = places.iter_mut().map(|numbers| Host::view_mut(numbers));
            let mut grads = DinLayerGradients::<Host, f32>::new();
            (grads.weight, grads.bias) = (views.next(), views.next());
            (grads.alpha, grads.gain, grads.shift) = (views.next(), views.next(), views.next());
            grads
        })
        .collect();
    let [targets, history, output_weight, output_bias] =
        outside.each_mut().map(|numbers| Host::view_mut(numbers));
    let grads = DinGradients::new()
        .with_targets(targets)
        .with_history(history)
        .with_output_weight(output_weight)
        .with_output_bias(output_bias)
        .with_hidden(&mut layer_grads);
    let got = Cpu::new().din_backward_into(op, batch, inputs, Host::view(&grad_out), grads);
    let Some((exact, ())) = outputs.both(exact, got) else { return Ok(()) };
    if kind == Numbers::Any {
        return Ok(());
    }
    alike(&exact.targets, &outside[0], batch.targets().total() * op.width, false);
    alike(&exact.history, &outside[1], batch.histories().total() * op.width, false);
    alike(&exact.output_weight, &outside[2], usize::MAX, false);
    alike(&exact.output_bias, &outside[3], usize::MAX, false);
    for (exact, got) in exact.hidden.iter().zip(&layers) {
        let vectors = match &exact.activation {
            Activation::Prelu { alpha } => vec![alpha],
            Activation::Dice { gain, shift, alpha } => vec![alpha, gain, shift],
            _ => vec![],
        };
        for (exact, got) in [&exact.weight, &exact.bias].into_iter().chain(vectors).zip(got) {
            alike(exact, got, usize::MAX, false);
        }
    }
    Ok(())
}

fn din_statistics(
    bytes: &mut Unstructured<'_>,
    kind: Numbers,
    outputs: &Outputs,
    call: &Network,
) -> Result<()> {
    let (op, batch, hidden) = (&call.op, &call.batch, call.hidden());
    let (inputs, layer) = (call.inputs(&hidden), bytes.int_in_range(0..=3)?);
    let exact = reference::din_statistics(op, batch, &inputs);
    let units = call.layers.get(layer).map_or(0, |layer| layer.bias.len());
    let (mut mean, mut squares) = (outputs.of(units), outputs.of(units));
    let out = DinStatistics::new(Host::view_mut(&mut mean), Host::view_mut(&mut squares));
    let got = Cpu::new().din_statistics_into(op, batch, inputs, layer, out);
    if exact.is_ok() && layer >= call.layers.len() {
        assert!(got.is_err(), "statistics of a layer that is not there");
        return Ok(());
    }
    if let Some((exact, ())) = outputs.both(exact, got).filter(|_| kind != Numbers::Any) {
        alike(&exact[layer].mean, &mean, usize::MAX, false);
        alike(&exact[layer].centred_squares, &squares, usize::MAX, false);
    }
    Ok(())
}

pub(super) fn sdim_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = Hashed::new(bytes, kind)? else { return Ok(()) };
    let (op, batch, cpu) = (&call.op, &call.batch, Cpu::new());
    let (histories, targets) = (batch.histories(), batch.targets());
    // Sums of multiples of 1/16 are exact, so no bucket row is nearly 0.
    let (mild, compared) = (kind == Numbers::Mild, kind != Numbers::Any);
    let grad_out = numbers(bytes, kind, product(&[targets.rows(), op.width]))?;
    let (used, rows) = (product(&[histories.total(), op.width]), area(histories.rows(), op.width));
    if call.is_small() {
        let length = op.table_length(batch.users()).unwrap_or(0);
        let (table, grad_table) = (numbers(bytes, kind, length)?, numbers(bytes, kind, length)?);
        let inputs = SdimQueryInputs::<_, f32>::new(Host::view(&table), call.hashes()[1]);
        let exact = reference::sdim_query_backward(op, targets, &inputs, &wide(&grad_out));
        let mut got = outputs.of(length);
        let (from, to) = (Host::view(&grad_out), Host::view_mut(&mut got));
        let made = cpu.sdim_query_backward_into(op, targets, inputs, from, to);
        if let Some((exact, ())) = outputs.both(exact, made).filter(|_| compared) {
            alike(&exact, &got, usize::MAX, mild);
        }
        let exact = reference::sdim_encode_backward(op, histories, &call.encode(), &wide(&grad_table));
        let mut got = outputs.of(rows);
        let (from, to) = (Host::view(&grad_table), Host::view_mut(&mut got));
        let made = cpu.sdim_encode_backward_into::<f32, f32>(op, histories, call.encode(), from, to);
        if let Some((exact, ())) = outputs.both(exact, made).filter(|_| compared) {
            alike(&exact, &got, used, mild);
        }
    }
    let exact = reference::sdim_attend_backward(op, batch, &call.attend(), &wide(&grad_out));
    let mut got = outputs.of(rows);
    let (from, to) = (Host::view(&grad_out), Host::view_mut(&mut got));
    let made = cpu.sdim_attend_backward_into::<f32, f32>(op, batch, call.attend(), from, to);
    if let Some((exact, ())) = outputs.both(exact, made).filter(|_| compared) {
        alike(&exact, &got, used, mild);
    }
    Ok(())
}
