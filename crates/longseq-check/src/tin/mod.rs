//! Cases of TIN.

mod backward;
pub mod backward_tests;
pub(crate) mod cases;
mod golden;
mod hostile;
pub mod tests;

pub use backward::TinBackwardCase;
pub use hostile::{check_equal_large_scores, check_sums_by_position};

use longseq::*;
use rand::RngExt;

use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
ẽ[l] = e[l] + p[f(l)],  ṽ[m] = v[m] + p[f(m)];  f(l) = min(1 + behaviours after l, P − 1), f(m) = 0, or given
a[m] = Σ_l w[m, l] · ẽ[l],  w = softmax_l(scale · ⟨ẽ[l], ṽ[m]⟩)            over the history l of candidate m's user
out[m] = ṽ[m] ⊙ a[m]";

/// The formula of the gradients, as `explain` prints it.
pub const BACKWARD_FORMULA: &str = "\
da[m] = dout[m] ⊙ ṽ[m]            ds = w · (⟨da, ẽ⟩ − ⟨da, a⟩)
dẽ[l] = Σ_m (w · da[m] + scale · ds · ṽ[m])            dṽ[m] = scale · Σ_l ds · ẽ[l] + dout[m] ⊙ a[m]
de = dẽ,  dv = dṽ,  dp[i] = Σ_{f(l) = i} dẽ[l] + Σ_{f(m) = i} dṽ[m]";

/// A batch of TIN, with what the backward pass needs.
#[derive(Debug, Clone)]
pub struct TinCase {
    /// Where the data come from.
    pub seed: u64,
    /// How rows are stored.
    pub dtype: DType,
    /// What the numbers look like.
    pub data: Data,
    /// The length of each user's history.
    pub histories: Vec<usize>,
    /// The number of each user's candidates.
    pub targets: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// The width of a row.
    pub width: usize,
    /// The number of positions.
    pub positions: usize,
    /// The positions of behaviours and of candidates are given.
    pub given: [bool; 2],
    /// The factor on the dot products; `None` for the default.
    pub scale: Option<f32>,
    /// The mean is multiplied by the candidate.
    pub multiply_target: bool,
    /// A NaN in this candidate's row.
    pub nan: Option<usize>,
}

impl Default for TinCase {
    fn default() -> Self {
        Self {
            seed: 1,
            dtype: DType::F32,
            data: Data::Normal,
            histories: vec![37],
            targets: vec![5],
            tail: 0,
            width: 16,
            positions: 25,
            given: [false; 2],
            scale: None,
            multiply_target: true,
            nan: None,
        }
    }
}

/// The outputs of a run as bits: `out`, `pooled` and `lse`.
pub type TinOutput = [Vec<u8>; 3];

/// The inputs in a kind of memory.
struct Inputs<S: Memory, T: Element> {
    targets: S::Buffer<T>,
    history: S::Buffer<T>,
    positions: S::Buffer<T>,
    history_positions: Option<S::Buffer<u32>>,
    target_positions: Option<S::Buffer<u32>>,
}

impl<S: Memory, T: Element> Inputs<S, T> {
    fn views<B: Backend<Memory = S>>(&self, backend: &B) -> TinInputs<'_, S, T> {
        let (targets, history) = (backend.view(&self.targets), backend.view(&self.history));
        let mut views = TinInputs::new(targets, history, backend.view(&self.positions));
        views.history_positions = self.history_positions.as_ref().map(|positions| backend.view(positions));
        views.target_positions = self.target_positions.as_ref().map(|positions| backend.view(positions));
        views
    }
}

impl<T: Element> Inputs<Host, T> {
    fn upload<B: Backend>(&self, backend: &B) -> Result<Inputs<B::Memory, T>> {
        let places = |given: &Option<HostBuffer<u32>>| {
            given.as_ref().map(|positions| backend.upload(positions)).transpose()
        };
        Ok(Inputs {
            targets: backend.upload(&self.targets)?,
            history: backend.upload(&self.history)?,
            positions: backend.upload(&self.positions)?,
            history_positions: places(&self.history_positions)?,
            target_positions: places(&self.target_positions)?,
        })
    }
}

