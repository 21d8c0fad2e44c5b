//! SDIM: signatures, tables of buckets, and what reads them.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use longseq::{Hash, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};

use crate::error::{Wrapped, wrong};
use crate::handle::{Batch, JaggedRows, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::{Lent, Place};
use crate::read::{Slices, read};
use crate::record::{Backward, Pass, record};
use crate::tensors::{Argument, Float, by_float};

/// The source of the signatures of some rows. It has no gradient.
#[derive(Clone, Copy)]
pub enum HashTensor<'a> {
    /// Signatures are computed with these rotations, `[d, G, τ]` of `f32`; [`Sdim::rotations`] draws them.
    Rotations(&'a Tensor),
    /// Given signatures `[rows, G]`, each below `2^τ`: of `u8` for up to 8 bits, or of another integer type.
    Signatures(&'a Tensor),
}

/// The inputs of SDIM without a table.
#[derive(Clone, Copy)]
pub struct SdimTensors<'a> {
    /// `[N, d]`, which has gradients.
    pub history: &'a Tensor,
    /// The source of the behaviours' signatures.
    pub history_hash: HashTensor<'a>,
    /// `[M, d]`; not needed if signatures are given. It is hashed, and has no gradient.
    pub targets: Option<&'a Tensor>,
    /// The source of the candidates' signatures.
    pub target_hash: HashTensor<'a>,
}

impl<'a> SdimTensors<'a> {
    /// Behaviours and candidates, hashed with the same rotations.
    pub fn new(targets: &'a Tensor, history: &'a Tensor, rotations: &'a Tensor) -> Self {
        let hash = HashTensor::Rotations(rotations);
        Self { history, history_hash: hash, targets: Some(targets), target_hash: hash }
    }
}

impl<B: Place> Longseq<B> {
    /// SDIM signatures of rows, `[rows, G]`: of `u8` for up to 8 bits, otherwise of `u32`; formula: [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_signatures`]; a tensor that is not on the CPU, or of another type.
    pub fn sdim_signatures(&self, op: &Sdim, rows: &Tensor, rotations: &Tensor) -> Result<Tensor> {
        const NAME: &str = "sdim_signatures";
        let rows = Argument::new(NAME, "rows", rows).float()?.detach();
        let rotations = Argument::new(NAME, "rotations", rotations).f32()?.detach();
        let backend = self.fork()?;
        let kinds = [Kind::Row, Kind::Number];
        by_float!(rows.dtype(), T => read(&[rows, rotations], |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &kinds)?;
            let (rows, rotations) = (loan.row(0), loan.number(1));
            let count = op.check_signatures(rows.len(), rotations.len()).wrapped()?;
            let shape = (count, op.groups);
            if op.bits <= 8 {
                let mut out = backend.output::<u8>(count * op.groups).wrapped()?;
                backend.sdim_signatures_into(op, rows, rotations, backend.output_mut::<u8>(&mut out)).wrapped()?;
                return Tensor::from_vec(backend.finish::<u8>(out).wrapped()?, shape, &Device::Cpu);
            }
            let mut out = backend.output::<u16>(count * op.groups).wrapped()?;
            backend.sdim_signatures_into(op, rows, rotations, backend.output_mut::<u16>(&mut out)).wrapped()?;
            let words = backend.finish::<u16>(out).wrapped()?.into_iter().map(u32::from);
            Tensor::from_vec(words.collect::<Vec<_>>(), shape, &Device::Cpu)
        }))
    }

    /// SDIM's tables of buckets of histories, `[B, G, 2^τ, d]` of `f32`; formula: [`Sdim`]. Behaviours get gradients.
    ///
    /// # Errors
    /// Those of [`Sdim::check_encode`], in longseq's words; a tensor that is not on the CPU, or of another type.
    pub fn sdim_encode(
        &self,
        op: &Sdim,
        histories: &JaggedRows<B>,
        history: &Tensor,
        hash: HashTensor<'_>,
    ) -> Result<Tensor> {
        const NAME: &str = "sdim_encode";
        let rows = self.own_rows(NAME, "histories", histories)?;
        let history = Argument::new(NAME, "history", history).float()?;
        let dtype = history.dtype();
        let mut inputs = Inputs::new(op, vec![history], vec![Kind::Row]);
        let hash = inputs.hash(NAME, "hash", hash)?;
        let shape = (histories.jagged().users(), op.groups, op.buckets(), op.width);
        let Inputs { tensors, kinds, .. } = inputs;
        let (backend, op) = (self.shared(), *op);
        by_float!(dtype, T => {
            let encode = Encode { backend, rows, op, kinds, hash };
            let table = encode.forward::<T>(&self.fork()?, &tensors)?;
            record(table, shape, tensors, encode)
        })
    }

    /// Tables of buckets with more behaviours of the same users: `table` and [`sdim_encode`](Self::sdim_encode) of the new behaviours,
    /// added. Both get gradients.
    ///
    /// # Errors
    /// As [`sdim_encode`](Self::sdim_encode).
    pub fn sdim_append(
        &self,
        op: &Sdim,
        new: &JaggedRows<B>,
        history: &Tensor,
        hash: HashTensor<'_>,
        table: &Tensor,
    ) -> Result<Tensor> {
        table.add(&self.sdim_encode(op, new, history, hash)?)
    }

    /// SDIM from tables of buckets `[B, G, 2^τ, d]` of `f32`, `[M, d]` in the type of `targets` (without, of `f32`); formula: [`Sdim`]. The
    /// table gets gradients; candidates, which are hashed, have none. They are not needed if signatures are given.
    ///
    /// # Errors
    /// Those of [`Sdim::check_query`], in longseq's words; a tensor that is not on the CPU, or of another type.
    pub fn sdim_query(
        &self,
        op: &Sdim,
        rows: &JaggedRows<B>,
        table: &Tensor,
        targets: Option<&Tensor>,
        hash: HashTensor<'_>,
    ) -> Result<Tensor> {
        const NAME: &str = "sdim_query";
        let shape = (rows.jagged().rows(), op.width);
        let rows = self.own_rows(NAME, "rows", rows)?;
        let mut inputs =
            Inputs::new(op, vec![Argument::new(NAME, "table", table).f32()?], vec![Kind::Number]);
        let (dtype, targets) = inputs.targets(NAME, targets, DType::F32)?;
        let hash = inputs.hash(NAME, "hash", hash)?;
        let Inputs { tensors, kinds, .. } = inputs;
        let (backend, op) = (self.shared(), *op);
        by_float!(dtype, T => {
            let query = Query { backend, rows, op, kinds, hash, targets };
            let out = query.forward::<T>(&self.fork()?, &tensors)?;
            record(out, shape, tensors, query)
        })
    }

    /// SDIM without a table, `[M, d]`; formula: [`Sdim`]. Behaviours get gradients; candidates, which are hashed, have none.
    ///
    /// # Errors
    /// Those of [`Sdim::check_attend`], in longseq's words; a tensor that is not on the CPU, or of another type.
    pub fn sdim_attend(&self, op: &Sdim, batch: &Batch<B>, given: SdimTensors<'_>) -> Result<Tensor> {
        const NAME: &str = "sdim_attend";
        let shape = (batch.batch().targets().rows(), op.width);
        let batch = self.own(NAME, batch)?;
        let history = Argument::new(NAME, "history", given.history).float()?;
        let mut inputs = Inputs::new(op, vec![history], vec![Kind::Row]);
        let dtype = inputs.tensors[0].dtype();
        let (_, targets) = inputs.targets(NAME, given.targets, dtype)?;
        let history_hash = inputs.hash(NAME, "history_hash", given.history_hash)?;
        let target_hash = inputs.hash(NAME, "target_hash", given.target_hash)?;
        let Inputs { tensors, kinds, .. } = inputs;
        let (backend, op) = (self.shared(), *op);
        by_float!(dtype, T => {
            let attend = Attend { backend, batch, op, kinds, hashes: [history_hash, target_hash], targets };
            let out = attend.forward::<T>(&self.fork()?, &tensors)?;
            record(out, shape, tensors, attend)
        })
    }
}

