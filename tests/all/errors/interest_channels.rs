//! Interest channels and their gradients.

use longseq::*;

use super::{assert_error, batch};

static NUMBERS: [f32; 16] = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
static PLACES: [u32; 16] = [0; 16];

fn op() -> InterestChannels {
    InterestChannels::new(2).with_channels(2).with_top_k(3)
}

/// Lengths of axes, history, output, positions, scores, counts, for three behaviours and two candidates.
const RIGHT: [usize; 6] = [8, 6, 8, 12, 12, 4];

fn run(op: InterestChannels, lengths: [usize; 6]) -> Result<()> {
    let part = |length: usize| Host::view(&NUMBERS[..length]);
    let inputs = InterestChannelsInputs::new(part(lengths[0]), part(lengths[1]));
    let (mut out, mut scores) = (vec![0.0; lengths[2]], vec![0.0; lengths[4]]);
    let (mut positions, mut counts) = (vec![0; lengths[3]], vec![0; lengths[5]]);
    let kept = SelectionMut::new(
        Host::view_mut(&mut positions),
        Host::view_mut(&mut scores),
        Host::view_mut(&mut counts),
    );
    let outputs = InterestChannelsOutputs::new(Host::view_mut(&mut out)).with_kept(kept);
    Cpu::new().interest_channels_into(&op, &batch(&[3], &[2]), inputs, outputs)
}

#[test]
fn parameters_are_checked() {
    run(op(), RIGHT).expect("a valid call");
    for (op, expected) in [
        (InterestChannels::new(0).with_channels(2), "width: expected at least 1, got 0"),
        (op().with_channels(0), "channels: expected at least 1, got 0"),
        (op().with_top_k(0), "top_k: expected at least 1, got 0"),
        (op().with_channels(3), "channels: expected at most width = 2, as axes are at right angles, got 3"),
    ] {
        assert_error(run(op, RIGHT), &format!("interest_channels: {expected}"));
    }
}

#[test]
fn buffers_are_checked() {
    for (place, length, expected) in [
        (0, 7, "axes: expected [M, c, d] = [2, 2, 2], 8 elements, got 7 elements"),
        (1, 5, "history: expected [N, d] = [3, 2], 6 elements, got 5 elements"),
        (2, 9, "out: expected [M, c, d] = [2, 2, 2], 8 elements, got 9 elements"),
        (3, 11, "kept.positions: expected [M, c, K] = [2, 2, 3], 12 elements, got 11 elements"),
        (4, 13, "kept.scores: expected [M, c, K] = [2, 2, 3], 12 elements, got 13 elements"),
        (5, 2, "kept.counts: expected [M, c] = [2, 2], 4 elements, got 2 elements"),
    ] {
        let mut lengths = RIGHT;
        lengths[place] = length;
        assert_error(run(op(), lengths), &format!("interest_channels: {expected}"));
    }
}

#[test]
fn axes_that_depend_on_each_other_are_named() {
    let axes = [1.0_f32, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 3.0];
    let inputs = InterestChannelsInputs::new(Host::view(&axes), Host::view(&NUMBERS[..6]));
    let batch = batch(&[3], &[2]);
    let rest = "axes: expected axes that do not depend on each other (or DependentAxes::Zero), got axis 1 of candidate 1, which depends on those before it";
    assert_error(Cpu::new().interest_channels(&op(), &batch, inputs), &format!("interest_channels: {rest}"));
    assert_error(reference::interest_channels(&op(), &batch, &inputs), &format!("interest_channels: {rest}"));
    let zero = op().with_dependent(DependentAxes::Zero);
    Cpu::new().interest_channels(&zero, &batch, inputs).expect("a zero channel");
    let kept =
        Selection::new(Host::view(&PLACES[..12]), Host::view(&NUMBERS[..12]), Host::view(&PLACES[..4]));
    let (saved, grad) = (InterestChannelsSaved::new(kept), Host::view(&NUMBERS[..8]));
    let grads = InterestChannelsGradients::<Host, f32>::new();
    assert_error(
        Cpu::new().interest_channels_backward_into(&op(), &batch, inputs, saved, grad, grads),
        &format!("interest_channels_backward: {rest}"),
    );
}

/// Lengths of positions, scores, counts, the gradient of the output, and the gradients of axes and history.
fn backward(lengths: [usize; 6], count: u32, position: u32) -> Result<()> {
    let inputs = InterestChannelsInputs::new(Host::view(&NUMBERS[..8]), Host::view(&NUMBERS[..6]));
    let (mut positions, mut counts) = (vec![0; lengths[0]], vec![0; lengths[2]]);
    (positions[4], counts[1]) = (position, count);
    let kept =
        Selection::new(Host::view(&positions), Host::view(&NUMBERS[..lengths[1]]), Host::view(&counts));
    let (mut axes, mut history) = (vec![0.0; lengths[4]], vec![0.0; lengths[5]]);
    let grads = InterestChannelsGradients::<Host, f32>::new()
        .with_axes(Host::view_mut(&mut axes))
        .with_history(Host::view_mut(&mut history));
    let (saved, grad) = (InterestChannelsSaved::new(kept), Host::view(&NUMBERS[..lengths[3]]));
    Cpu::new().interest_channels_backward_into(&op(), &batch(&[3], &[2]), inputs, saved, grad, grads)
}

#[test]
fn gradients_check_what_they_get() {
    let right = [12, 12, 4, 8, 8, 6];
    backward(right, 2, 2).expect("a valid call");
    for (place, length, expected) in [
        (0, 13, "saved.kept.positions: expected [M, c, K] = [2, 2, 3], 12 elements, got 13 elements"),
        (1, 11, "saved.kept.scores: expected [M, c, K] = [2, 2, 3], 12 elements, got 11 elements"),
        (2, 5, "saved.kept.counts: expected [M, c] = [2, 2], 4 elements, got 5 elements"),
        (3, 7, "grad_out: expected [M, c, d] = [2, 2, 2], 8 elements, got 7 elements"),
        (4, 9, "grads.axes: expected [M, c, d] = [2, 2, 2], 8 elements, got 9 elements"),
        (5, 5, "grads.history: expected [N, d] = [3, 2], 6 elements, got 5 elements"),
    ] {
        let mut lengths = right;
        lengths[place] = length;
        assert_error(backward(lengths, 2, 2), &format!("interest_channels_backward: {expected}"));
    }
    let of = |expected: &str| format!("interest_channels_backward: {expected}");
    assert_error(backward(right, 2, 3), &of("positions[4] is 3, which must be below 3"));
    assert_error(backward(right, 4, 2), &of("counts[1] is 4, which must be below 4"));
}