impl TinCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        data::dtype_name(self.dtype)
    }

    /// The operation.
    pub fn op(&self) -> Tin {
        let op =
            Tin::new(self.width).with_positions(self.positions).with_multiply_target(self.multiply_target);
        self.scale.map_or(op, |scale| op.with_scale(scale))
    }

    /// The batch.
    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (op, batch) = (self.op(), self.batch());
        Work { flops: op.flops(&batch), bytes: by_dtype!(self.dtype, T => op.bytes::<T>(&batch)) }
    }

    fn inputs<T: Element>(&self) -> Inputs<Host, T> {
        let (batch, mut rng) = (self.batch(), data::rng(self.seed));
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let mut targets: Vec<T> = data::rows(&mut rng, self.data, m, self.width);
        if let Some(candidate) = self.nan {
            targets[candidate * self.width] = T::from_f32(f32::NAN);
        }
        let history: Vec<T> = data::rows(&mut rng, self.data, n, self.width);
        let positions: Vec<T> = data::rows(&mut rng, self.data, self.positions, self.width);
        // Positions that nobody reads may be anything.
        let mut given = |rows: usize, used: usize| -> HostBuffer<u32> {
            let mut position = |row: usize| {
                let below = rng.random_range(0..self.positions as u32);
                if row < used { below } else { u32::MAX }
            };
            (0..rows).map(&mut position).collect()
        };
        let history_positions = self.given[0].then(|| given(n, batch.histories().total()));
        let target_positions = self.given[1].then(|| given(m, batch.targets().total()));
        Inputs {
            targets: targets.into(),
            history: history.into(),
            positions: positions.into(),
            history_positions,
            target_positions,
        }
    }

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<TinOutput, Failure> {
        let (op, batch) = (self.op(), self.batch());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = self.inputs::<T>().upload(backend)?;
        let (rows, width, tail) = (batch.targets().total(), self.width, self.tail);
        let mut out = Guarded::<B, T>::new(backend, rows * width, tail * width)?;
        let mut pooled = Guarded::<B, T>::new(backend, rows * width, tail * width)?;
        let mut lse = Guarded::<B, f32>::new(backend, rows, tail)?;
        calls.make("tin", &mut || {
            let outputs = TinOutputs::new(out.view_mut(backend)?)
                .with_saved(pooled.view_mut(backend)?, lse.view_mut(backend)?);
            Ok(backend.tin_into(&op, &device_batch, inputs.views(backend), outputs)?)
        })?;
        let bits = |rows: Vec<T>| bytemuck::cast_slice(&rows).to_vec();
        let lse = bytemuck::cast_slice(&lse.finish(backend, "lse")?).to_vec();
        Ok([bits(out.finish(backend, "out")?), bits(pooled.finish(backend, "pooled")?), lse])
    }

    /// A sum of a row and its position is rounded once, and so is a product with the candidate; the rest is target attention's.
    fn compare_as<T: Element>(&self, output: &TinOutput, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs::<T>());
        let exact = reference::tin(&op, &batch, &inputs.views(&Cpu::new()))?;
        let used = batch.targets().total();
        let norm = |rows: &[T]| data::max_norm(rows, op.width);
        let max = |rows: &[T]| data::max_abs(rows);
        let scale = f64::from(op.effective_scale()).abs();
        let positions = (norm(&inputs.positions), max(&inputs.positions));
        let (target, behaviour) = (norm(&inputs.targets) + positions.0, norm(&inputs.history) + positions.0);
        let score = scale * target * behaviour;
        let underflow = op.width as f64 * scale * 2f64.powi(-149) + f64::from(f32::MIN_POSITIVE);
        // A dot product of d terms, scaled, of factors that were rounded: d + 5 roundings.
        let score_error = (op.width as f64 + 5.0) * U * score + underflow;
        let longest = batch.histories().max_length();
        let sum_error = (additions(longest) + 9.0) * U;
        let value = max(&inputs.history) + positions.1;
        let lost = if rules.subnormal { 0.0 } else { 3.0 * f64::from(f32::MIN_POSITIVE) * longest as f64 };
        let pooled = value * ((2.0 * score_error).exp_m1() + sum_error) + lost;
        let factor = max(&inputs.targets) + positions.1;
        let out = if op.multiply_target { factor * (pooled + 3.0 * U * value) } else { pooled };
        // Large scores make weights of nearly 0 or 1, whose relative error is that of the scores, not of f32.
        let plain = [Data::Normal, Data::Equal].contains(&self.data);
        let nmse = plain && self.scale.is_none() && self.nan.is_none();
        let rows = |bits: &[u8]| bytemuck::pod_collect_to_vec::<u8, T>(bits);
        let length = used * op.width;
        compare("out", &rows(&output[0]), &exact.out[..length], &Bound::uniform(out, nmse), rules)?;
        compare("pooled", &rows(&output[1]), &exact.pooled[..length], &Bound::uniform(pooled, nmse), rules)?;
        let lse_error = score_error + sum_error + 4.0 * U * (score + (longest as f64).ln_1p());
        let lse = bytemuck::pod_collect_to_vec::<u8, f32>(&output[2]);
        compare("lse", &lse, &exact.lse[..used], &Bound::uniform(lse_error, false), rules)
    }
}

impl Case for TinCase {
    type Output = TinOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<TinOutput, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &TinOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
