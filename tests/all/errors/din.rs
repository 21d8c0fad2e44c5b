//! DIN.

use longseq::*;

use super::{assert_error, batch};

/// Lengths: targets, history, weight, bias, α, output weight, output bias, out.
fn din(op: &Din, layers: usize, lengths: [usize; 8]) -> Result<()> {
    let [targets, history, weight, bias, alpha, output_weight, output_bias, mut out] =
        lengths.map(|length| vec![0.0f32; length]);
    let layer = DinLayer::new(
        Host::view(&weight),
        Host::view(&bias),
        Activation::Prelu { alpha: Host::view(&alpha) },
    );
    let hidden = vec![layer; layers];
    let inputs = DinInputs::new(
        Host::view(&targets),
        Host::view(&history),
        &hidden,
        Host::view(&output_weight),
        Host::view(&output_bias),
    );
    Cpu::new().din_into(op, &batch(&[3], &[2]), inputs, Host::view_mut(&mut out))
}

#[test]
fn din_checks_its_parameters_and_buffers() {
    let op = Din::new(4);
    din(&op, 1, [8, 12, 80, 5, 5, 5, 1, 8]).expect("a valid call");
    let right = [8, 12, 80, 5, 5, 5, 1, 8];
    assert_error(din(&Din::new(0), 1, right), "din: width: expected at least 1, got 0");
    for layers in [0, 4] {
        let expected = format!(
            "din: a network of {layers} hidden layers is not supported; supported: 1 to 3 hidden layers"
        );
        assert_error(din(&op, layers, right), &expected);
    }
    assert!(matches!(din(&Din::new(usize::MAX / 2), 1, right), Err(Error::Limit { .. })));
    for (layers, lengths, expected) in [
        (1, [7, 12, 80, 5, 5, 5, 1, 8], "targets: expected [M, d] = [2, 4], 8 elements, got 7 elements"),
        (1, [8, 13, 80, 5, 5, 5, 1, 8], "history: expected [N, d] = [3, 4], 12 elements, got 13 elements"),
        (
            1,
            [8, 12, 79, 5, 5, 5, 1, 8],
            "hidden[0].weight: expected [h, 4, d] = [5, 4, 4], 80 elements, got 79 elements",
        ),
        (1, [8, 12, 80, 0, 5, 5, 1, 8], "hidden[0].bias: expected at least 1 element, got 0 elements"),
        (
            1,
            [8, 12, 80, 5, 4, 5, 1, 8],
            "hidden[0].activation.alpha: expected [h] = [5], 5 elements, got 4 elements",
        ),
        (
            2,
            [8, 12, 80, 5, 5, 5, 1, 8],
            "hidden[1].weight: expected [h, h] = [5, 5], 25 elements, got 80 elements",
        ),
        (1, [8, 12, 80, 5, 5, 4, 1, 8], "output_weight: expected [h] = [5], 5 elements, got 4 elements"),
        (1, [8, 12, 80, 5, 5, 5, 2, 8], "output_bias: expected [1] = [1], 1 elements, got 2 elements"),
        (1, [8, 12, 80, 5, 5, 5, 1, 9], "out: expected [M, d] = [2, 4], 8 elements, got 9 elements"),
    ] {
        assert_error(din(&op, layers, lengths), &format!("din: {expected}"));
    }
    let statistics = DiceStatistics::new(&[0.0], &[1.0, 1.0], 0.0);
    assert_error(
        fold_dice(&statistics),
        "fold_dice: variance: expected [h] = [1], 1 elements, got 2 elements",
    );
}

