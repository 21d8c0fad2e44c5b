//! Axes that depend on each other, ties, and calls that are refused.

use longseq::*;

use crate::case::Rules;

/// Interest channels of one user; axes `[M, c, d]`, history `[L, d]`.
fn channels<B: Backend>(
    backend: &B,
    op: &InterestChannels,
    axes: &[f32],
    history: &[f32],
    candidates: usize,
) -> Result<Vec<f32>> {
    let length = history.len() / op.width.max(1);
    let (axes, history) = (backend.upload(axes)?, backend.upload(history)?);
    let batch = backend.batch(&Jagged::from_lengths(&[length])?, &Jagged::from_lengths(&[candidates])?)?;
    let inputs = InterestChannelsInputs::new(backend.view(&axes), backend.view(&history));
    let out = backend.interest_channels(op, &batch, inputs)?;
    backend.download(backend.view(&out))
}

/// The argument that an error names.
fn argument<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    match result {
        Err(
            Error::Shape { argument, .. }
            | Error::Parameter { argument, .. }
            | Error::Limit { argument, .. }
            | Error::IndexOutOfRange { argument, .. },
        ) => argument,
        other => panic!("{other:?}"),
    }
}

const HISTORY: [f32; 6] = [1.0, 2.0, 3.0, -1.0, -2.0, -4.0];

/// Of three candidates, one's second axis depends on its first.
pub(super) fn names_the_candidate_whose_axes_depend_on_each_other<B: Backend>(backend: &B, _: Rules) {
    let op = InterestChannels::new(2).with_channels(2).with_top_k(1);
    let right = [1.0, 0.0, 1.0, 1.0];
    for wrong in [[3.0, 7.0, -6.0, -14.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1e30, 1e30, 1.0, 1.0]]
    {
        for place in 0..3 {
            let mut axes = [right; 3];
            axes[place] = wrong;
            let axis = usize::from(wrong[0] != 0.0);
            match channels(backend, &op, axes.as_flattened(), &HISTORY, 3) {
                Err(Error::Parameter { operation: "interest_channels", argument: "axes", got, .. }) => {
                    let expected = format!("axis {axis} of candidate {place}");
                    assert!(got.starts_with(&expected), "{got} instead of {expected}");
                }
                other => panic!("{other:?}"),
            }
            backend.synchronize().expect("all errors were reported");
            let zero = op.with_dependent(DependentAxes::Zero);
            let out = channels(backend, &zero, axes.as_flattened(), &HISTORY, 3).expect("a zero channel");
            let row = (2 * place + axis) * 2;
            assert_eq!(out[row..row + 2], [0.0; 2]);
            // Whatever goes anywhere goes to the other channel, negative scores too: it keeps the best of all.
            let other = (2 * place + 1 - axis) * 2;
            assert!(out[other..other + 2] != [0.0; 2], "{out:?}");
        }
    }
    // The first of several is named.
    let wrong = [[0.0; 4]; 3];
    match channels(backend, &op, wrong.as_flattened(), &HISTORY, 3) {
        Err(Error::Parameter { got, .. }) => assert!(got.starts_with("axis 0 of candidate 0"), "{got}"),
        other => panic!("{other:?}"),
    }
}

/// A behaviour with equal scores goes to the first channel, and is kept there before later ones.
pub(super) fn takes_the_first_of_equal_channels<B: Backend>(backend: &B, _: Rules) {
    let axes = [1.0, 0.0, 0.0, 1.0];
    let history = [2.0, 2.0, 0.0, 1.0, 2.0, 2.0, 2.0, -1.0];
    let op = InterestChannels::new(2).with_channels(2).with_top_k(1);
    // The first channel has the first, third and last behaviour with scores of 2; the second has one.
    let out = channels(backend, &op, &axes, &history, 1);
    assert_eq!(out, Ok(vec![1.0, 1.0, 0.0, 0.25]));
    // Among all, the second axis has the same score of 2 first, which goes to the other channel.
    let out = channels(backend, &op.with_among(KeptAmong::All), &axes, &history, 1);
    assert_eq!(out, Ok(vec![1.0, 1.0, 0.0, 0.0]));
    let out = channels(backend, &op.with_among(KeptAmong::All).with_top_k(3), &axes, &history, 1);
    // (2·(2, 2) + 2·(2, 2) + 2·(2, −1))/4, and 1·(0, 1)/4.
    assert_eq!(out, Ok(vec![3.0, 1.5, 0.0, 0.25]));
    let out = channels(backend, &op.with_normalise(true), &axes, &history, 1).expect("a valid call");
    let half = std::f32::consts::FRAC_1_SQRT_2;
    for (out, exact) in out.iter().zip([half, half, 0.0, 1.0]) {
        assert!((out - exact).abs() < 1e-6, "{out} instead of {exact}");
    }
}

