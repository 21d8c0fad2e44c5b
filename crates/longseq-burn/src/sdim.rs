//! SDIM: signatures, tables of buckets, and what reads them.

use std::sync::Arc;

use burn_core::backend::TensorMetadata;
use burn_core::tensor::{DType, Int, Tensor};
use longseq::prelude::*;
use longseq::{Hash, Result, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};

use crate::argument::{Argument, Dim, Float, by_float};
use crate::graph::{Differentiate, Input, Pass, plain, record, values};
use crate::handle::{Batch, JaggedRows, Longseq};
use crate::loan::{GradientMemory, Kind, Loan, MemoryOf};
use crate::place::{Lent, Place, Values};

/// The source of the signatures of some rows. It has no gradient.
#[derive(Clone, Copy)]
pub enum HashTensor<'a> {
    /// Signatures are computed with these rotations, `[d, G, τ]` of `f32`; [`Sdim::rotations`] draws them.
    Rotations(&'a Tensor<3>),
    /// Given signatures `[rows, G]`, each below `2^τ`: `u8` for up to 8 bits, and `u16`, are read as they are; other types are converted.
    Signatures(&'a Tensor<2, Int>),
}

/// The inputs of SDIM without a table.
#[derive(Clone, Copy)]
pub struct SdimTensors<'a> {
    /// `[N, d]`, which has gradients.
    pub history: &'a Tensor<2>,
    /// The source of the behaviours' signatures.
    pub history_hash: HashTensor<'a>,
    /// `[M, d]`; not needed if signatures are given. It is hashed, and has no gradient.
    pub targets: Option<&'a Tensor<2>>,
    /// The source of the candidates' signatures.
    pub target_hash: HashTensor<'a>,
}

impl<'a> SdimTensors<'a> {
    /// Behaviours and candidates, hashed with the same rotations.
    pub fn new(targets: &'a Tensor<2>, history: &'a Tensor<2>, rotations: &'a Tensor<3>) -> Self {
        let hash = HashTensor::Rotations(rotations);
        Self { history, history_hash: hash, targets: Some(targets), target_hash: hash }
    }
}

impl<P: Place> Longseq<P> {
    /// SDIM signatures of rows, `[rows, G]`: of `u8` for up to 8 bits, otherwise of `u16`; formula: [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_signatures`]; a tensor on another backend of burn, or of another type.
    pub fn sdim_signatures(
        &self,
        op: &Sdim,
        rows: &Tensor<2>,
        rotations: &Tensor<3>,
    ) -> Result<Tensor<2, Int>> {
        const NAME: &str = "sdim_signatures";
        let rows: Input<P> = Argument::new(NAME, "rows", rows).float()?;
        let dtype = rows.dtype();
        let tensors = values(&[rows, Argument::new(NAME, "rotations", rotations).f32()?]);
        let place = self.for_call()?;
        by_float!(dtype, T => {
            let loan = Loan::<P, T>::new(&place, &tensors, &[Kind::Row, Kind::Number])?;
            let (rows, rotations) = (loan.row(0), loan.number(1));
            let count = op.check_signatures(rows.len(), rotations.len())?;
            let shape = vec![count, op.groups];
            if op.bits <= 8 {
                let mut out = place.output::<u8>(count * op.groups)?;
                place.backend().sdim_signatures_into(op, rows, rotations, place.output_mut::<u8>(&mut out))?;
                return Ok(plain::<P, 2, _>(place.finish::<u8>(out, shape)?));
            }
            let mut out = place.output::<u16>(count * op.groups)?;
            place.backend().sdim_signatures_into(op, rows, rotations, place.output_mut::<u16>(&mut out))?;
            Ok(plain::<P, 2, _>(place.finish::<u16>(out, shape)?))
        })
    }

    /// SDIM's tables of buckets of histories, `[B, G, 2^τ, d]` of `f32`; formula: [`Sdim`]. Behaviours get gradients.
    ///
    /// # Errors
    /// Those of [`Sdim::check_encode`]; a tensor on another backend of burn, or of another type.
    pub fn sdim_encode(
        &self,
        op: &Sdim,
        histories: &JaggedRows<P>,
        history: &Tensor<2>,
        hash: HashTensor<'_>,
    ) -> Result<Tensor<4>> {
        const NAME: &str = "sdim_encode";
        let rows = self.own_rows(NAME, "histories", histories)?;
        let history: Input<P> = Argument::new(NAME, "history", history).float()?;
        let dtype = history.dtype();
        let mut inputs = Inputs::new(op, vec![history], vec![Kind::Row]);
        let hash = inputs.hash(NAME, "hash", hash)?;
        let Inputs { tensors, kinds, .. } = inputs;
        let (place, op) = (self.shared(), *op);
        by_float!(dtype, T => {
            let encode = Encode { place, rows, op, kinds, hash };
            let table = encode.forward::<T>(&self.for_call()?, &tensors)?;
            Ok(Tensor::from_dispatch(record(table, tensors, encode)?))
        })
    }