/// Lengths of the gradients: of the output, targets, history, then weight, bias, α and gain of each of `layers` layers, output weight,
/// output bias.
fn din_backward(layers: usize, lengths: [usize; 9]) -> Result<()> {
    let (targets, history) = (vec![0.0f32; 8], vec![0.0f32; 12]);
    let (weight, bias, alpha) = (vec![0.0f32; 80], vec![0.0f32; 5], [0.25f32]);
    let (output_weight, output_bias) = (vec![0.0f32; 5], [0.0f32]);
    let activation = Activation::Prelu { alpha: Host::view(&alpha) };
    let hidden = [DinLayer::new(Host::view(&weight), Host::view(&bias), activation)];
    let inputs = DinInputs::new(
        Host::view(&targets),
        Host::view(&history),
        &hidden,
        Host::view(&output_weight),
        Host::view(&output_bias),
    );
    let [grad_out, mut targets, mut history, mut weight, mut bias, mut alpha, mut gain, mut last, mut end] =
        lengths.map(|length| vec![0.0f32; length]);
    let mut grads = vec![];
    for _ in 0..layers.saturating_sub(1) {
        grads.push(DinLayerGradients::new());
    }
    let mut first = DinLayerGradients::new()
        .with_weight(Host::view_mut(&mut weight))
        .with_bias(Host::view_mut(&mut bias))
        .with_alpha(Host::view_mut(&mut alpha));
    if !gain.is_empty() {
        first = first.with_gain(Host::view_mut(&mut gain));
    }
    if layers > 0 {
        grads.insert(0, first);
    }
    let grads = DinGradients::new()
        .with_targets(Host::view_mut(&mut targets))
        .with_history(Host::view_mut(&mut history))
        .with_hidden(&mut grads)
        .with_output_weight(Host::view_mut(&mut last))
        .with_output_bias(Host::view_mut(&mut end));
    Cpu::new().din_backward_into(&Din::new(4), &batch(&[3], &[2]), inputs, Host::view(&grad_out), grads)
}

#[test]
fn din_backward_checks_its_gradients() {
    din_backward(1, [8, 8, 12, 80, 5, 1, 0, 5, 1]).expect("a valid call");
    din_backward(0, [8, 8, 12, 80, 5, 1, 0, 5, 1]).expect("no layer's gradients");
    for (layers, lengths, expected) in [
        (1, [7, 8, 12, 80, 5, 1, 0, 5, 1], "grad_out: expected [M, d] = [2, 4], 8 elements, got 7 elements"),
        (
            1,
            [8, 9, 12, 80, 5, 1, 0, 5, 1],
            "grads.targets: expected [M, d] = [2, 4], 8 elements, got 9 elements",
        ),
        (
            1,
            [8, 8, 11, 80, 5, 1, 0, 5, 1],
            "grads.history: expected [N, d] = [3, 4], 12 elements, got 11 elements",
        ),
        (
            1,
            [8, 8, 12, 79, 5, 1, 0, 5, 1],
            "grads.hidden[0].weight: expected [h, i] = [5, 16], 80 elements, got 79 elements",
        ),
        (
            1,
            [8, 8, 12, 80, 4, 1, 0, 5, 1],
            "grads.hidden[0].bias: expected [h] = [5], 5 elements, got 4 elements",
        ),
        (
            1,
            [8, 8, 12, 80, 5, 5, 0, 5, 1],
            "grads.hidden[0].alpha: expected [h] = [1], 1 elements, got 5 elements",
        ),
        (
            1,
            [8, 8, 12, 80, 5, 1, 5, 5, 1],
            "grads.hidden[0].gain, of an activation without such a vector, is not supported; supported: alpha of PReLU \
             and Dice; gain and shift of Dice",
        ),
        (2, [8, 8, 12, 80, 5, 1, 0, 5, 1], "grads.hidden: expected none or 1 layers, got 2 layers"),
        (
            1,
            [8, 8, 12, 80, 5, 1, 0, 4, 1],
            "grads.output_weight: expected [1, h] = [1, 5], 5 elements, got 4 elements",
        ),
        (
            1,
            [8, 8, 12, 80, 5, 1, 0, 5, 2],
            "grads.output_bias: expected [1] = [1], 1 elements, got 2 elements",
        ),
    ] {
        assert_error(din_backward(layers, lengths), &format!("din_backward: {expected}"));
    }
}

#[test]
fn din_statistics_checks_its_layer() {
    let rows = [0.0f32; 4];
    let hidden = [DinLayer::new(Host::view(&rows), Host::view(&rows[..1]), Activation::Relu)];
    let one = || Host::view(&rows[..1]);
    let inputs = DinInputs::new(one(), one(), &hidden, one(), one());
    let call = |layer, lengths: [usize; 2]| {
        let [mut mean, mut squares] = lengths.map(|length| vec![0.0f32; length]);
        let out = DinStatistics::new(Host::view_mut(&mut mean), Host::view_mut(&mut squares));
        Cpu::new().din_statistics_into(&Din::new(1), &batch(&[1], &[1]), inputs, layer, out)
    };
    call(0, [1, 1]).expect("a valid call");
    let expected = "din_statistics: layer: expected below 1, the number of hidden layers, got 1";
    assert_error(call(1, [1, 1]), expected);
    for (lengths, argument) in [([2, 1], "mean"), ([1, 2], "centred_squares")] {
        let expected = format!("din_statistics: {argument}: expected [h] = [1], 1 elements, got 2 elements");
        assert_error(call(0, lengths), &expected);
    }
}