/// The inputs as they are gathered.
struct Inputs<'a> {
    op: &'a Sdim,
    tensors: Vec<Tensor>,
    kinds: Vec<Kind>,
}

impl<'a> Inputs<'a> {
    fn new(op: &'a Sdim, tensors: Vec<Tensor>, kinds: Vec<Kind>) -> Self {
        Self { op, tensors, kinds }
    }

    fn add(&mut self, tensor: Tensor, kind: Kind) -> usize {
        self.tensors.push(tensor);
        self.kinds.push(kind);
        self.kinds.len() - 1
    }

    /// The type of the candidates' rows, and their index. They are in no graph.
    fn targets(
        &mut self,
        operation: &'static str,
        targets: Option<&Tensor>,
        dtype: DType,
    ) -> Result<(DType, Option<usize>)> {
        let Some(targets) = targets else { return Ok((dtype, None)) };
        let targets = Argument::new(operation, "targets", targets);
        // With a table the candidates alone say what the rows' type is.
        let targets = if self.kinds[0] == Kind::Row { targets.float_as(dtype)? } else { targets.float()? };
        Ok((targets.dtype(), Some(self.add(targets.detach(), Kind::Row))))
    }

    fn hash(
        &mut self,
        operation: &'static str,
        argument: &'static str,
        hash: HashTensor<'_>,
    ) -> Result<GivenHash> {
        match hash {
            HashTensor::Rotations(rotations) => {
                let rotations = Argument::new(operation, "rotations", rotations).f32()?;
                Ok(GivenHash::Rotations(self.add(rotations.detach(), Kind::Number)))
            }
            HashTensor::Signatures(given) if given.dtype() == DType::U8 && self.op.bits <= 8 => {
                let given = Argument::new(operation, argument, given).bytes()?;
                Ok(GivenHash::Signatures8(given.flatten_all()?.to_vec1()?))
            }
            HashTensor::Signatures(given) => {
                let given =
                    Argument::new(operation, argument, given).ids()?.flatten_all()?.to_vec1::<u32>()?;
                let word = |word: u32| {
                    u16::try_from(word)
                        .map_err(|_| wrong(operation, argument, "signatures below 2^16", word.to_string()))
                };
                Ok(GivenHash::Signatures16(given.into_iter().map(word).collect::<Result<_>>()?))
            }
        }
    }
}

