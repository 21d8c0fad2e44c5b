//! Embedding tables with sparse gradients, which candle's graph does not know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, Var};
use longseq::prelude::*;
use longseq::{
    Bags, Cpu, Host, Lookup, LookupGradOut, LookupGradients, LookupInputs, LookupSaved, Optimiser,
    OptimiserMethod, OptimiserState, SparseGradient, SparseGradientMut, TableMut,
};

use crate::error::{Wrapped, wrong};
use crate::read::read;
use crate::tables::data;
use crate::tensors::Argument;

const NAME: &str = "SparseTable";

/// An embedding table whose gradient has only the rows that were read, and which [`step`](Self::step) changes in place.
///
/// candle's gradients of a table are as large as the table, and so is every step of its optimisers. This table is no variable of candle's:
/// a look-up that reads it is in the graph through a number that nothing depends on, and `backward` leaves the sparse gradient here, where it
/// waits for `step`. A second `backward` before it, over the same or another graph, adds to it, as do several look-ups in one graph:
/// a step is made with the sum ("exact" in FBGEMM's words). Gradients of a loss that is thrown away are removed by
/// [`clear_gradient`](Self::clear_gradient).
///
/// Clones share everything. The table shares the memory of the contiguous tensor that it was made of: made of a variable of a
/// `VarMap`, it is saved and loaded with the map (candle's optimisers leave it alone, because the variable itself gets no gradient).
#[derive(Clone)]
pub struct SparseTable {
    shared: Arc<Shared>,
}

struct Shared {
    /// `[rows, width]`.
    values: Tensor,
    /// What is in the graph.
    anchor: Var,
    gradients: Mutex<Vec<TableRows>>,
    state: Mutex<State>,
}

/// Some rows of a table: a sparse gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRows {
    /// The ids of the rows, ascending, each once.
    pub ids: Vec<u32>,
    /// `[ids, width]`.
    pub rows: Vec<f32>,
}

/// What an optimiser keeps.
enum State {
    Empty,
    Sums(Vec<f32>),
    Moments(Vec<f32>, Vec<f32>),
}

impl SparseTable {
    /// A table `[rows, width]` of `f32`, `f16` or `bf16`.
    ///
    /// # Errors
    /// A tensor that is not on the CPU, of another type, or of another rank.
    pub fn new(values: &Tensor) -> Result<Self> {
        if values.rank() != 2 {
            return Err(wrong(NAME, "values", "[rows, width]", format!("{:?}", values.dims())));
        }
        let values = Argument::new(NAME, "values", values).float()?.detach();
        let anchor = Var::zeros(1, DType::F32, &Device::Cpu)?;
        let (gradients, state) = (Mutex::new(Vec::new()), Mutex::new(State::Empty));
        Ok(Self { shared: Arc::new(Shared { values, anchor, gradients, state }) })
    }

    /// `[rows, width]`, in no graph.
    pub fn values(&self) -> &Tensor {
        &self.shared.values
    }

    /// What stands for the table in the graph.
    pub(crate) fn anchor(&self) -> &Tensor {
        &self.shared.anchor
    }

    /// Leaves a gradient for the next step.
    pub(crate) fn add(&self, gradient: TableRows) {
        self.gradients().push(gradient);
    }

    fn gradients(&self) -> MutexGuard<'_, Vec<TableRows>> {
        self.shared.gradients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum of the gradients since the last step; `None` if there are none. They stay.
    ///
    /// # Errors
    /// Those of longseq.
    pub fn gradient(&self) -> Result<Option<TableRows>> {
        self.sum(&self.gradients())
    }

    /// Forgets the gradients since the last step.
    pub fn clear_gradient(&self) {
        self.gradients().clear();
    }

