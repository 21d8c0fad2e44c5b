//! A candidate's axes at right angles, and rows of length 1.

use candle_core::{D, Result, Tensor};
use longseq::InterestChannels;

/// The least square of a length that a row is divided by.
const LEAST_SQUARE: f64 = InterestChannels::MIN_NORM * InterestChannels::MIN_NORM;

/// `x/max(‖x‖, 1e-12)` of the last dimension. A row of zeros stays one, and so does its gradient.
pub(super) fn units(rows: &Tensor) -> Result<Tensor> {
    let square = rows.sqr()?.sum_keepdim(D::Minus1)?;
    rows.broadcast_mul(&square.maximum(LEAST_SQUARE)?.sqrt()?.recip()?)
}

/// The axes that [`InterestChannels`] pools along, `[M, c, d]`, in the graph: Gram–Schmidt, each axis twice, as once leaves more than rounding where
/// axes are nearly alike. An axis that depends on those before it is zeros.
pub(super) fn right_angles(axes: &Tensor) -> Result<Tensor> {
    let mut done: Vec<Tensor> = Vec::with_capacity(axes.dim(1)?);
    for index in 0..axes.dim(1)? {
        let axis = axes.narrow(1, index, 1)?.squeeze(1)?;
        let mut rest = axis.clone();
        for _ in 0..2 {
            for other in &done {
                let along = rest.mul(other)?.sum_keepdim(1)?;
                rest = rest.sub(&other.broadcast_mul(&along)?)?;
            }
        }
        let square = |rows: &Tensor| rows.detach().sqr()?.sum_keepdim(1);
        let least = (square(&axis)? * (InterestChannels::DEPENDENT * InterestChannels::DEPENDENT))?;
        let is_axis = square(&rest)?.gt(&least)?.to_dtype(axes.dtype())?;
        done.push(units(&rest)?.broadcast_mul(&is_axis)?);
    }
    Tensor::stack(&done, 1)
}
