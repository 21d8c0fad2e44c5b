//! TIN and its gradients whose every argument comes from the bytes.

use arbitrary::{Result, Unstructured};
use longseq::*;

use super::bytes::*;
use super::raw::{alike, both};
use super::raw_backward::{Outputs, narrow, wide};

/// A call of TIN.
struct Call {
    op: Tin,
    batch: Batch,
    targets: Vec<f32>,
    history: Vec<f32>,
    positions: Vec<f32>,
    history_positions: Option<Vec<u32>>,
    target_positions: Option<Vec<u32>>,
}

impl Call {
    fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let Some(batch) = batch(bytes)? else { return Ok(None) };
        let mut op =
            Tin::new(size(bytes)?).with_positions(size(bytes)?).with_multiply_target(bytes.arbitrary()?);
        if bytes.arbitrary()? {
            op = op.with_scale(number(bytes, kind)? / if kind == Numbers::Any { 1.0 } else { 8.0 });
        }
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let targets = numbers(bytes, kind, product(&[m, op.width]))?;
        let history = numbers(bytes, kind, product(&[n, op.width]))?;
        let positions = numbers(bytes, kind, product(&[op.positions, op.width]))?;
        let history_positions = ids(bytes, n, op.positions)?;
        let target_positions = ids(bytes, m, op.positions)?;
        let history_positions = bytes.arbitrary::<bool>()?.then_some(history_positions);
        let target_positions = bytes.arbitrary::<bool>()?.then_some(target_positions);
        Ok(Some(Self { op, batch, targets, history, positions, history_positions, target_positions }))
    }

    fn inputs(&self) -> TinInputs<'_, Host, f32> {
        let (targets, history) = (Host::view(&self.targets), Host::view(&self.history));
        let mut inputs = TinInputs::new(targets, history, Host::view(&self.positions));
        inputs.history_positions = self.history_positions.as_deref().map(Host::view);
        inputs.target_positions = self.target_positions.as_deref().map(Host::view);
        inputs
    }
}

pub(super) fn tin(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(call) = Call::new(bytes, kind)? else { return Ok(()) };
    let exact = reference::tin(&call.op, &call.batch, &call.inputs());
    let got = Cpu::new().tin(&call.op, &call.batch, call.inputs());
    let Some((exact, got)) = both(exact, got) else { return Ok(()) };
    if kind != Numbers::Any {
        // Scores of hundreds are exact to a thousandth or so: weights are not compared.
        alike(&exact.out, &got, product(&[call.batch.targets().total(), call.op.width]), false);
    }
    Ok(())
}

pub(super) fn tin_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = Call::new(bytes, kind)? else { return Ok(()) };
    let (op, batch, inputs) = (&call.op, &call.batch, call.inputs());
    let grad_out = numbers(bytes, kind, product(&[batch.targets().rows(), op.width]))?;
    let asked: [bool; 3] = bytes.arbitrary()?;
    let nothing = || (vec![0.0; call.targets.len()], vec![0.0; batch.targets().rows()]);
    let forward = reference::tin(op, batch, &inputs).ok();
    let (pooled, lse) = forward.map_or_else(nothing, |saved| (narrow(saved.pooled), narrow(saved.lse)));
    let exact = reference::tin_backward(op, batch, &inputs, &wide(&grad_out));
    let lengths = [inputs.targets.len(), inputs.history.len(), inputs.positions.len()];
    let mut places = [0, 1, 2].map(|i: usize| asked[i].then(|| outputs.of(lengths[i])));
    let mut views = places.each_mut().map(|place| place.as_mut().map(|numbers| Host::view_mut(numbers)));
    let any = views.iter().any(Option::is_some);
    let mut grads = TinGradients::<Host, f32>::new();
    grads.targets = views[0].take();
    grads.history = views[1].take();
    grads.positions = views[2].take();
    let saved = TinSaved::new(Host::view(&pooled), Host::view(&lse));
    let got = Cpu::new().tin_backward_into(op, batch, inputs, saved, Host::view(&grad_out), grads);
    let outputs = Outputs { is_wrong: outputs.is_wrong && any };
    let Some((exact, ())) = outputs.both(exact, got) else { return Ok(()) };
    let (n, m) = (batch.histories().total(), batch.targets().total());
    let exact = [
        (exact.targets, m * op.width),
        (exact.history, n * op.width),
        (exact.positions, op.positions * op.width),
    ];
    for ((exact, used), got) in exact.iter().zip(places) {
        if let Some(got) = got.filter(|_| kind != Numbers::Any) {
            alike(exact, &got, *used, false);
        }
    }
    Ok(())
}
