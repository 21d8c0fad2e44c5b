//! A score that overflows, which removes a behaviour from one candidate and not from another.

use longseq::*;

use crate::case::{Failure, Rules};

/// Checks the gradients over all behaviours where a product of finite rows is -∞ for one candidate, and for another a number so low
/// that its weight is 0.
///
/// # Errors
/// Where a gradient is wrong.
pub fn check_overflowing_scores<B: Backend>(backend: &B) -> Result<(), Failure> {
    // Items: that of the low scores, that of the other behaviours, and those of the candidates.
    let (attention, representation) = ([-3e38_f32, 1.0, 2.0, 0.5], [7.0_f32, 1.0, 1.0, 1.0]);
    let (attention, representation) = (backend.upload(&attention)?, backend.upload(&representation)?);
    let attention = [Table::new(4, 1, TableData::F32(backend.view(&attention)))];
    let representation = [Table::new(4, 1, TableData::F32(backend.view(&representation)))];
    let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[2])?)?;
    let (ids, target_ids) = (backend.upload(&[0_u32, 1, 1])?, backend.upload(&[2_u32, 3])?);
    let (ids, target_ids) = (backend.view(&ids), backend.view(&target_ids));
    let inputs = DecoupledInputs::new(&attention, &representation, ids, target_ids);
    let op = Decoupled::new([1.0]).with_top_k(None);
    let grad_out = backend.upload(&[3.0_f32, 5.0])?;
    let (mut first, mut second) = (backend.upload(&[f32::NAN; 4])?, backend.upload(&[f32::NAN; 4])?);
    let grads = DecoupledGradients::new()
        .with_attention([Some(TableGradient::Dense(backend.view_mut(&mut first)))])
        .with_representation([Some(TableGradient::Dense(backend.view_mut(&mut second)))]);
    let grad_out = backend.view(&grad_out);
    backend.decoupled_attend_backward_into(&op, &batch, inputs, DecoupledSaved::new(), grad_out, grads)?;
    // Both candidates give the two other behaviours half their weight each, whose rows are the same: scores have no gradient.
    for (gradient, exact) in [(first, [0.0; 4]), (second, [0.0, 8.0, 0.0, 0.0])] {
        let got: Vec<f32> = backend.download(backend.view(&gradient))?;
        if got.iter().zip(exact).any(|(got, exact)| (got - exact).abs() > 1e-5 || got.is_nan()) {
            return Err(Failure::new(format!("{got:?}, not {exact:?}")));
        }
    }
    Ok(())
}

pub(super) fn removes_a_score_that_overflows<B: Backend>(backend: &B, _: Rules) {
    check_overflowing_scores(backend).unwrap_or_else(|failure| panic!("{failure}"));
}