    /// A step of an optimiser with the sum of the gradients since the last one, on the rows that have one, in place; returns how many they
    /// are. The optimiser's state is the table's. Graphs that read the table before must not be used after.
    ///
    /// # Errors
    /// Those of [`update_rows`](longseq::LookupOps::update_rows), and another optimiser than in the last step: nothing is changed then.
    pub fn step(&self, optimiser: &Optimiser) -> Result<usize> {
        let mut gradients = self.gradients();
        let Some(gradient) = self.sum(&gradients)? else { return Ok(0) };
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Empty) {
            *state = self.empty_state(optimiser.method);
        }
        let count = gradient.ids.len();
        let update = Update { optimiser, gradient: &gradient, state: Mutex::new(&mut *state) };
        self.values().inplace_op1(&update)?;
        gradients.clear();
        Ok(count)
    }

    fn empty_state(&self, method: OptimiserMethod) -> State {
        let (rows, numbers) = (self.values().dims()[0], self.values().elem_count());
        match method {
            OptimiserMethod::RowWiseAdagrad { .. } => State::Sums(vec![0.0; rows]),
            OptimiserMethod::Adagrad { .. } => State::Sums(vec![0.0; numbers]),
            OptimiserMethod::Adam { .. } => State::Moments(vec![0.0; numbers], vec![0.0; numbers]),
            _ => State::Empty,
        }
    }

    /// The sum of gradients: that of a look-up of all their ids.
    fn sum(&self, gradients: &[TableRows]) -> Result<Option<TableRows>> {
        match gradients {
            [] => return Ok(None),
            [one] => return Ok(Some(one.clone())),
            _ => {}
        }
        let (rows, width) = self.values().dims2()?;
        let ids: Vec<u32> = gradients.iter().flat_map(|gradient| gradient.ids.iter().copied()).collect();
        let grad_out: Vec<f32> =
            gradients.iter().flat_map(|gradient| gradient.rows.iter().copied()).collect();
        let capacity = ids.len().min(rows);
        let (mut sum_ids, mut sum_rows, mut count) = (vec![0; capacity], vec![0.0; capacity * width], [0]);
        read(std::slice::from_ref(self.values()), |parts| {
            let tables = [longseq::Table::new(rows, width, data(self.values().dtype(), parts)?)];
            let out = SparseGradientMut::new(
                Host::view_mut(&mut sum_ids),
                Host::view_mut(&mut sum_rows),
                Host::view_mut(&mut count),
            );
            let grads = LookupGradients::new().with_tables([Some(out.into())]);
            let (inputs, saved) = (LookupInputs::new(Host::view(&ids), &tables), LookupSaved::new());
            let grad_out = LookupGradOut::new(Host::view(&grad_out));
            Cpu::new()
                .lookup_backward_into(&Lookup::default(), Bags::Each, inputs, saved, grad_out, grads)
                .wrapped()
        })?;
        let count = count[0] as usize;
        sum_ids.truncate(count);
        sum_rows.truncate(count * width);
        Ok(Some(TableRows { ids: sum_ids, rows: sum_rows }))
    }
}

/// The step, as candle lets a tensor's memory be changed.
struct Update<'a> {
    optimiser: &'a Optimiser,
    gradient: &'a TableRows,
    state: Mutex<&'a mut State>,
}

impl Update<'_> {
    fn update<T: longseq::Element>(&self, values: &mut [T], layout: &Layout) -> Result<()> {
        let (rows, width) = layout.shape().dims2()?;
        let start = layout.start_offset();
        let values = &mut values[start..start + rows * width];
        let table = TableMut::new(rows, width, Host::view_mut(values));
        let count = [self.gradient.ids.len() as u32];
        let (ids, numbers) = (Host::view(&self.gradient.ids), Host::view(&self.gradient.rows));
        let gradient = SparseGradient::new(ids, numbers, Host::view(&count));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match &mut **state {
            State::Empty => OptimiserState::Empty,
            State::Sums(sums) => OptimiserState::Sums(Host::view_mut(sums)),
            State::Moments(first, second) => {
                OptimiserState::Moments { first: Host::view_mut(first), second: Host::view_mut(second) }
            }
        };
        Cpu::new().update_rows(self.optimiser, table, state, gradient).wrapped()
    }
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "update_rows"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match storage {
            CpuStorage::F32(values) => self.update(values, layout),
            CpuStorage::F16(values) => self.update(values, layout),
            CpuStorage::BF16(values) => self.update(values, layout),
            other => candle_core::bail!(
                "{NAME}: no table of {}",
                candle_core::backend::BackendStorage::dtype(other).as_str()
            ),
        }
    }
}
