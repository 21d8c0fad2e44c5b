//! The reference of optimisers on rows of tables. Formulas: [`Optimiser`].

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, reserve};
use crate::ops::*;

/// A table and an optimiser's state after a step, exactly.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UpdatedRowsReference {
    /// `[rows, width]`.
    pub table: Vec<f64>,
    /// The state: nothing, the sums, or both moments.
    pub state: Vec<Vec<f64>>,
}

/// [`update_rows`](LookupOps::update_rows) in `f64`: the table and the state that the step leads to. Neither is changed.
///
/// # Errors
/// Those of [`Optimiser::check_update`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for an id beyond the table and a count
/// beyond the capacity; [`Parameter`](crate::Error::Parameter) for ids that do not ascend.
pub fn update_rows<T: Element>(
    op: &Optimiser,
    table: &TableMut<'_, Host, T>,
    state: &OptimiserState<'_, Host>,
    gradient: SparseGradient<'_, Host>,
) -> Result<UpdatedRowsReference> {
    const NAME: &str = "update_rows";
    op.check_update(table, state, &gradient)?;
    let count = check_host_gradient(table.rows, &gradient)?;
    let width = table.width;
    let widened = |numbers: &[f32]| -> Result<Vec<f64>> {
        let mut wide = reserve(NAME, numbers.len())?;
        wide.extend(numbers.iter().map(|&x| f64::from(x)));
        Ok(wide)
    };
    let mut state = match state {
        OptimiserState::Empty => vec![],
        OptimiserState::Sums(sums) => vec![widened(sums)?],
        OptimiserState::Moments { first, second } => vec![widened(first)?, widened(second)?],
    };
    let mut rows = reserve(NAME, table.data.len())?;
    rows.extend(table.data.iter().map(|x| f64::from(x.to_f32())));
    step(op, width, (&gradient.ids[..count], &gradient.rows), &mut rows, &mut state);
    Ok(UpdatedRowsReference { table: rows, state })
}

/// One step of the rows that have a gradient.
fn step(
    op: &Optimiser,
    width: usize,
    (ids, gradients): (&[u32], &[f32]),
    rows: &mut [f64],
    state: &mut [Vec<f64>],
) {
    let rate = f64::from(op.rate);
    let kept = 1.0 - rate * f64::from(op.weight_decay);
    for (&id, g) in ids.iter().zip(gradients.chunks_exact(width)) {
        let id = id as usize;
        let row = id * width..(id + 1) * width;
        let squares: f64 = g.iter().map(|&g| f64::from(g).powi(2)).sum();
        if let OptimiserMethod::RowWiseAdagrad { .. } = op.method {
            state[0][id] += squares / width as f64;
        }
        for (i, &g) in row.zip(g) {
            let g = f64::from(g);
            let step = match op.method {
                OptimiserMethod::Sgd => g,
                OptimiserMethod::RowWiseAdagrad { eps } => g / (state[0][id].sqrt() + f64::from(eps)),
                OptimiserMethod::Adagrad { eps } => {
                    state[0][i] += g * g;
                    g / (state[0][i].sqrt() + f64::from(eps))
                }
                OptimiserMethod::Adam { beta1, beta2, eps, step } => {
                    let (beta1, beta2) = (f64::from(beta1), f64::from(beta2));
                    state[0][i] = beta1 * state[0][i] + (1.0 - beta1) * g;
                    state[1][i] = beta2 * state[1][i] + (1.0 - beta2) * g * g;
                    let mean = state[0][i] / (1.0 - beta1.powf(step as f64));
                    let square = state[1][i] / (1.0 - beta2.powf(step as f64));
                    mean / (square.sqrt() + f64::from(eps))
                }
            };
            rows[i] = kept * rows[i] - rate * step;
        }
    }
}