    /// Tables of buckets with more behaviours of the same users: `table` and [`sdim_encode`](Self::sdim_encode) of the new behaviours,
    /// added. Both get gradients.
    ///
    /// # Errors
    /// As [`sdim_encode`](Self::sdim_encode), and of a table of another shape or type.
    pub fn sdim_append(
        &self,
        op: &Sdim,
        new: &JaggedRows<P>,
        history: &Tensor<2>,
        hash: HashTensor<'_>,
        table: &Tensor<4>,
    ) -> Result<Tensor<4>> {
        const NAME: &str = "sdim_append";
        let added = self.sdim_encode(op, new, history, hash)?;
        let letters = ["B", "G", "2^τ", "d"];
        let shape: Vec<Dim> = letters.into_iter().zip(added.dims()).collect();
        Argument::new(NAME, "table", table).of_shape(&[&shape])?.float_as::<P>(DType::F32)?;
        Ok(table.clone() + added)
    }

    /// SDIM from tables of buckets `[B, G, 2^τ, d]` of `f32`, `[M, d]` in the type of `targets` (without, of `f32`); formula: [`Sdim`]. The
    /// table gets gradients; candidates, which are hashed, have none. They are not needed if signatures are given.
    ///
    /// # Errors
    /// Those of [`Sdim::check_query`]; a tensor on another backend of burn, or of another type.
    pub fn sdim_query(
        &self,
        op: &Sdim,
        rows: &JaggedRows<P>,
        table: &Tensor<4>,
        targets: Option<&Tensor<2>>,
        hash: HashTensor<'_>,
    ) -> Result<Tensor<2>> {
        const NAME: &str = "sdim_query";
        let rows = self.own_rows(NAME, "rows", rows)?;
        let table = Argument::new(NAME, "table", table).f32()?;
        let mut inputs = Inputs::<P>::new(op, vec![table], vec![Kind::Number]);
        let (dtype, targets) = inputs.targets(NAME, targets, DType::F32)?;
        let hash = inputs.hash(NAME, "hash", hash)?;
        let Inputs { tensors, kinds, .. } = inputs;
        let (place, op) = (self.shared(), *op);
        by_float!(dtype, T => {
            let query = Query { place, rows, op, kinds, hash, targets, dtype };
            let out = query.forward::<T>(&self.for_call()?, &tensors)?;
            Ok(Tensor::from_dispatch(record(out, tensors, query)?))
        })
    }

    /// SDIM without a table, `[M, d]`; formula: [`Sdim`]. Behaviours get gradients; candidates, which are hashed, have none.
    ///
    /// # Errors
    /// Those of [`Sdim::check_attend`]; a tensor on another backend of burn, or of another type.
    pub fn sdim_attend(&self, op: &Sdim, batch: &Batch<P>, given: SdimTensors<'_>) -> Result<Tensor<2>> {
        const NAME: &str = "sdim_attend";
        let batch = self.own(NAME, batch)?;
        let history: Input<P> = Argument::new(NAME, "history", given.history).float()?;
        let dtype = history.dtype();
        let mut inputs = Inputs::new(op, vec![history], vec![Kind::Row]);
        let (_, targets) = inputs.targets(NAME, given.targets, dtype)?;
        let history_hash = inputs.hash(NAME, "history_hash", given.history_hash)?;
        let target_hash = inputs.hash(NAME, "target_hash", given.target_hash)?;
        let Inputs { tensors, kinds, .. } = inputs;
        let (place, op) = (self.shared(), *op);
        by_float!(dtype, T => {
            let attend = Attend { place, batch, op, kinds, hashes: [history_hash, target_hash], targets };
            let out = attend.forward::<T>(&self.for_call()?, &tensors)?;
            Ok(Tensor::from_dispatch(record(out, tensors, attend)?))
        })
    }
}

