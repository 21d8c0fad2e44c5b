//! Search, packed signs, and what a search keeps.

use burn_core::tensor::{DType, Int, Tensor};
use longseq::prelude::*;
use longseq::{Result, Search, SearchRows, SelectionMut, Signs, SimilarityInputs};

use crate::argument::{Argument, by_float};
use crate::graph::{Input, plain, values};
use crate::handle::{Batch, Longseq};
use crate::loan::{Kind, Loan, MemoryOf};
use crate::place::{Lent, Place, Values};

const NAME: &str = "search";

/// What a search kept, or a selection of the caller's: best first, `[M, K]`.
///
/// The choice has no gradient. `scores` has, where [`decoupled_search`](Longseq::decoupled_search) made it; it is `-∞` in empty slots.
#[derive(Debug, Clone)]
pub struct SelectionTensors {
    /// `[M, K]`: positions within the user's history, `u32`.
    pub positions: Tensor<2, Int>,
    /// `[M, K]`: their scores, `f32`.
    pub scores: Tensor<2>,
    /// `[M]`: how many are kept, `u32`.
    pub counts: Tensor<1, Int>,
}

impl SelectionTensors {
    /// A selection of the caller's.
    pub fn new(positions: Tensor<2, Int>, scores: Tensor<2>, counts: Tensor<1, Int>) -> Self {
        Self { positions, scores, counts }
    }

    /// Positions, scores and counts, checked.
    pub(crate) fn checked<P: Place>(
        &self,
        operation: &'static str,
        candidates: usize,
        top_k: usize,
    ) -> Result<[Input<P>; 3]> {
        let shape = [("M", candidates), ("K", top_k)];
        let positions = Argument::new(operation, "positions", &self.positions);
        let scores = Argument::new(operation, "scores", &self.scores);
        let counts = Argument::new(operation, "counts", &self.counts);
        Ok([
            positions.of_shape(&[&shape])?.ids()?,
            scores.of_shape(&[&shape])?.f32()?,
            counts.of_shape(&[&shape[..1]])?.ids()?,
        ])
    }
}

