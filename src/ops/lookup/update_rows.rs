//! Optimisers that change the rows of a table that have a gradient.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::memory::{Memory, ViewMut};
use crate::ops::lookup::sparse_gradient::SparseGradient;
use crate::ops::shape::{dim, expect};

const NAME: &str = "update_rows";

/// A step of an optimiser on the rows of a table that have a gradient; all other rows, and their state, stay as they are.
///
/// With `w` a row of the table, `g` its gradient, all operations by element, and `c = 1 − rate·weight_decay`:
///
/// | optimiser | state | step |
/// |---|---|---|
/// | SGD | none | `w ← c·w − rate·g` |
/// | row-wise Adagrad | `s [rows]` | `s ← s + (Σ g²)/width`, `w ← c·w − rate·g/(√s + eps)` |
/// | Adagrad | `s [rows, width]` | `s ← s + g²`, `w ← c·w − rate·g/(√s + eps)` |
/// | Adam | `m [rows, width]`, `v [rows, width]` | `m ← β₁·m + (1−β₁)·g`, `v ← β₂·v + (1−β₂)·g²`, `w ← c·w − rate·m̂/(√v̂ + eps)` with `m̂ = m/(1−β₁ᵗ)`, `v̂ = v/(1−β₂ᵗ)` |
///
/// `t` is the number of the step, from 1 on, the same for all rows: Adam is *lazy*, a row that a step does not meet keeps its moments
/// as they are. State is `f32` and starts as zeros. Arithmetic is `f32`, and a row of 16-bit numbers is rounded to the nearest once
/// per step. Weight decay (0 by default) is decoupled from the gradient, and decays only the rows met. `g²` must be within `f32`; where
/// it is too small for it, it counts as 0, which changes no step by more than its rounding does, because `eps` is at least
/// [`MIN_EPS`](Self::MIN_EPS).
///
/// The formulas are those of FBGEMM's table-batched embeddings (`EXACT_SGD`, `EXACT_ROWWISE_ADAGRAD`, `EXACT_ADAGRAD`, `ADAM`;
/// weight decay in the mode `DECOUPLE`), without stochastic rounding. "Exact" means that a row met several times makes one step with
/// the sum of its gradients, which is what a [`SparseGradient`] holds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Optimiser {
    /// Which one.
    pub method: OptimiserMethod,
    /// The learning rate.
    pub rate: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// Which optimiser; formulas in [`Optimiser`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum OptimiserMethod {
    /// Stochastic gradient descent.
    Sgd,
    /// Adagrad with one sum per row.
    RowWiseAdagrad {
        /// Added to the root of the sum.
        eps: f32,
    },
    /// Adagrad with a sum per number.
    Adagrad {
        /// Added to the root of the sum.
        eps: f32,
    },
    /// Adam, lazy.
    Adam {
        /// `β₁`: how much of the first moment stays.
        beta1: f32,
        /// `β₂`: how much of the second moment stays.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// `t`: the number of this step, from 1 on.
        step: u64,
    },
}

/// A table that is changed in place.
#[non_exhaustive]
pub struct TableMut<'a, S: Memory, T: Element> {
    /// The number of rows.
    pub rows: usize,
    /// The number of elements per row.
    pub width: usize,
    /// `[rows, width]`.
    pub data: ViewMut<'a, S, T>,
}

/// The state of an optimiser, changed in place.
#[non_exhaustive]
pub enum OptimiserState<'a, S: Memory> {
    /// None: SGD.
    Empty,
    /// Sums of squares: `[rows]` for row-wise Adagrad, `[rows, width]` for Adagrad.
    Sums(ViewMut<'a, S, f32>),
    /// Adam's moments.
    Moments {
        /// `m [rows, width]`.
        first: ViewMut<'a, S, f32>,
        /// `v [rows, width]`.
        second: ViewMut<'a, S, f32>,
    },
}

impl<'a, S: Memory, T: Element> TableMut<'a, S, T> {
    /// A table of `rows` rows of `width` elements.
    pub fn new(rows: usize, width: usize, data: ViewMut<'a, S, T>) -> Self {
        Self { rows, width, data }
    }
}

impl Optimiser {
    const EPS: f32 = 1e-8;