/// The inputs as they are gathered.
struct Inputs<'a, P: Place> {
    op: &'a Sdim,
    tensors: Vec<Input<P>>,
    kinds: Vec<Kind>,
}

impl<'a, P: Place> Inputs<'a, P> {
    fn new(op: &'a Sdim, tensors: Vec<Input<P>>, kinds: Vec<Kind>) -> Self {
        Self { op, tensors, kinds }
    }

    fn add(&mut self, tensor: Input<P>, kind: Kind) -> usize {
        self.tensors.push(tensor.detached());
        self.kinds.push(kind);
        self.kinds.len() - 1
    }

    /// The type of the candidates' rows, and their index. They are in no graph.
    fn targets(
        &mut self,
        operation: &'static str,
        targets: Option<&Tensor<2>>,
        dtype: DType,
    ) -> Result<(DType, Option<usize>)> {
        let Some(targets) = targets else { return Ok((dtype, None)) };
        let targets = Argument::new(operation, "targets", targets);
        // With a table the candidates alone say what the rows' type is.
        let targets: Input<P> =
            if self.kinds[0] == Kind::Row { targets.float_as(dtype)? } else { targets.float()? };
        Ok((targets.dtype(), Some(self.add(targets, Kind::Row))))
    }

    fn hash(
        &mut self,
        operation: &'static str,
        argument: &'static str,
        hash: HashTensor<'_>,
    ) -> Result<GivenHash> {
        Ok(match hash {
            HashTensor::Rotations(rotations) => {
                let rotations = Argument::new(operation, "rotations", rotations).f32()?;
                GivenHash::Rotations(self.add(rotations, Kind::Number))
            }
            HashTensor::Signatures(given) if given.dtype() == DType::U8 && self.op.bits <= 8 => {
                let given = Argument::new(operation, argument, given).of_type(DType::U8)?;
                GivenHash::Signatures8(self.add(given, Kind::Unread))
            }
            HashTensor::Signatures(given) => {
                let given = Argument::new(operation, argument, given).words()?;
                GivenHash::Signatures16(self.add(given, Kind::Unread))
            }
        })
    }
}

/// The source of signatures: the index of rotations, or of signatures.
enum GivenHash {
    Rotations(usize),
    Signatures8(usize),
    Signatures16(usize),
}

/// The same where a backend reads it.
enum LentHash<'a, P: Place> {
    Rotations(Lent<'a, P, f32>),
    Signatures8(Lent<'a, P, u8>),
    Signatures16(Lent<'a, P, u16>),
}

impl GivenHash {
    fn lend<'a, P: Place>(&self, place: &P, tensors: &'a [Values<P>]) -> Result<LentHash<'a, P>> {
        Ok(match self {
            Self::Rotations(index) => LentHash::Rotations(place.lend(&tensors[*index])?),
            Self::Signatures8(index) => LentHash::Signatures8(place.lend(&tensors[*index])?),
            Self::Signatures16(index) => LentHash::Signatures16(place.lend(&tensors[*index])?),
        })
    }
}

impl<P: Place> LentHash<'_, P> {
    fn hash(&self) -> Hash<'_, MemoryOf<P>> {
        match self {
            Self::Rotations(lent) => Hash::Rotations(lent.view()),
            Self::Signatures8(lent) => Hash::Signatures8(lent.view()),
            Self::Signatures16(lent) => Hash::Signatures16(lent.view()),
        }
    }
}

/// `encode` in the graph: the history, then rotations.
struct Encode<P: Place> {
    place: Arc<P>,
    rows: Arc<<P::Backend as DeviceOps>::Jagged>,
    op: Sdim,
    kinds: Vec<Kind>,
    hash: GivenHash,
}

impl<P: Place> Encode<P> {
    fn forward<T: Float>(&self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &self.kinds)?;
        let hash = self.hash.lend(place, &tensors)?;
        let inputs = SdimEncodeInputs::new(loan.row(0), hash.hash());
        let rows = (*self.rows).as_ref();
        self.op.check_encode("sdim_encode", rows, &inputs)?;
        let mut table = place.output::<f32>(self.op.table_length(rows.users())?)?;
        let shape = vec![rows.users(), self.op.groups, self.op.buckets(), self.op.width];
        place.backend().sdim_encode_into(&self.op, &self.rows, inputs, place.output_mut(&mut table))?;
        place.finish::<f32>(table, shape)
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &self.kinds)?;
        {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &self.kinds)?;
            let hash = self.hash.lend(&place, pass.inputs)?;
            let inputs = SdimEncodeInputs::new(loan.row(0), hash.hash());
            let grad = place.lend::<f32>(pass.grad)?;
            let (mut rows, _) = memory.views(&place);
            let Some(history) = rows[0].take() else { return Ok(vec![None; pass.inputs.len()]) };
            place.backend().sdim_encode_backward_into(&self.op, &self.rows, inputs, grad.view(), history)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for Encode<P> {
    fn name(&self) -> &'static str {
        "sdim_encode"
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}