/// The source of signatures: the index of rotations, or signatures.
enum GivenHash {
    Rotations(usize),
    Signatures8(Vec<u8>),
    Signatures16(Vec<u16>),
}

/// The same where a backend reads it.
enum LentHash<'a, B: Place> {
    Rotations(Lent<'a, B, f32>),
    Signatures8(Lent<'a, B, u8>),
    Signatures16(Lent<'a, B, u16>),
}

impl GivenHash {
    fn lend<'a, B: Place>(&'a self, backend: &B, parts: &Slices<'a>) -> Result<LentHash<'a, B>> {
        Ok(match self {
            Self::Rotations(index) => LentHash::Rotations(backend.lend(parts.of(*index)?).wrapped()?),
            Self::Signatures8(given) => LentHash::Signatures8(backend.lend(given).wrapped()?),
            Self::Signatures16(given) => LentHash::Signatures16(backend.lend(given).wrapped()?),
        })
    }
}

impl<B: Place> LentHash<'_, B> {
    fn hash(&self) -> Hash<'_, B::Memory> {
        match self {
            Self::Rotations(lent) => Hash::Rotations(lent.view()),
            Self::Signatures8(lent) => Hash::Signatures8(lent.view()),
            Self::Signatures16(lent) => Hash::Signatures16(lent.view()),
        }
    }
}

/// `encode` in the graph: the history, then rotations.
struct Encode<B: Place> {
    backend: Arc<B>,
    rows: Arc<B::Jagged>,
    op: Sdim,
    kinds: Vec<Kind>,
    hash: GivenHash,
}

impl<B: Place> Encode<B> {
    fn forward<T: Float>(&self, backend: &B, tensors: &[Tensor]) -> Result<Vec<f32>> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let hash = self.hash.lend(backend, parts)?;
            let inputs = SdimEncodeInputs::new(loan.row(0), hash.hash());
            let rows = (*self.rows).as_ref();
            self.op.check_encode("sdim_encode", rows, &inputs).wrapped()?;
            let mut table = backend.output::<f32>(self.op.table_length(rows.users()).wrapped()?).wrapped()?;
            backend
                .sdim_encode_into(&self.op, &self.rows, inputs, backend.output_mut(&mut table))
                .wrapped()?;
            backend.finish::<f32>(table).wrapped()
        })
    }

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &self.kinds)?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &self.kinds)?;
            let hash = self.hash.lend(&backend, parts)?;
            let inputs = SdimEncodeInputs::new(loan.row(0), hash.hash());
            let grad = backend.lend(parts.of::<f32>(pass.inputs.len())?).wrapped()?;
            let (mut rows, _) = memory.views(&backend);
            let Some(history) = rows[0].take() else { return Ok(()) };
            backend.sdim_encode_backward_into(&self.op, &self.rows, inputs, grad.view(), history).wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}

