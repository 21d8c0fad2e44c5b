//! Search, packed signs, and what a search keeps.

use candle_core::{DType, Device, Result, Tensor};
use longseq::{Search, SearchRows, SelectionMut, Signs, SimilarityInputs};

use crate::error::{Wrapped, wrong};
use crate::handle::{Batch, Longseq};
use crate::loan::{Kind, Loan};
use crate::place::{Lent, Place};
use crate::read::{Slices, read};
use crate::tensors::{Argument, by_float, columns_of};

const NAME: &str = "search";

/// What a search kept, or a selection of the caller's: best first, `[M, K]`.
///
/// The choice has no gradient. `scores` has, where [`decoupled_search`](Longseq::decoupled_search) made it; it is `-∞` in empty slots.
#[derive(Debug, Clone)]
pub struct SelectionTensors {
    /// `[M, K]`: positions within the user's history, `u32`.
    pub positions: Tensor,
    /// `[M, K]`: their scores, `f32`.
    pub scores: Tensor,
    /// `[M]`: how many are kept, `u32`.
    pub counts: Tensor,
}

impl SelectionTensors {
    /// A selection of the caller's.
    pub fn new(positions: Tensor, scores: Tensor, counts: Tensor) -> Self {
        Self { positions, scores, counts }
    }

    /// Positions, scores and counts, checked.
    pub(crate) fn checked(
        &self,
        operation: &'static str,
        candidates: usize,
        top_k: usize,
    ) -> Result<[Tensor; 3]> {
        let (m, k) = (("M", candidates), ("K", top_k));
        let argument = |name, tensor| Argument::new(operation, name, tensor);
        let positions = columns_of(argument("positions", &self.positions), m, k)?.ids()?;
        let scores = columns_of(argument("scores", &self.scores), m, k)?.f32()?;
        let counts = argument("counts", &self.counts).of_shape(&[&[m]])?.ids()?;
        Ok([positions, scores, counts])
    }
}