/// `query` in the graph: the table, then candidates and rotations.
struct Query<P: Place> {
    place: Arc<P>,
    rows: Arc<<P::Backend as DeviceOps>::Jagged>,
    op: Sdim,
    kinds: Vec<Kind>,
    hash: GivenHash,
    targets: Option<usize>,
    /// Of the result.
    dtype: DType,
}

impl<P: Place> Query<P> {
    fn forward<T: Float>(&self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &self.kinds)?;
        let hash = self.hash.lend(place, &tensors)?;
        let mut inputs = SdimQueryInputs::new(loan.number(0), hash.hash());
        inputs.targets = self.targets.map(|index| loan.row(index));
        let rows = (*self.rows).as_ref();
        self.op.check_query("sdim_query", rows, &inputs)?;
        let mut out = place.output::<T>(self.op.output_length(rows)?)?;
        let shape = vec![rows.rows(), self.op.width];
        place.backend().sdim_query_into(&self.op, &self.rows, inputs, place.output_mut(&mut out))?;
        place.finish::<T>(out, shape)
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &self.kinds)?;
        {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &self.kinds)?;
            let hash = self.hash.lend(&place, pass.inputs)?;
            let mut inputs = SdimQueryInputs::new(loan.number(0), hash.hash());
            inputs.targets = self.targets.map(|index| loan.row(index));
            let grad = place.lend::<T>(pass.grad)?;
            let (_, mut numbers) = memory.views(&place);
            let Some(table) = numbers[0].take() else { return Ok(vec![None; pass.inputs.len()]) };
            place.backend().sdim_query_backward_into(&self.op, &self.rows, inputs, grad.view(), table)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for Query<P> {
    fn name(&self) -> &'static str {
        "sdim_query"
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(self.dtype, T => self.backward::<T>(pass))
    }
}

/// `attend` in the graph: the history, then candidates and rotations.
struct Attend<P: Place> {
    place: Arc<P>,
    batch: Arc<<P::Backend as DeviceOps>::Batch>,
    op: Sdim,
    kinds: Vec<Kind>,
    hashes: [GivenHash; 2],
    targets: Option<usize>,
}

impl<P: Place> Attend<P> {
    fn forward<T: Float>(&self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &self.kinds)?;
        let hashes = [self.hashes[0].lend(place, &tensors)?, self.hashes[1].lend(place, &tensors)?];
        let mut inputs = SdimAttendInputs::new(loan.row(0), hashes[0].hash(), hashes[1].hash());
        inputs.targets = self.targets.map(|index| loan.row(index));
        let batch = (*self.batch).as_ref();
        self.op.check_attend("sdim_attend", batch, &inputs)?;
        let mut out = place.output::<T>(self.op.output_length(batch.targets())?)?;
        let shape = vec![batch.targets().rows(), self.op.width];
        place.backend().sdim_attend_into(&self.op, &self.batch, inputs, place.output_mut(&mut out))?;
        place.finish::<T>(out, shape)
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &self.kinds)?;
        {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &self.kinds)?;
            let hashes =
                [self.hashes[0].lend(&place, pass.inputs)?, self.hashes[1].lend(&place, pass.inputs)?];
            let mut inputs = SdimAttendInputs::new(loan.row(0), hashes[0].hash(), hashes[1].hash());
            inputs.targets = self.targets.map(|index| loan.row(index));
            let grad = place.lend::<T>(pass.grad)?;
            let (mut rows, _) = memory.views(&place);
            let Some(history) = rows[0].take() else { return Ok(vec![None; pass.inputs.len()]) };
            place.backend().sdim_attend_backward_into(&self.op, &self.batch, inputs, grad.view(), history)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for Attend<P> {
    fn name(&self) -> &'static str {
        "sdim_attend"
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
