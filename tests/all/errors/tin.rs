//! TIN and its gradients.

use longseq::*;

use super::{assert_error, batch};

static NUMBERS: [f32; 64] = [0.0; 64];
static PLACES: [u32; 8] = [0; 8];

/// Lengths of candidates, behaviours, positions, given positions of behaviours and of candidates (0: not given).
const INPUTS: [usize; 5] = [8, 12, 20, 3, 2];
/// Lengths of output, means and log-sum-exps.
const OUTPUTS: [usize; 3] = [8, 8, 2];
/// Lengths of means, log-sum-exps and the gradient that come in, then of the gradients.
const GRADIENTS: [usize; 6] = [8, 2, 8, 8, 12, 20];

/// Inputs of three behaviours and two candidates.
fn inputs(lengths: [usize; 5]) -> TinInputs<'static, Host, f32> {
    let part = |length: usize| Host::view(&NUMBERS[..length]);
    let given = |length: usize| (length > 0).then(|| Host::view(&PLACES[..length]));
    let mut inputs = TinInputs::new(part(lengths[0]), part(lengths[1]), part(lengths[2]));
    (inputs.history_positions, inputs.target_positions) = (given(lengths[3]), given(lengths[4]));
    inputs
}

fn tin(op: &Tin, lengths: [usize; 5], outputs: [usize; 3]) -> Result<()> {
    let [mut out, mut pooled, mut lse] = outputs.map(|length| vec![0.0; length]);
    let outputs = TinOutputs::new(Host::view_mut(&mut out))
        .with_saved(Host::view_mut(&mut pooled), Host::view_mut(&mut lse));
    Cpu::new().tin_into(op, &batch(&[3], &[2]), inputs(lengths), outputs)
}

fn gradients(op: &Tin, lengths: [usize; 5], gradients: [usize; 6]) -> Result<()> {
    let part = |length: usize| Host::view(&NUMBERS[..length]);
    let [.., mut targets, mut history, mut positions] = gradients.map(|length| vec![0.0f32; length]);
    let grads = TinGradients::new()
        .with_targets(Host::view_mut(&mut targets))
        .with_history(Host::view_mut(&mut history))
        .with_positions(Host::view_mut(&mut positions));
    let saved = TinSaved::new(part(gradients[0]), part(gradients[1]));
    let (batch, inputs) = (batch(&[3], &[2]), inputs(lengths));
    Cpu::new().tin_backward_into(op, &batch, inputs, saved, part(gradients[2]), grads)
}

fn op() -> Tin {
    Tin::new(4).with_positions(5)
}

#[test]
fn tin_checks_its_parameters() {
    tin(&op(), INPUTS, OUTPUTS).expect("a valid call");
    gradients(&op(), INPUTS, GRADIENTS).expect("a valid call");
    for (op, expected) in [
        (Tin::new(0), "width: expected at least 1, got 0"),
        (op().with_positions(0), "positions: expected at least 1, got 0"),
        (op().with_scale(f32::INFINITY), "scale: expected a finite number, got inf"),
    ] {
        assert_error(tin(&op, INPUTS, OUTPUTS), &format!("tin: {expected}"));
        assert_error(gradients(&op, INPUTS, GRADIENTS), &format!("tin_backward: {expected}"));
    }
}

#[test]
fn tin_checks_its_buffers() {
    for (place, length, expected) in [
        (0, 7, "targets: expected [M, d] = [2, 4], 8 elements, got 7 elements"),
        (1, 13, "history: expected [N, d] = [3, 4], 12 elements, got 13 elements"),
        (2, 16, "positions: expected [P, d] = [5, 4], 20 elements, got 16 elements"),
        (3, 4, "history_positions: expected [N] = [3], 3 elements, got 4 elements"),
        (4, 1, "target_positions: expected [M] = [2], 2 elements, got 1 elements"),
    ] {
        let mut lengths = INPUTS;
        lengths[place] = length;
        assert_error(tin(&op(), lengths, OUTPUTS), &format!("tin: {expected}"));
        assert_error(gradients(&op(), lengths, GRADIENTS), &format!("tin_backward: {expected}"));
    }
    for (place, length, expected) in [
        (0, 9, "out: expected [M, d] = [2, 4], 8 elements, got 9 elements"),
        (1, 7, "pooled: expected [M, d] = [2, 4], 8 elements, got 7 elements"),
        (2, 1, "lse: expected [M] = [2], 2 elements, got 1 elements"),
    ] {
        let mut lengths = OUTPUTS;
        lengths[place] = length;
        assert_error(tin(&op(), INPUTS, lengths), &format!("tin: {expected}"));
    }
    for (place, length, expected) in [
        (0, 9, "saved.pooled: expected [M, d] = [2, 4], 8 elements, got 9 elements"),
        (1, 3, "saved.lse: expected [M] = [2], 2 elements, got 3 elements"),
        (2, 7, "grad_out: expected [M, d] = [2, 4], 8 elements, got 7 elements"),
        (3, 7, "grads.targets: expected [M, d] = [2, 4], 8 elements, got 7 elements"),
        (4, 13, "grads.history: expected [N, d] = [3, 4], 12 elements, got 13 elements"),
        (5, 19, "grads.positions: expected [P, d] = [5, 4], 20 elements, got 19 elements"),
    ] {
        let mut lengths = GRADIENTS;
        lengths[place] = length;
        assert_error(gradients(&op(), INPUTS, lengths), &format!("tin_backward: {expected}"));
    }
}

#[test]
fn tin_checks_given_positions() {
    let rows = |length: usize| Host::view(&NUMBERS[..length]);
    let run = |history: [u32; 3], targets: [u32; 2]| {
        let inputs = TinInputs::new(rows(8), rows(12), rows(20))
            .with_history_positions(Host::view(&history))
            .with_target_positions(Host::view(&targets));
        Cpu::new().tin(&op(), &batch(&[3], &[2]), inputs)
    };
    run([0, 4, 4], [4, 0]).expect("a valid call");
    assert_error(run([0, 5, 9], [5, 0]), "tin: history_positions[1] is 5, which must be below 5");
    assert_error(
        run([0, 4, 4], [0, u32::MAX]),
        "tin: target_positions[1] is 4294967295, which must be below 5",
    );
}