/// Rows of candidates or of behaviours, as a search reads them; none of them gets a gradient.
#[derive(Clone, Copy)]
pub enum SearchTensor<'a> {
    /// `[rows, a]` of `f32`, `f16` or `bf16`.
    Rows(&'a Tensor),
    /// `[rows, a]` of `u8`: the bits of 8-bit integers with a sign (candle has no `i8`), which are the values themselves; copied.
    Codes(&'a Tensor),
    /// `[rows, ⌈bits/32⌉]` packed signs, `u32`, from [`pack_signs`](Longseq::pack_signs).
    Signs(&'a Tensor),
    /// `[rows]` keys, integers.
    Keys(&'a Tensor),
}

impl<B: Place> Longseq<B> {
    /// The best behaviours of each candidate; formula: [`Search`]. `bias`, `[N]` of `f32`, is added to dot products.
    ///
    /// # Errors
    /// Those of [`Search::check`], in longseq's words; a tensor that is not on the CPU, or of another type.
    pub fn search(
        &self,
        op: &Search,
        batch: &Batch<B>,
        queries: SearchTensor<'_>,
        keys: SearchTensor<'_>,
        bias: Option<&Tensor>,
    ) -> Result<SelectionTensors> {
        let (backend, inner) = (self.fork()?, self.own(NAME, batch)?);
        let sides = Sides::new(queries, keys, bias)?;
        read(&sides.tensors, |parts| {
            let lent = sides.lend(&backend, parts)?;
            let inputs = lent.inputs();
            op.check(batch.batch(), &inputs).wrapped()?;
            let length = op.selection_length(batch.batch()).wrapped()?;
            let mut output = SelectionOutput::new(&backend, length, batch.batch().targets().rows())?;
            backend.search_into(op, &inner, inputs, output.out(&backend)).wrapped()?;
            output.finish(&backend, op.top_k)
        })
    }

    /// The packed signs of rotated rows, `[rows, ⌈bits/32⌉]` of `u32`; formula: [`Signs`].
    ///
    /// # Errors
    /// Those of [`Signs::check`]; a tensor that is not on the CPU, or of another type.
    pub fn pack_signs(&self, op: &Signs, rows: &Tensor, rotations: &Tensor) -> Result<Tensor> {
        const NAME: &str = "pack_signs";
        let rows = Argument::new(NAME, "rows", rows).float()?.detach();
        let rotations = Argument::new(NAME, "rotations", rotations).f32()?.detach();
        let backend = self.fork()?;
        by_float!(rows.dtype(), T => read(&[rows, rotations], |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &[Kind::Row, Kind::Number])?;
            let (rows, rotations) = (loan.row(0), loan.number(1));
            let count = op.check(rows.len(), rotations.len()).wrapped()?;
            let mut out = backend.output::<u32>(count * op.words()).wrapped()?;
            backend.pack_signs_into(op, rows, rotations, backend.output_mut(&mut out)).wrapped()?;
            Tensor::from_vec(backend.finish::<u32>(out).wrapped()?, (count, op.words()), &Device::Cpu)
        }))
    }
}

/// Memory for a selection.
pub(crate) struct SelectionOutput<B: Place> {
    positions: B::Output<u32>,
    scores: B::Output<f32>,
    counts: B::Output<u32>,
    candidates: usize,
}

impl<B: Place> SelectionOutput<B> {
    pub(crate) fn new(backend: &B, slots: usize, candidates: usize) -> Result<Self> {
        let (positions, scores) =
            (backend.output::<u32>(slots).wrapped()?, backend.output::<f32>(slots).wrapped()?);
        Ok(Self { positions, scores, counts: backend.output::<u32>(candidates).wrapped()?, candidates })
    }

    pub(crate) fn out(&mut self, backend: &B) -> SelectionMut<'_, B::Memory> {
        SelectionMut::new(
            backend.output_mut(&mut self.positions),
            backend.output_mut(&mut self.scores),
            backend.output_mut(&mut self.counts),
        )
    }

    pub(crate) fn finish(self, backend: &B, top_k: usize) -> Result<SelectionTensors> {
        let shape = (self.candidates, top_k);
        let positions =
            Tensor::from_vec(backend.finish::<u32>(self.positions).wrapped()?, shape, &Device::Cpu)?;
        let scores = Tensor::from_vec(backend.finish::<f32>(self.scores).wrapped()?, shape, &Device::Cpu)?;
        let counts =
            Tensor::from_vec(backend.finish::<u32>(self.counts).wrapped()?, self.candidates, &Device::Cpu)?;
        Ok(SelectionTensors { positions, scores, counts })
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
pub(crate) struct Sides {
    pub(crate) tensors: Vec<Tensor>,
    stored: [Stored; 2],
    codes: [Vec<i8>; 2],
}

impl Sides {
    pub(crate) fn new(
        queries: SearchTensor<'_>,
        keys: SearchTensor<'_>,
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        let mut sides = Self { tensors: Vec::new(), stored: [Stored::F32; 2], codes: Default::default() };
        for (side, (name, given)) in [("queries", queries), ("keys", keys)].into_iter().enumerate() {
            let (stored, tensor) = match given {
                SearchTensor::Rows(rows) => {
                    let rows = Argument::new(NAME, name, rows).float()?.detach();
                    match rows.dtype() {
                        DType::F16 => (Stored::F16, rows),
                        DType::BF16 => (Stored::Bf16, rows),
                        _ => (Stored::F32, rows),
                    }
                }
                SearchTensor::Codes(codes) => {
                    let codes = Argument::new(NAME, name, codes).bytes()?;
                    let bytes = codes.flatten_all()?.to_vec1::<u8>()?;
                    sides.codes[side] = bytes.into_iter().map(u8::cast_signed).collect();
                    (Stored::Codes, codes)
                }
                SearchTensor::Signs(signs) if signs.dtype() != DType::U32 => {
                    return Err(wrong(NAME, name, "packed signs, u32", signs.dtype().as_str()));
                }
                SearchTensor::Signs(signs) => (Stored::Signs, Argument::new(NAME, name, signs).ids()?),
                SearchTensor::Keys(keys) => (Stored::Keys, Argument::new(NAME, name, keys).ids()?),
            };
            sides.stored[side] = stored;
            sides.tensors.push(tensor);
        }
        if let Some(bias) = bias {
            sides.tensors.push(Argument::new(NAME, "bias", bias).f32()?.detach());
        }
        Ok(sides)
    }

    pub(crate) fn lend<'a, B: Place>(&'a self, backend: &B, parts: &Slices<'a>) -> Result<LentSides<'a, B>> {
        let lend = |side: usize| -> Result<LentSide<'a, B>> {
            Ok(match self.stored[side] {
                Stored::F32 => LentSide::F32(backend.lend(parts.of(side)?).wrapped()?),
                Stored::F16 => LentSide::F16(backend.lend(parts.of(side)?).wrapped()?),
                Stored::Bf16 => LentSide::Bf16(backend.lend(parts.of(side)?).wrapped()?),
                Stored::Codes => LentSide::Codes(backend.lend(&self.codes[side][..]).wrapped()?),
                Stored::Signs => LentSide::Signs(backend.lend(parts.of(side)?).wrapped()?),
                Stored::Keys => LentSide::Keys(backend.lend(parts.of(side)?).wrapped()?),
            })
        };
        let bias = match self.tensors.len() {
            2 => None,
            _ => Some(backend.lend(parts.of::<f32>(2)?).wrapped()?),
        };
        Ok(LentSides { queries: lend(0)?, keys: lend(1)?, bias })
    }
}

/// One side where a backend reads it.
enum LentSide<'a, B: Place> {
    F32(Lent<'a, B, f32>),
    F16(Lent<'a, B, longseq::half::f16>),
    Bf16(Lent<'a, B, longseq::half::bf16>),
    Codes(Lent<'a, B, i8>),
    Signs(Lent<'a, B, u32>),
    Keys(Lent<'a, B, u32>),
}

/// Both sides, and a bias.
pub(crate) struct LentSides<'a, B: Place> {
    queries: LentSide<'a, B>,
    keys: LentSide<'a, B>,
    bias: Option<Lent<'a, B, f32>>,
}

impl<B: Place> LentSide<'_, B> {
    fn rows(&self) -> SearchRows<'_, B::Memory> {
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

impl<B: Place> LentSides<'_, B> {
    pub(crate) fn inputs(&self) -> SimilarityInputs<'_, B::Memory> {
        let mut inputs = SimilarityInputs::new(self.queries.rows(), self.keys.rows());
        inputs.bias = self.bias.as_ref().map(Lent::view);
        inputs
    }
}