impl<B: Place> Backward for Encode<B> {
    fn name(&self) -> &'static str {
        "sdim_encode"
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}

/// `query` in the graph: the table, then candidates and rotations.
struct Query<B: Place> {
    backend: Arc<B>,
    rows: Arc<B::Jagged>,
    op: Sdim,
    kinds: Vec<Kind>,
    hash: GivenHash,
    targets: Option<usize>,
}

impl<B: Place> Query<B> {
    fn forward<T: Float>(&self, backend: &B, tensors: &[Tensor]) -> Result<Vec<T>> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let hash = self.hash.lend(backend, parts)?;
            let mut inputs = SdimQueryInputs::new(loan.number(0), hash.hash());
            inputs.targets = self.targets.map(|index| loan.row(index));
            let rows = (*self.rows).as_ref();
            self.op.check_query("sdim_query", rows, &inputs).wrapped()?;
            let mut out = backend.output::<T>(self.op.output_length(rows).wrapped()?).wrapped()?;
            backend.sdim_query_into(&self.op, &self.rows, inputs, backend.output_mut(&mut out)).wrapped()?;
            backend.finish::<T>(out).wrapped()
        })
    }

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &self.kinds)?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &self.kinds)?;
            let hash = self.hash.lend(&backend, parts)?;
            let mut inputs = SdimQueryInputs::new(loan.number(0), hash.hash());
            inputs.targets = self.targets.map(|index| loan.row(index));
            let grad = backend.lend(parts.of::<T>(pass.inputs.len())?).wrapped()?;
            let (_, mut numbers) = memory.views(&backend);
            let Some(table) = numbers[0].take() else { return Ok(()) };
            backend.sdim_query_backward_into(&self.op, &self.rows, inputs, grad.view(), table).wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}

impl<B: Place> Backward for Query<B> {
    fn name(&self) -> &'static str {
        "sdim_query"
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        by_float!(pass.grad.dtype(), T => self.backward::<T>(pass))
    }
}

/// `attend` in the graph: the history, then candidates and rotations.
struct Attend<B: Place> {
    backend: Arc<B>,
    batch: Arc<B::Batch>,
    op: Sdim,
    kinds: Vec<Kind>,
    hashes: [GivenHash; 2],
    targets: Option<usize>,
}

impl<B: Place> Attend<B> {
    fn forward<T: Float>(&self, backend: &B, tensors: &[Tensor]) -> Result<Vec<T>> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let hashes = [self.hashes[0].lend(backend, parts)?, self.hashes[1].lend(backend, parts)?];
            let mut inputs = SdimAttendInputs::new(loan.row(0), hashes[0].hash(), hashes[1].hash());
            inputs.targets = self.targets.map(|index| loan.row(index));
            let batch = (*self.batch).as_ref();
            self.op.check_attend("sdim_attend", batch, &inputs).wrapped()?;
            let mut out = backend.output::<T>(self.op.output_length(batch.targets()).wrapped()?).wrapped()?;
            backend
                .sdim_attend_into(&self.op, &self.batch, inputs, backend.output_mut(&mut out))
                .wrapped()?;
            backend.finish::<T>(out).wrapped()
        })
    }

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &self.kinds)?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &self.kinds)?;
            let hashes = [self.hashes[0].lend(&backend, parts)?, self.hashes[1].lend(&backend, parts)?];
            let mut inputs = SdimAttendInputs::new(loan.row(0), hashes[0].hash(), hashes[1].hash());
            inputs.targets = self.targets.map(|index| loan.row(index));
            let grad = backend.lend(parts.of::<T>(pass.inputs.len())?).wrapped()?;
            let (mut rows, _) = memory.views(&backend);
            let Some(history) = rows[0].take() else { return Ok(()) };
            backend.sdim_attend_backward_into(&self.op, &self.batch, inputs, grad.view(), history).wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}

impl<B: Place> Backward for Attend<B> {
    fn name(&self) -> &'static str {
        "sdim_attend"
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