    /// The smallest `eps`. A square below the normal numbers of `f32` may count as 0, so that the root of a sum is off by up to 1.1e-19:
    /// with a smaller `eps`, that would be another step.
    pub const MIN_EPS: f32 = 1e-12;

    fn new(method: OptimiserMethod, rate: f32) -> Self {
        Self { method, rate, weight_decay: 0.0 }
    }

    /// Stochastic gradient descent.
    pub fn sgd(rate: f32) -> Self {
        Self::new(OptimiserMethod::Sgd, rate)
    }

    /// Adagrad with one sum per row, and `eps = 1e-8`.
    pub fn row_wise_adagrad(rate: f32) -> Self {
        Self::new(OptimiserMethod::RowWiseAdagrad { eps: Self::EPS }, rate)
    }

    /// Adagrad with a sum per number, and `eps = 1e-8`.
    pub fn adagrad(rate: f32) -> Self {
        Self::new(OptimiserMethod::Adagrad { eps: Self::EPS }, rate)
    }

    /// Lazy Adam with `β₁ = 0.9`, `β₂ = 0.999`, `eps = 1e-8`; `step` is the number of this step, from 1 on.
    pub fn adam(rate: f32, step: u64) -> Self {
        Self::new(OptimiserMethod::Adam { beta1: 0.9, beta2: 0.999, eps: Self::EPS, step }, rate)
    }

    /// Sets `eps`. SGD has none.
    pub fn with_eps(mut self, new: f32) -> Self {
        match &mut self.method {
            OptimiserMethod::Sgd => {}
            OptimiserMethod::RowWiseAdagrad { eps }
            | OptimiserMethod::Adagrad { eps }
            | OptimiserMethod::Adam { eps, .. } => *eps = new,
        }
        self
    }

    /// Sets `β₁` and `β₂`. Only Adam has them.
    pub fn with_betas(mut self, first: f32, second: f32) -> Self {
        if let OptimiserMethod::Adam { beta1, beta2, .. } = &mut self.method {
            (*beta1, *beta2) = (first, second);
        }
        self
    }

