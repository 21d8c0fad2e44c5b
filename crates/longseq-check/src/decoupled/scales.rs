//! Scales that put a candidate's row, but not its scores, outside the range of `f32`.

use longseq::*;

use crate::case::{Failure, Rules};

/// A scale, and the rows of two candidates and three behaviours, of one number.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    scale: f32,
    targets: [f32; 2],
    behaviours: [f32; 3],
}

const VALUES: [f32; 3] = [1.0, -2.0, 5.0];
const GRAD_OUT: [f32; 2] = [0.1, 0.03];

/// Scores, weights and outputs of a candidate, in `f64`.
fn exact(numbers: Numbers, target: f32) -> ([f64; 3], [f64; 3], f64) {
    let scores = numbers.behaviours.map(|row| f64::from(numbers.scale) * f64::from(target) * f64::from(row));
    let largest = scores.iter().fold(f64::NEG_INFINITY, |largest, &score| largest.max(score));
    let weights = scores.map(|score| (score - largest).exp());
    let sum: f64 = weights.iter().sum();
    let weights = weights.map(|weight| weight / sum);
    let out = weights.iter().zip(VALUES).map(|(weight, value)| weight * f64::from(value)).sum();
    (scores, weights, out)
}

fn compare(name: &str, got: &[f32], exact: &[f64]) -> Result<(), Failure> {
    let largest = exact.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    // What WGSL may take for 0.
    if largest < 1e-36 {
        return Ok(());
    }
    let is_near = |(&got, &exact): (&f32, &f64)| (f64::from(got) - exact).abs() <= 1e-4 * largest;
    match got.len() == exact.len() && got.iter().zip(exact).all(is_near) {
        true => Ok(()),
        false => Err(Failure::new(format!("{name}: {got:?}, not {exact:?}"))),
    }
}

fn check_scale<B: Backend>(backend: &B, numbers: Numbers) -> Result<(), Failure> {
    let Numbers { scale, targets, behaviours } = numbers;
    // The second feature has a scale that is not large, and adds nothing.
    let attention = [&targets[..], &behaviours].concat();
    let (attention, zeros) = (backend.upload(&attention)?, backend.upload(&[0.0_f32; 5])?);
    let values = backend.upload(&[&[0.0; 2][..], &VALUES].concat())?;
    let attention = [&attention, &zeros].map(|rows| Table::new(5, 1, TableData::F32(backend.view(rows))));
    let representation = [&values, &zeros].map(|rows| Table::new(5, 1, TableData::F32(backend.view(rows))));
    let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[2])?)?;
    let (ids, target_ids) = (backend.upload(&[2_u32, 2, 3, 3, 4, 4])?, backend.upload(&[0_u32, 0, 1, 1])?);
    let (ids, target_ids) = (backend.view(&ids), backend.view(&target_ids));
    let op = Decoupled::new([scale, 0.5]).with_top_k(Some(3));
    let exact = targets.map(|target| exact(numbers, target));
    let found = backend.decoupled_search(&op, &batch, SearchInputs::new(&attention, ids, target_ids))?;
    let mut sorted: Vec<f64> = Vec::new();
    for (mut scores, ..) in exact {
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        sorted.extend(scores);
    }
    compare("scores", &backend.download(backend.view(&found.scores))?, &sorted)?;
    // The second column is that of the table of zeros.
    let out: Vec<f64> = exact.iter().flat_map(|&(.., out)| [out, 0.0]).collect();
    let inputs = DecoupledInputs::new(&attention, &representation, ids, target_ids);
    for top_k in [Some(3), None] {
        let got = backend.decoupled_attend(&op.clone().with_top_k(top_k), &batch, inputs)?;
        compare("out", &backend.download(backend.view(&got))?, &out)?;
    }
    let grad_out = backend.upload(&GRAD_OUT.map(|grad| [grad, 0.0]).concat())?;
    let exact = exact_gradients(numbers);
    let compare_grads = |name: &str, grads: &Buffer<B, f32>| -> Result<(), Failure> {
        let got: Vec<f32> = backend.download(backend.view(grads))?;
        compare(&format!("{name}: gradients of candidates"), &got[..2], &exact[..2])?;
        compare(&format!("{name}: gradients of behaviours"), &got[2..], &exact[2..])
    };
    let saved = DecoupledSaved::new().with_selection(found.selection());
    for (name, op, saved) in [
        ("whole histories", op.clone().with_top_k(None), DecoupledSaved::new()),
        ("a selection", op.clone(), saved),
    ] {
        let mut grads = backend.upload(&[f32::NAN; 5])?;
        let asked = Some(TableGradient::Dense(backend.view_mut(&mut grads)));
        let asked = DecoupledGradients::new().with_attention([asked, None]);
        backend.decoupled_attend_backward_into(&op, &batch, inputs, saved, backend.view(&grad_out), asked)?;
        compare_grads(name, &grads)?;
    }
    // The same from gradients of the scores.
    let mut grad_scores = backend.zeros::<f32>(6)?;
    let asked = AggregateGradients::new().with_scores(backend.view_mut(&mut grad_scores));
    let aggregate = AggregateInputs::new(&representation, ids, target_ids);
    let selection = || found.selection();
    let grad_out = backend.view(&grad_out);
    backend.decoupled_aggregate_backward_into(&op, &batch, aggregate, selection(), grad_out, asked)?;
    let mut grads = backend.upload(&[f32::NAN; 5])?;
    let asked = Some(TableGradient::Dense(backend.view_mut(&mut grads)));
    let asked = SearchGradients::new().with_attention([asked, None]);
    let (search, grad_scores) = (SearchInputs::new(&attention, ids, target_ids), backend.view(&grad_scores));
    backend.decoupled_search_backward_into(&op, &batch, search, selection(), grad_scores, asked)?;
    compare_grads("a search", &grads)
}

