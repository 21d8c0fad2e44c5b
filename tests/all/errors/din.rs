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
