//! DARE: tables to search in, and tables to aggregate.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use longseq::{Bags, Decoupled, Lookup, Optimiser};

use crate::decoupled::IdTensors;
use crate::error::wrong;
use crate::handle::{Batch, Longseq};
use crate::lookup::LookupTensors;
use crate::place::Place;
use crate::sparse_table::SparseTable;
use crate::tables::TableTensor;

const NAME: &str = "DareLayer";

/// DARE: behaviours are searched and weighed by the rows of one set of tables, and aggregated from those of another, so that the two purposes do not
/// pull at the same embedding.
///
/// Formula: [`Decoupled`]; its scales are DARE's own with [`Decoupled::dare`], and `with_multiply_target(true)` makes the paper's target-aware
/// representation. Weights: for feature `f`, `attention.f` `[rows, a]` and `representation.f` `[rows, r]`, at first normal with a deviation of 0.05.
///
/// **Training.** The tables are [`SparseTable`]s: `backward` leaves sparse gradients with them, and [`step`](Self::step) changes the rows that were read, with
/// an optimiser of longseq's. The other parameters of a model have an optimiser of candle's, which leaves the tables alone. They
/// share the memory of the builder's variables, so that a `VarMap` saves and loads them (of rows of `f32`, `f16` or `bf16`; what an optimiser keeps is not
/// saved).
///
/// ```
/// use candle_core::{DType, Device, Result, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use longseq_candle::layers::{DareLayer, DareTable};
/// use longseq_candle::longseq::{Decoupled, Optimiser};
/// use longseq_candle::{IdTensors, Longseq};
///
/// # fn main() -> Result<()> {
/// let longseq = Longseq::cpu();
/// let map = VarMap::new();
/// let builder = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
/// // Items and categories.
/// let tables = [DareTable::new(1000, 8, 32), DareTable::new(20, 8, 16)];
/// let op = Decoupled::new([0.25, 0.25]).with_multiply_target(true);
/// let layer = DareLayer::new(op, &tables, builder)?;
///
/// let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 1][..])?;
/// let history = Tensor::new(&[[5_u32, 1], [907, 3], [44, 1]], &Device::Cpu)?;
/// let target = Tensor::new(&[[12_u32, 1]], &Device::Cpu)?;
/// let interest = layer.forward(&longseq, &batch, IdTensors::new(&history, &target))?; // [1, 48]
/// interest.sqr()?.sum_all()?.backward()?;
/// assert_eq!(layer.step(&Optimiser::sgd(0.1))?, 2 * (4 + 2)); // of both sets: four items, two categories
/// # Ok(()) }
/// ```
///
/// Source: Feng et al., "Long-Sequence Recommendation Models Need Decoupled Embeddings", ICLR 2025, arXiv 2410.02604, §3. The published code masks
/// its second stage by membership in the top `K` alone, so that padding takes weight where a history has fewer; here there is no padding.
pub struct DareLayer {
    op: Decoupled,
    attention: Vec<SparseTable>,
    representation: Vec<SparseTable>,
}

/// The tables of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DareTable {
    /// How many ids the feature has.
    pub rows: usize,
    /// `a`: the width of an attention row.
    pub attention: usize,
    /// `r`: the width of a representation row.
    pub representation: usize,
}

impl DareTable {
    /// Rows, and the widths of attention and of representation.
    pub fn new(rows: usize, attention: usize, representation: usize) -> Self {
        Self { rows, attention, representation }
    }
}

impl DareLayer {
    /// A layer with tables for each of the features that `op` has scales for.
    ///
    /// # Errors
    /// Another number of tables than of scales; those of candle, such as a table that the builder has not.
    pub fn new(op: Decoupled, tables: &[DareTable], builder: VarBuilder<'_>) -> Result<Self> {
        if tables.len() != op.features() {
            let expected = format!("{}, one for each scale", op.features());
            return Err(wrong(NAME, "tables", expected, tables.len().to_string()));
        }
        let set = |name: &str, width: fn(&DareTable) -> usize| {
            let builder = builder.pp(name);
            let small = Init::Randn { mean: 0.0, stdev: 0.05 };
            let table = |(feature, table): (usize, &DareTable)| {
                let shape = (table.rows, width(table));
                SparseTable::new(&builder.get_with_hints(shape, &feature.to_string(), small)?)
            };
            tables.iter().enumerate().map(table).collect::<Result<Vec<_>>>()
        };
        let attention = set("attention", |table| table.attention)?;
        let representation = set("representation", |table| table.representation)?;
        Ok(Self { op, attention, representation })
    }

    /// The interest of each candidate's user in it, `[M, Σ r]` of `f32`.
    ///
    /// # Errors
    /// Those of [`Longseq::decoupled_attend`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        ids: IdTensors<'_>,
    ) -> Result<Tensor> {
        self.attend(longseq, &self.op, batch, ids)
    }

    /// The same over the whole history, whatever `top_k` is: what DARE's auxiliary loss is computed from, through the head of the main one.
    ///
    /// # Errors
    /// Those of [`Longseq::decoupled_attend`].
    pub fn forward_all<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        ids: IdTensors<'_>,
    ) -> Result<Tensor> {
        self.attend(longseq, &self.op.clone().with_top_k(None), batch, ids)
    }

    fn attend<B: Place>(
        &self,
        longseq: &Longseq<B>,
        op: &Decoupled,
        batch: &Batch<B>,
        ids: IdTensors<'_>,
    ) -> Result<Tensor> {
        let (attention, representation) = (tensors(&self.attention), tensors(&self.representation));
        longseq.decoupled_attend(op, batch, &attention, &representation, ids)
    }

    /// The representation of the candidates themselves, `[M, Σ r]` of `f32`, from their ids `[M, F]`: what a model joins to their users' interest.
    ///
    /// # Errors
    /// Those of [`Longseq::lookup`].
    pub fn represent<B: Place>(&self, longseq: &Longseq<B>, target_ids: &Tensor) -> Result<Tensor> {
        let tables = tensors(&self.representation);
        let op = Lookup::default().with_ids(self.op.ids);
        longseq.lookup(&op, Bags::Each, LookupTensors::new(target_ids, &tables))
    }

    /// A step of an optimiser on all tables; returns how many rows it changed. For a step with different optimisers: the tables' own
    /// [`step`](SparseTable::step).
    ///
    /// # Errors
    /// Those of [`SparseTable::step`]; tables before the one that failed are changed.
    pub fn step(&self, optimiser: &Optimiser) -> Result<usize> {
        self.tables().map(|table| table.step(optimiser)).sum()
    }

    /// Forgets the gradients since the last step.
    pub fn clear_gradients(&self) {
        self.tables().for_each(SparseTable::clear_gradient);
    }

    /// The attention tables, one for each feature.
    pub fn attention(&self) -> &[SparseTable] {
        &self.attention
    }

    /// The representation tables, one for each feature.
    pub fn representation(&self) -> &[SparseTable] {
        &self.representation
    }

    fn tables(&self) -> impl Iterator<Item = &SparseTable> {
        self.attention.iter().chain(&self.representation)
    }
}

fn tensors(tables: &[SparseTable]) -> Vec<TableTensor<'_>> {
    tables.iter().map(TableTensor::from).collect()
}
