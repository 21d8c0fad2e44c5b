//! Interest channels that keep all behaviours of a long history.

use longseq::*;

use super::{Sum, TENTH, all, batch, check_all, download, length};
use crate::case::Rules;

/// A channel along the first number of a row of two; rows of two tenths.
struct Inputs<B: Backend> {
    op: InterestChannels,
    axes: Buffer<B, f32>,
    history: Buffer<B, f32>,
}

impl<B: Backend> Inputs<B> {
    fn new(backend: &B, behaviours: usize, candidates: usize) -> Result<Self> {
        Ok(Self {
            op: InterestChannels::new(2).with_channels(1).with_top_k(behaviours),
            axes: backend.upload(&[2.0f32, 0.0].repeat(candidates))?,
            history: all::<B, f32>(backend, TENTH, 2 * behaviours)?,
        })
    }

    fn views(&self, backend: &B) -> InterestChannelsInputs<'_, B::Memory, f32> {
        InterestChannelsInputs::new(backend.view(&self.axes), backend.view(&self.history))
    }
}

pub(super) fn adds_up_channels<B: Backend>(backend: &B, rules: Rules) {
    let length = length(rules);
    let run = || -> Result<Vec<Sum>> {
        let inputs = Inputs::new(backend, length, 1)?;
        let batch = batch(backend, length, 1)?;
        let out = backend.interest_channels(&inputs.op, &batch, inputs.views(backend))?;
        Ok(vec![Sum::new("out", download(backend, &out)?, f64::from(TENTH) * f64::from(TENTH), length)])
    };
    check_all("all behaviours kept", run(), rules);
}

/// For a `grad_out` of 1: slopes of two tenths.
fn gradients<B: Backend>(backend: &B, behaviours: usize, candidates: usize) -> Result<Vec<Sum>> {
    let inputs = Inputs::new(backend, behaviours, candidates)?;
    let slots = behaviours * candidates;
    let positions: Vec<u32> = (0..slots).map(|slot| (slot % behaviours) as u32).collect();
    let (positions, scores) = (backend.upload(&positions)?, all::<B, f32>(backend, TENTH, slots)?);
    let counts = backend.upload(&vec![behaviours as u32; candidates])?;
    let grad_out = all::<B, f32>(backend, 1.0, 2 * candidates)?;
    let (mut axes, mut history) =
        (backend.zeros::<f32>(2 * candidates)?, backend.zeros::<f32>(2 * behaviours)?);
    let grads = InterestChannelsGradients::<B::Memory, f32>::new()
        .with_axes(backend.view_mut(&mut axes))
        .with_history(backend.view_mut(&mut history));
    let kept = Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
    let batch = batch(backend, behaviours, candidates)?;
    let (views, saved) = (inputs.views(backend), InterestChannelsSaved::new(kept));
    backend.interest_channels_backward_into(
        &inputs.op,
        &batch,
        views,
        saved,
        backend.view(&grad_out),
        grads,
    )?;
    let every_second =
        |rows: Vec<f32>, first: usize| rows.into_iter().skip(first).step_by(2).collect::<Vec<f32>>();
    let (share, tenth) = (candidates as f64 / behaviours as f64, f64::from(TENTH));
    let history = download(backend, &history)?;
    Ok(vec![
        // What is along the axis is lost; the axis' length is 2.
        Sum::new("axes", every_second(download(backend, &axes)?, 1), tenth * tenth, behaviours),
        Sum::new("history", every_second(history.clone(), 0), share * 3.0 * tenth, candidates),
        Sum::new("history", every_second(history, 1), share * tenth, candidates),
    ])
}

pub(super) fn adds_up_gradients_of_channels<B: Backend>(backend: &B, rules: Rules) {
    let long = length(rules);
    for (behaviours, candidates) in [(long, 1), (3, long)] {
        let case = format!("{behaviours} behaviours, {candidates} candidates");
        check_all(&case, gradients(backend, behaviours, candidates), rules);
    }
}