/// The gradients of the attention table's rows.
fn exact_gradients(numbers: Numbers) -> [f64; 5] {
    let Numbers { scale, targets, behaviours } = numbers;
    let mut gradient = [0.0; 5];
    let exact = targets.map(|target| exact(numbers, target));
    for (m, (_, weights, out)) in exact.iter().enumerate() {
        for l in 0..3 {
            let of_score = f64::from(GRAD_OUT[m]) * weights[l] * (f64::from(VALUES[l]) - out);
            gradient[2 + l] += f64::from(scale) * of_score * f64::from(targets[m]);
            gradient[m] += f64::from(scale) * of_score * f64::from(behaviours[l]);
        }
    }
    gradient
}

pub(super) fn takes_scales_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    check_scales_near_the_limits(backend, rules).unwrap_or_else(|failure| panic!("{failure}"));
}

/// `scale·⟨q, k⟩` is right wherever it and `⟨q, k⟩` are in range, however large `scale·q` is, and however small where subnormal
/// numbers are kept.
///
/// # Errors
/// What a call returned, or the numbers that are wrong.
pub fn check_scales_near_the_limits<B: Backend>(backend: &B, rules: Rules) -> Result<(), Failure> {
    let cases: [(f32, f32, f32); 7] = [
        (0.75, 3e38, 2e-38),
        (2.0, 3e38, 2e-38),
        (-1.5, 3e38, 2e-38),
        (4e9, 1e29, 2e-38),
        (1e36, 1e2, 4e-38),
        (3e38, 1.0, 2e-38),
        (1e-36, 1e-3, 1e38),
    ];
    for (scale, target, behaviour) in cases {
        let targets = [target, -2.0 / 3.0 * target];
        let behaviours = [behaviour, 2.0 * behaviour, 1.5 * behaviour];
        if !rules.subnormal && (scale * target).is_subnormal() {
            continue;
        }
        let numbers = Numbers { scale, targets, behaviours };
        check_scale(backend, numbers).map_err(|failure| Failure::new(format!("{numbers:?}: {failure}")))?;
    }
    Ok(())
}