pub(super) fn refuses_what_does_not_fit<B: Backend>(backend: &B, _: Rules) {
    let op = InterestChannels::new(2).with_channels(2).with_top_k(1);
    let axes = [1.0, 0.0, 0.0, 1.0];
    let run = |op: InterestChannels, axes: &[f32]| argument(channels(backend, &op, axes, &HISTORY, 1));
    assert_eq!(run(InterestChannels::new(0), &axes), "width");
    assert_eq!(run(op.with_channels(0), &axes), "channels");
    assert_eq!(run(op.with_channels(3), &axes), "channels");
    assert_eq!(run(op.with_top_k(0), &axes), "top_k");
    assert_eq!(run(op, &axes[..3]), "axes");
    let huge = usize::MAX / 2;
    assert_eq!(run(InterestChannels::new(huge).with_channels(huge), &axes), "axes");
    // More than there are.
    let all = channels(backend, &op.with_top_k(usize::MAX), &axes, &HISTORY, 1);
    assert_eq!(all, channels(backend, &op.with_top_k(3), &axes, &HISTORY, 1));
    assert!(all.is_ok());
    let many = Jagged::from_lengths(&[1]).expect("one user");
    let batch = backend.batch(&many, &many).expect("a batch");
    let numbers = backend.upload(&axes).expect("memory");
    let inputs = InterestChannelsInputs::new(backend.view(&numbers), backend.view(&numbers));
    assert_eq!(argument(backend.interest_channels(&op, &batch, inputs).map(drop)), "history");
    let mut out = backend.zeros::<f32>(4).expect("memory");
    let mut words = backend.zeros::<u32>(2).expect("memory");
    let (mut scores, mut counts) =
        (backend.zeros::<f32>(2).expect("memory"), backend.zeros::<u32>(2).expect("memory"));
    let kept = SelectionMut::new(
        backend.view_mut(&mut words),
        backend.view_mut(&mut scores),
        backend.view_mut(&mut counts),
    );
    let history = backend.view(&numbers).slice(0, 2).expect("a part");
    let inputs = InterestChannelsInputs::new(backend.view(&numbers), history);
    let outputs = InterestChannelsOutputs::new(backend.view_mut(&mut out)).with_kept(kept);
    let result = backend.interest_channels_into(&op.with_top_k(2), &batch, inputs, outputs);
    assert_eq!(argument(result), "kept.positions");
}

/// What is kept comes from the caller in the backward pass.
pub(super) fn finds_positions_and_counts_outside<B: Backend>(backend: &B, _: Rules) {
    let op = InterestChannels::new(2).with_channels(2).with_top_k(2);
    let run = |positions: [u32; 4], counts: [u32; 2]| -> Result<Vec<f32>> {
        let (axes, history) = (backend.upload(&[1.0_f32, 0.0, 0.0, 1.0])?, backend.upload(&HISTORY)?);
        let (positions, counts) = (backend.upload(&positions)?, backend.upload(&counts)?);
        let (scores, grad) = (backend.zeros::<f32>(4)?, backend.upload(&[1.0_f32; 4])?);
        let mut out = backend.zeros::<f32>(6)?;
        let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
        let kept = Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
        let inputs = InterestChannelsInputs::new(backend.view(&axes), backend.view(&history));
        let grads = InterestChannelsGradients::new().with_history(backend.view_mut(&mut out));
        let saved = InterestChannelsSaved::new(kept);
        backend.interest_channels_backward_into(&op, &batch, inputs, saved, backend.view(&grad), grads)?;
        backend.download(backend.view(&out))
    };
    // Positions past the counts are not read.
    run([1, 9, 0, u32::MAX], [1, 1]).expect("a valid call");
    assert_eq!(argument(run([1, 3, 0, 0], [2, 1])), "positions");
    assert_eq!(argument(run([1, 2, 0, u32::MAX], [2, 2])), "positions");
    assert_eq!(argument(run([1, 2, 0, 0], [2, 3])), "counts");
    // A behaviour that is kept twice counts twice.
    let (once, twice) = (run([1, 0, 0, 0], [1, 0]), run([1, 1, 0, 0], [2, 0]));
    let doubled = once.map(|once| once.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    assert_eq!(twice, doubled);
    backend.synchronize().expect("all errors were reported");
}

/// Without candidates and behaviours, parameters may have any size.
pub(super) fn takes_parameters_of_any_size_for_nobody<B: Backend>(backend: &B, _: Rules) {
    let run = || -> Result<()> {
        let users = Jagged::from_lengths(&[0, 0])?;
        let batch = backend.batch(&users, &users)?;
        let (none, nothing) = (backend.zeros::<f32>(0)?, backend.zeros::<u32>(0)?);
        let inputs = InterestChannelsInputs::new(backend.view(&none), backend.view(&none));
        for (width, channels) in [(1 << 40, 3), (1 << 62, 1), (1 << 31, 1 << 31)] {
            let op = InterestChannels::new(width).with_channels(channels).with_top_k(1);
            let out = backend.interest_channels(&op, &batch, inputs)?;
            assert!(backend.download(backend.view(&out))?.is_empty());
            let kept = Selection::new(backend.view(&nothing), backend.view(&none), backend.view(&nothing));
            let (mut axes, mut history) = (backend.zeros::<f32>(0)?, backend.zeros::<f32>(0)?);
            let grads = InterestChannelsGradients::new()
                .with_axes(backend.view_mut(&mut axes))
                .with_history(backend.view_mut(&mut history));
            let (saved, grad) = (InterestChannelsSaved::new(kept), backend.view(&none));
            backend.interest_channels_backward_into(&op, &batch, inputs, saved, grad, grads)?;
        }
        backend.synchronize()
    };
    run().expect("nothing to do");
}
