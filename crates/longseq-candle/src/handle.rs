//! The handle: where longseq computes, and batches.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use longseq::{Cpu, Jagged};

use crate::error::{Wrapped, wrong};
use crate::place::Place;

/// longseq's operations for candle's tensors, with gradients.
///
/// The operations are methods, named as longseq names them. Clones share everything. A handle, and what it made, may be used from any
/// number of threads.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use longseq_candle::longseq::{Jagged, TargetAttention};
/// use longseq_candle::{Longseq, TargetAttentionTensors};
///
/// # fn main() -> candle_core::Result<()> {
/// let longseq = Longseq::cpu();
/// // Two users with 3 and 2 behaviours, 1 and 2 candidates.
/// let batch = longseq.batch(&[0_u32, 3, 5][..], &[0_u32, 1, 3][..])?;
/// let history = Var::randn(0f32, 1.0, (5, 4), &Device::Cpu)?;
/// let candidates = Tensor::randn(0f32, 1.0, (3, 4), &Device::Cpu)?;
///
/// let inputs = TargetAttentionTensors::new(&candidates, &history);
/// let interest = longseq.target_attention(&TargetAttention::new(4), &batch, inputs)?; // [3, 4]
/// let grads = interest.sqr()?.sum_all()?.backward()?;
/// assert_eq!(grads.get(&history).map(|grad| grad.dims().to_vec()), Some(vec![5, 4]));
/// # Ok(()) }
/// ```
pub struct Longseq<B = Cpu> {
    backend: Arc<B>,
}

/// The histories and the candidates of some users; made by [`Longseq::batch`]. Use one for every operation over them.
pub struct Batch<B: Place = Cpu> {
    owner: Arc<B>,
    inner: Arc<B::Batch>,
}

/// The rows of some users, or of some bags; made by [`Longseq::jagged`].
pub struct JaggedRows<B: Place = Cpu> {
    owner: Arc<B>,
    inner: Arc<B::Jagged>,
}

impl<B> Clone for Longseq<B> {
    fn clone(&self) -> Self {
        Self { backend: self.backend.clone() }
    }
}

impl<B: Place> Clone for Batch<B> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), inner: self.inner.clone() }
    }
}

impl<B: Place> Clone for JaggedRows<B> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), inner: self.inner.clone() }
    }
}

impl Default for Longseq {
    fn default() -> Self {
        Self::cpu()
    }
}

impl Longseq {
    /// On the CPU, whose memory the tensors are in.
    pub fn cpu() -> Self {
        Self::on(Cpu::new())
    }
}

impl<B: Place> Longseq<B> {
    /// On a backend of longseq. Tensors stay on candle's CPU: what a call reads is uploaded, what it writes is downloaded.
    pub fn on(backend: B) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// A batch of histories and candidates: of each a [`Jagged`], or offsets `[users + 1]` as a tensor or a slice of integers.
    ///
    /// # Errors
    /// Those of [`Jagged::new`], and of two sides with different numbers of users.
    pub fn batch(
        &self,
        histories: &(impl Offsets + ?Sized),
        targets: &(impl Offsets + ?Sized),
    ) -> Result<Batch<B>> {
        let inner = self.backend.batch(&histories.to_jagged()?, &targets.to_jagged()?).wrapped()?;
        Ok(Batch { owner: self.backend.clone(), inner: Arc::new(inner) })
    }

    /// One side of a batch alone, or the bags of a look-up.
    ///
    /// # Errors
    /// Those of [`Jagged::new`]; ranges with slots, which name kept tables: tensors are made anew.
    pub fn jagged(&self, rows: &(impl Offsets + ?Sized)) -> Result<JaggedRows<B>> {
        let rows = rows.to_jagged()?;
        if rows.slots().is_some() {
            return Err(wrong("jagged", "rows", "ranges without slots", "ranges with slots"));
        }
        let inner = self.backend.jagged(&rows).wrapped()?;
        Ok(JaggedRows { owner: self.backend.clone(), inner: Arc::new(inner) })
    }

    /// A handle for one call, to which only its own errors are reported.
    pub(crate) fn fork(&self) -> Result<B> {
        self.backend.fork().wrapped()
    }

    /// The backend, for an operation that stays in a graph.
    pub(crate) fn shared(&self) -> Arc<B> {
        self.backend.clone()
    }

    /// The batch, if it is for this backend.
    pub(crate) fn own(&self, operation: &'static str, batch: &Batch<B>) -> Result<Arc<B::Batch>> {
        if Arc::ptr_eq(&self.backend, &batch.owner) {
            return Ok(batch.inner.clone());
        }
        Err(foreign(operation, "batch", "Longseq::batch"))
    }

    /// The rows, if they are for this backend.
    pub(crate) fn own_rows(
        &self,
        operation: &'static str,
        argument: &'static str,
        rows: &JaggedRows<B>,
    ) -> Result<Arc<B::Jagged>> {
        if Arc::ptr_eq(&self.backend, &rows.owner) {
            return Ok(rows.inner.clone());
        }
        Err(foreign(operation, argument, "Longseq::jagged"))
    }
}

fn foreign(operation: &'static str, argument: &'static str, maker: &str) -> candle_core::Error {
    let expected = format!("one that {maker} of this handle, or a clone of it, made");
    wrong(operation, argument, expected, "one of another handle")
}

impl<B: Place> Batch<B> {
    /// The rows of each user.
    pub fn batch(&self) -> &longseq::Batch {
        (*self.inner).as_ref()
    }
}

impl<B: Place> JaggedRows<B> {
    /// The rows of each user.
    pub fn jagged(&self) -> &Jagged {
        (*self.inner).as_ref()
    }
}

/// What says which rows belong to which user.
///
/// A [`Jagged`] may have rows after the last offset, which belong to nobody; offsets end with the last row.
pub trait Offsets {
    /// The rows of each user.
    ///
    /// # Errors
    /// Those of [`Jagged::new`]; a tensor that is not on the CPU, or not `[users + 1]` integers.
    fn to_jagged(&self) -> Result<Jagged>;
}

impl Offsets for Jagged {
    fn to_jagged(&self) -> Result<Jagged> {
        Ok(self.clone())
    }
}

impl<I: Copy + TryInto<usize> + std::fmt::Display> Offsets for [I] {
    fn to_jagged(&self) -> Result<Jagged> {
        // An offset that is no number of rows is refused by `Jagged::new`.
        let rows = self.last().and_then(|&last| last.try_into().ok()).unwrap_or(0);
        Jagged::new(self, rows).wrapped()
    }
}

impl<I: Copy + TryInto<usize> + std::fmt::Display> Offsets for Vec<I> {
    fn to_jagged(&self) -> Result<Jagged> {
        self[..].to_jagged()
    }
}

impl Offsets for Tensor {
    fn to_jagged(&self) -> Result<Jagged> {
        let refused = |expected: &str, got: String| Err(wrong("Longseq::batch", "offsets", expected, got));
        if !self.device().is_cpu() {
            let expected = "a tensor on candle's CPU (move it with .to_device(&Device::Cpu))";
            return refused(expected, format!("a tensor on {:?}", self.device().location()));
        }
        if self.rank() != 1 {
            return refused("[users + 1]", format!("{:?}", self.dims()));
        }
        match self.dtype() {
            DType::U8 | DType::U32 | DType::I16 | DType::I32 | DType::I64 => {
                self.to_dtype(DType::I64)?.to_device(&Device::Cpu)?.to_vec1::<i64>()?[..].to_jagged()
            }
            other => refused("integers", other.as_str().into()),
        }
    }
}