/// Rows of candidates or of behaviours, as a search reads them; none of them gets a gradient.
#[derive(Clone, Copy)]
pub enum SearchTensor<'a> {
    /// `[rows, a]` of `f32`, `f16` or `bf16`.
    Rows(&'a Tensor<2>),
    /// `[rows, a]` of `i8`, which are the values themselves.
    Codes(&'a Tensor<2, Int>),
    /// `[rows, ⌈bits/32⌉]` packed signs, `u32`, from [`pack_signs`](Longseq::pack_signs).
    Signs(&'a Tensor<2, Int>),
    /// `[rows]` keys, integers.
    Keys(&'a Tensor<1, Int>),
}

impl<P: Place> Longseq<P> {
    /// The best behaviours of each candidate; formula: [`Search`]. `bias`, `[N]` of `f32`, is added to dot products.
    ///
    /// # Errors
    /// Those of [`Search::check`]; a tensor on another backend of burn, or of another type.
    pub fn search(
        &self,
        op: &Search,
        batch: &Batch<P>,
        queries: SearchTensor<'_>,
        keys: SearchTensor<'_>,
        bias: Option<&Tensor<1>>,
    ) -> Result<SelectionTensors> {
        let (place, inner) = (self.for_call()?, self.own(NAME, batch)?);
        let sides = Sides::<P>::new(queries, keys, bias)?;
        let lent = sides.lend(&place)?;
        let inputs = lent.inputs();
        op.check(batch.batch(), &inputs)?;
        let length = op.selection_length(batch.batch())?;
        let mut output = SelectionOutput::new(&place, length, batch.batch().targets().rows())?;
        place.backend().search_into(op, &inner, inputs, output.out(&place))?;
        Ok(output.finish(&place, op.top_k)?.tensors())
    }

    /// The packed signs of rotated rows, `[rows, ⌈bits/32⌉]` of `u32`; formula: [`Signs`].
    ///
    /// # Errors
    /// Those of [`Signs::check`]; a tensor on another backend of burn, or of another type.
    pub fn pack_signs(&self, op: &Signs, rows: &Tensor<2>, rotations: &Tensor<2>) -> Result<Tensor<2, Int>> {
        const NAME: &str = "pack_signs";
        let rows: Input<P> = Argument::new(NAME, "rows", rows).float()?;
        let dtype = rows.dtype();
        let tensors = values(&[rows, Argument::new(NAME, "rotations", rotations).f32()?]);
        let place = self.for_call()?;
        by_float!(dtype, T => {
            let loan = Loan::<P, T>::new(&place, &tensors, &[Kind::Row, Kind::Number])?;
            let (rows, rotations) = (loan.row(0), loan.number(1));
            let count = op.check(rows.len(), rotations.len())?;
            let mut out = place.output::<u32>(count * op.words())?;
            place.backend().pack_signs_into(op, rows, rotations, place.output_mut(&mut out))?;
            Ok(plain::<P, 2, _>(place.finish::<u32>(out, vec![count, op.words()])?))
        })
    }
}

/// Memory for a selection.
pub(crate) struct SelectionOutput<P: Place> {
    positions: P::Output<u32>,
    scores: P::Output<f32>,
    counts: P::Output<u32>,
    candidates: usize,
}

/// A selection outside of the graph.
pub(crate) struct Kept<P: Place> {
    pub(crate) positions: Values<P>,
    pub(crate) scores: Values<P>,
    pub(crate) counts: Values<P>,
}

impl<P: Place> Kept<P> {
    pub(crate) fn tensors(self) -> SelectionTensors {
        SelectionTensors {
            positions: plain::<P, 2, _>(self.positions),
            scores: plain::<P, 2, _>(self.scores),
            counts: plain::<P, 1, _>(self.counts),
        }
    }
}

impl<P: Place> SelectionOutput<P> {
    pub(crate) fn new(place: &P, slots: usize, candidates: usize) -> Result<Self> {
        let (positions, scores) = (place.output::<u32>(slots)?, place.output::<f32>(slots)?);
        Ok(Self { positions, scores, counts: place.output::<u32>(candidates)?, candidates })
    }

    pub(crate) fn out(&mut self, place: &P) -> SelectionMut<'_, MemoryOf<P>> {
        SelectionMut::new(
            place.output_mut(&mut self.positions),
            place.output_mut(&mut self.scores),
            place.output_mut(&mut self.counts),
        )
    }

    pub(crate) fn finish(self, place: &P, top_k: usize) -> Result<Kept<P>> {
        let shape = vec![self.candidates, top_k];
        Ok(Kept {
            positions: place.finish::<u32>(self.positions, shape.clone())?,
            scores: place.finish::<f32>(self.scores, shape)?,
            counts: place.finish::<u32>(self.counts, vec![self.candidates])?,
        })
    }
}

/// How a side is stored.
#[derive(Clone, Copy)]
enum Stored {
    F32,
    F16,
    Bf16,
    Codes,
    Signs,
    Keys,
}

/// Both sides of a search, and a bias, checked.
pub(crate) struct Sides<P: Place> {
    tensors: Vec<Values<P>>,
    stored: [Stored; 2],
}

impl<P: Place> Sides<P> {
    pub(crate) fn new(
        queries: SearchTensor<'_>,
        keys: SearchTensor<'_>,
        bias: Option<&Tensor<1>>,
    ) -> Result<Self> {
        let mut inputs: Vec<Input<P>> = Vec::new();
        let mut stored = [Stored::F32; 2];
        for (side, (name, given)) in [("queries", queries), ("keys", keys)].into_iter().enumerate() {
            let (kind, input) = match given {
                SearchTensor::Rows(rows) => {
                    let rows: Input<P> = Argument::new(NAME, name, rows).float()?;
                    match rows.dtype() {
                        DType::F16 => (Stored::F16, rows),
                        DType::BF16 => (Stored::Bf16, rows),
                        _ => (Stored::F32, rows),
                    }
                }
                SearchTensor::Codes(codes) => {
                    (Stored::Codes, Argument::new(NAME, name, codes).of_type(DType::I8)?)
                }
                SearchTensor::Signs(signs) => {
                    (Stored::Signs, Argument::new(NAME, name, signs).of_type(DType::U32)?)
                }
                SearchTensor::Keys(keys) => (Stored::Keys, Argument::new(NAME, name, keys).ids()?),
            };
            stored[side] = kind;
            inputs.push(input);
        }
        if let Some(bias) = bias {
            inputs.push(Argument::new(NAME, "bias", bias).f32()?);
        }
        Ok(Self { tensors: values(&inputs), stored })
    }

    pub(crate) fn lend<'a>(&'a self, place: &P) -> Result<LentSides<'a, P>> {
        let lend = |side: usize| -> Result<LentSide<'a, P>> {
            let tensor = &self.tensors[side];
            Ok(match self.stored[side] {
                Stored::F32 => LentSide::F32(place.lend(tensor)?),
                Stored::F16 => LentSide::F16(place.lend(tensor)?),
                Stored::Bf16 => LentSide::Bf16(place.lend(tensor)?),
                Stored::Codes => LentSide::Codes(place.lend(tensor)?),
                Stored::Signs => LentSide::Signs(place.lend(tensor)?),
                Stored::Keys => LentSide::Keys(place.lend(tensor)?),
            })
        };
        let bias = self.tensors.get(2).map(|bias| place.lend::<f32>(bias)).transpose()?;
        Ok(LentSides { queries: lend(0)?, keys: lend(1)?, bias })
    }
}

/// One side where a backend reads it.
enum LentSide<'a, P: Place> {
    F32(Lent<'a, P, f32>),
    F16(Lent<'a, P, longseq::half::f16>),
    Bf16(Lent<'a, P, longseq::half::bf16>),
    Codes(Lent<'a, P, i8>),
    Signs(Lent<'a, P, u32>),
    Keys(Lent<'a, P, u32>),
}

/// Both sides, and a bias.
pub(crate) struct LentSides<'a, P: Place> {
    queries: LentSide<'a, P>,
    keys: LentSide<'a, P>,
    bias: Option<Lent<'a, P, f32>>,
}

impl<P: Place> LentSide<'_, P> {
    fn rows(&self) -> SearchRows<'_, MemoryOf<P>> {
        match self {
            Self::F32(lent) => SearchRows::F32(lent.view()),
            Self::F16(lent) => SearchRows::F16(lent.view()),
            Self::Bf16(lent) => SearchRows::Bf16(lent.view()),
            Self::Codes(lent) => SearchRows::Codes(lent.view()),
            Self::Signs(lent) => SearchRows::Signs(lent.view()),
            Self::Keys(lent) => SearchRows::Keys(lent.view()),
        }
    }
}

impl<P: Place> LentSides<'_, P> {
    pub(crate) fn inputs(&self) -> SimilarityInputs<'_, MemoryOf<P>> {
        let mut inputs = SimilarityInputs::new(self.queries.rows(), self.keys.rows());
        inputs.bias = self.bias.as_ref().map(Lent::view);
        inputs
    }
}