    /// Sets the decoupled weight decay.
    pub fn with_weight_decay(self, weight_decay: f32) -> Self {
        Self { weight_decay, ..self }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a rate or weight decay that is not finite, an `eps` below [`MIN_EPS`](Self::MIN_EPS), a `β` outside
    /// `0..1`, a step of 0, and where `rate·weight_decay` or `rate/eps` is beyond `f32`.
    pub fn check(&self) -> Result<()> {
        let wrong = |argument, expected: &str, got: String| {
            Err(Error::Parameter { operation: NAME, argument, expected: expected.into(), got })
        };
        for (argument, number) in [("rate", self.rate), ("weight_decay", self.weight_decay)] {
            if !number.is_finite() {
                return wrong(argument, "a finite number", number.to_string());
            }
        }
        if !(self.rate * self.weight_decay).is_finite() {
            let got = format!("{} with a rate of {}", self.weight_decay, self.rate);
            return wrong("weight_decay", "rate·weight_decay within f32", got);
        }
        let (eps, betas, step) = match self.method {
            OptimiserMethod::Sgd => return Ok(()),
            OptimiserMethod::RowWiseAdagrad { eps } | OptimiserMethod::Adagrad { eps } => (eps, [0.0; 2], 1),
            OptimiserMethod::Adam { beta1, beta2, eps, step } => (eps, [beta1, beta2], step),
        };
        if !(eps >= Self::MIN_EPS && eps.is_finite()) {
            return wrong("eps", "a number of at least 1e-12", format!("{eps:e}"));
        }
        if !(self.rate / eps).is_finite() {
            return wrong("rate", "rate/eps within f32", format!("{:e} with an eps of {eps:e}", self.rate));
        }
        for (argument, beta) in ["beta1", "beta2"].into_iter().zip(betas) {
            if !(0.0..1.0).contains(&beta) {
                return wrong(argument, "a number from 0 to below 1", beta.to_string());
            }
        }
        if step == 0 {
            return wrong("step", "the number of the step, from 1 on", "0".into());
        }
        Ok(())
    }

    /// Checks the parameters and all sizes.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Shape`] for a table, gradient or state of the wrong size, and for the state of another
    /// optimiser.
    pub fn check_update<S: Memory, T: Element>(
        &self,
        table: &TableMut<'_, S, T>,
        state: &OptimiserState<'_, S>,
        gradient: &SparseGradient<'_, S>,
    ) -> Result<()> {
        self.check()?;
        let shape = [dim("rows", table.rows), dim("width", table.width)];
        if table.width == 0 {
            let (expected, got) = ("a width of at least 1".into(), "0".into());
            return Err(Error::Shape { operation: NAME, argument: "table", expected, got });
        }
        expect(NAME, "table", table.data.len(), &shape)?;
        let capacity = gradient.ids.len();
        expect(
            NAME,
            "gradient.rows",
            gradient.rows.len(),
            &[dim("capacity", capacity), dim("width", table.width)],
        )?;
        expect(NAME, "gradient.count", gradient.count.len(), &[dim("count", 1)])?;
        let wrong = |expected: &str| {
            let got = match state {
                OptimiserState::Empty => "none",
                OptimiserState::Sums(_) => "sums",
                OptimiserState::Moments { .. } => "moments",
            };
            let (expected, got) = (expected.into(), got.into());
            Err(Error::Shape { operation: NAME, argument: "state", expected, got })
        };
        match (self.method, state) {
            (OptimiserMethod::Sgd, OptimiserState::Empty) => {}
            (OptimiserMethod::RowWiseAdagrad { .. }, OptimiserState::Sums(sums)) => {
                expect(NAME, "state", sums.len(), &shape[..1])?;
            }
            (OptimiserMethod::Adagrad { .. }, OptimiserState::Sums(sums)) => {
                expect(NAME, "state", sums.len(), &shape)?;
            }
            (OptimiserMethod::Adam { .. }, OptimiserState::Moments { first, second }) => {
                expect(NAME, "state.first", first.len(), &shape)?;
                expect(NAME, "state.second", second.len(), &shape)?;
            }
            (OptimiserMethod::Sgd, _) => return wrong("none"),
            (OptimiserMethod::Adam { .. }, _) => return wrong("moments"),
            _ => return wrong("sums"),
        }
        Ok(())
    }

    /// The fewest bytes to move for `count` rows of `width` numbers of type `T`: the ids, the gradient, and each row and its state
    /// read and written. At most `u64::MAX`.
    pub fn bytes<T: Element>(&self, count: usize, width: usize) -> u64 {
        let (number, state) = (size_of::<f32>() as u64, width as u64);
        let state = match self.method {
            OptimiserMethod::Sgd => 0,
            OptimiserMethod::RowWiseAdagrad { .. } => 1,
            OptimiserMethod::Adagrad { .. } => state,
            OptimiserMethod::Adam { .. } => state.saturating_mul(2),
        };
        let row = (width as u64).saturating_mul(number + 2 * size_of::<T>() as u64);
        let row = row.saturating_add(state.saturating_mul(2 * number)).saturating_add(number);
        row.saturating_mul(count as u64)
    }
}

/// Checks on the host what a gradient holds, and returns its number of rows.
pub(crate) fn check_host_gradient(rows: usize, gradient: &SparseGradient<'_, Host>) -> Result<usize> {
    let (count, capacity) = (gradient.count[0], gradient.ids.len());
    if count as usize > capacity {
        let (id, bound) = (u64::from(count), capacity as u64 + 1);
        let argument = "gradient.count";
        return Err(Error::IndexOutOfRange { operation: NAME, argument, position: 0, id, bound });
    }
    let ids = &gradient.ids[..count as usize];
    let disorder = ids.windows(2).position(|pair| pair[0] >= pair[1]);
    if let Some(position) = ids.iter().position(|&id| id as usize >= rows) {
        let (id, bound) = (u64::from(ids[position]), rows as u64);
        let (argument, position) = ("gradient.ids", position as u64);
        return Err(Error::IndexOutOfRange { operation: NAME, argument, position, id, bound });
    }
    if let Some(position) = disorder {
        let expected = "ascending ids, each once".into();
        let got = format!("{} after {} at position {}", ids[position + 1], ids[position], position + 1);
        return Err(Error::Parameter { operation: NAME, argument: "gradient.ids", expected, got });
    }
    Ok(ids.len())
}
