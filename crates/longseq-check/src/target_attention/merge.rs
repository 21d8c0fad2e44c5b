//! Cases of merging partial results.

use longseq::reference::TargetAttentionReference;
use longseq::*;

use super::AttentionOutput;
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// A merge of two partial results: random rows, some of which belong to histories without behaviours.
#[derive(Debug, Clone)]
pub struct MergeCase {
    /// Where the data come from.
    pub seed: u64,
    /// How rows are stored.
    pub dtype: DType,
    /// The number of rows.
    pub rows: usize,
    /// The width of a row.
    pub value_width: usize,
    /// Rows and `lse` at the limits: every pair of `LSES`, with rows of `ROWS`.
    pub dead_parts: bool,
}

/// Log-sum-exps at the limits.
const LSES: [f32; 9] =
    [0.0, 1.0, -200.0, f32::MIN, f32::MAX, -3e38, f32::NEG_INFINITY, f32::INFINITY, f32::NAN];

/// What rows hold: normal numbers, or this.
const ROWS: [Option<f32>; 4] = [None, Some(f32::NAN), Some(f32::MAX), Some(f32::NEG_INFINITY)];

impl Default for MergeCase {
    fn default() -> Self {
        Self { seed: 1, dtype: DType::F32, rows: 13, value_width: 4, dead_parts: false }
    }
}

/// The rows of a part, and their `lse`.
pub(super) type Part<T> = (Vec<T>, Vec<f32>);

impl MergeCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        data::dtype_name(self.dtype)
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let op = TargetAttention::new(self.value_width);
        Work {
            flops: op.merge_flops(self.rows),
            bytes: by_dtype!(self.dtype, T => op.merge_bytes::<T>(self.rows)),
        }
    }

    pub(super) fn parts<T: Element>(&self) -> [Part<T>; 2] {
        let mut rng = data::rng(self.seed);
        [3, 2].map(|empty_every| {
            let mut out: Vec<T> = data::rows(&mut rng, Data::Normal, self.rows, self.value_width);
            let mut lse: Vec<f32> = data::rows(&mut rng, Data::Normal, self.rows, 1);
            for row in (0..self.rows).step_by(empty_every) {
                lse[row] = f32::NEG_INFINITY;
                out[row * self.value_width..(row + 1) * self.value_width].fill(T::from_f32(0.0));
            }
            if self.dead_parts {
                // Part 0 walks through the combinations fast, part 1 once for each combination of part 0.
                let all = LSES.len() * ROWS.len();
                for row in 0..self.rows {
                    let combination = if empty_every == 3 { row % all } else { row / all % all };
                    lse[row] = LSES[combination / ROWS.len()];
                    // Infinity times a weight that may be 0 in `f32` alone is no test: only dead rows hold it.
                    let may_hold = |number: &f32| !number.is_infinite() || lse[row] == f32::NEG_INFINITY;
                    if let Some(number) = ROWS[combination % ROWS.len()].filter(may_hold) {
                        let number = if number == f32::MAX { data::largest_of(T::DTYPE) } else { number };
                        out[row * self.value_width..(row + 1) * self.value_width].fill(T::from_f32(number));
                    }
                }
            }
            (out, lse)
        })
    }
}

impl MergeCase {
    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<AttentionOutput, Failure> {
        let op = TargetAttention::new(self.value_width);
        let [a, b] = self.parts::<T>();
        let (a_out, a_lse) = (backend.upload(&a.0)?, backend.upload(&a.1)?);
        let (b_out, b_lse) = (backend.upload(&b.0)?, backend.upload(&b.1)?);
        let mut out = Guarded::<B, T>::new(backend, self.rows * self.value_width, 0)?;
        let mut lse = Guarded::<B, f32>::new(backend, self.rows, 0)?;
        calls.make("merge_attention", &mut || {
            Ok(backend.merge_attention_into::<T>(
                &op,
                PartialAttention::new(backend.view(&a_out), backend.view(&a_lse)),
                PartialAttention::new(backend.view(&b_out), backend.view(&b_lse)),
                TargetAttentionOutputs::new(out.view_mut(backend)?).with_lse(lse.view_mut(backend)?),
            )?)
        })?;
        Ok(AttentionOutput::new(out.finish(backend, "out")?, lse.finish(backend, "lse")?))
    }

    fn compare_as<T: Element>(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        let op = TargetAttention::new(self.value_width);
        let [a, b] = self.parts::<T>();
        let TargetAttentionReference { out, lse } = reference::merge_attention(
            &op,
            PartialAttention::new(Host::view(&a.0), Host::view(&a.1)),
            PartialAttention::new(Host::view(&b.0), Host::view(&b.1)),
        )?;
        // Two exponentials, two products, a sum and a quotient of numbers of at most 5 standard deviations.
        let bound = Bound::uniform(5.0 * 16.0 * U, !self.dead_parts);
        let finite = |x: &T| Some(x.to_f32().abs()).filter(|x| x.is_finite()).unwrap_or(0.0);
        let rows = a.0.iter().zip(&b.0).map(|(a, b)| finite(a).max(finite(b)));
        let absolute = rows.map(|row| 16.0 * U * f64::from(row.max(5.0))).collect();
        let rows = Bound { absolute, ..bound.clone() };
        compare("out", &output.values::<T>(), &out, &rows, rules)?;
        compare("lse", &output.lse(), &lse, &bound, rules)
    }
}

impl Case for MergeCase {
    type Output = AttentionOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<AttentionOutput, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
