//! The handle: where longseq computes, and batches.

use std::sync::Arc;

use burn_core::tensor::{DType, Int, Tensor};
use longseq::prelude::*;
use longseq::{Cpu, Jagged, Result};

use crate::error::wrong;
use crate::place::Place;

/// longseq's operations for burn's tensors, with gradients.
///
/// The operations are methods, named as longseq names them. Clones share everything. A handle, and what it made, may be used from any
/// number of threads.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use longseq_burn::longseq::{Result, TargetAttention};
/// use longseq_burn::{Longseq, TargetAttentionTensors};
///
/// # fn main() -> Result<()> {
/// let longseq = Longseq::cpu();
/// // Two users with 3 and 2 behaviours, 1 and 2 candidates.
/// let batch = longseq.batch(&[0_u32, 3, 5][..], &[0_u32, 1, 3][..])?;
/// let device = Device::flex().autodiff();
/// let history = Tensor::<2>::random([5, 4], Distribution::Default, &device).require_grad();
/// let candidates = Tensor::<2>::random([3, 4], Distribution::Default, &device);
///
/// let inputs = TargetAttentionTensors::new(&candidates, &history);
/// let interest = longseq.target_attention(&TargetAttention::new(4), &batch, inputs)?; // [3, 4]
/// let grads = interest.powi_scalar(2).sum().backward();
/// assert_eq!(history.grad(&grads).map(|grad| grad.dims()), Some([5, 4]));
/// # Ok(()) }
/// ```
pub struct Longseq<P = Cpu> {
    place: Arc<P>,
}

/// The histories and the candidates of some users; made by [`Longseq::batch`]. Use one for every operation over them.
pub struct Batch<P: Place = Cpu> {
    owner: Arc<P>,
    inner: Arc<<P::Backend as DeviceOps>::Batch>,
}

/// The rows of some users, or of some bags; made by [`Longseq::jagged`].
pub struct JaggedRows<P: Place = Cpu> {
    owner: Arc<P>,
    inner: Arc<<P::Backend as DeviceOps>::Jagged>,
}

impl<P> Clone for Longseq<P> {
    fn clone(&self) -> Self {
        Self { place: self.place.clone() }
    }
}

impl<P: Place> Clone for Batch<P> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), inner: self.inner.clone() }
    }
}

impl<P: Place> Clone for JaggedRows<P> {
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
    /// On the CPU, for tensors of burn's Flex, whose memory it reads.
    pub fn cpu() -> Self {
        Self::on(Cpu::new())
    }
}

impl<P: Place> Longseq<P> {
    /// On a backend of longseq. With a GPU's, tensors are Flex's all the same: what a call reads is uploaded, what it writes is downloaded.
    pub fn on(place: P) -> Self {
        Self { place: Arc::new(place) }
    }

    /// The backend of longseq.
    pub fn backend(&self) -> &P::Backend {
        self.place.backend()
    }

    /// A batch of histories and candidates: of each a [`Jagged`], or offsets `[users + 1]` as a tensor or a slice of integers.
    ///
    /// # Errors
    /// Those of [`Jagged::new`], and of two sides with different numbers of users.
    pub fn batch(
        &self,
        histories: &(impl Offsets + ?Sized),
        targets: &(impl Offsets + ?Sized),
    ) -> Result<Batch<P>> {
        let inner = self.place.backend().batch(&histories.to_jagged()?, &targets.to_jagged()?)?;
        Ok(Batch { owner: self.place.clone(), inner: Arc::new(inner) })
    }

    /// One side of a batch alone, or the bags of a look-up.
    ///
    /// # Errors
    /// Those of [`Jagged::new`]; ranges with slots, which name kept tables: tensors are made anew.
    pub fn jagged(&self, rows: &(impl Offsets + ?Sized)) -> Result<JaggedRows<P>> {
        let rows = rows.to_jagged()?;
        if rows.slots().is_some() {
            return Err(wrong("jagged", "rows", "ranges without slots", "ranges with slots"));
        }
        let inner = self.place.backend().jagged(&rows)?;
        Ok(JaggedRows { owner: self.place.clone(), inner: Arc::new(inner) })
    }

    /// A place for one call, which learns only of its own errors.
    pub(crate) fn for_call(&self) -> Result<P> {
        self.place.for_call()
    }

    /// The place, for an operation that stays in a graph.
    pub(crate) fn shared(&self) -> Arc<P> {
        self.place.clone()
    }

    /// The batch, if it is for this backend.
    pub(crate) fn own(
        &self,
        operation: &'static str,
        batch: &Batch<P>,
    ) -> Result<Arc<<P::Backend as DeviceOps>::Batch>> {
        if Arc::ptr_eq(&self.place, &batch.owner) {
            return Ok(batch.inner.clone());
        }
        Err(foreign(operation, "batch", "Longseq::batch"))
    }

    /// The rows, if they are for this backend.
    pub(crate) fn own_rows(
        &self,
        operation: &'static str,
        argument: &'static str,
        rows: &JaggedRows<P>,
    ) -> Result<Arc<<P::Backend as DeviceOps>::Jagged>> {
        if Arc::ptr_eq(&self.place, &rows.owner) {
            return Ok(rows.inner.clone());
        }
        Err(foreign(operation, argument, "Longseq::jagged"))
    }
}

fn foreign(operation: &'static str, argument: &'static str, maker: &str) -> longseq::Error {
    let expected = format!("one that {maker} of this handle, or a clone of it, made");
    wrong(operation, argument, expected, "one of another handle")
}

impl<P: Place> Batch<P> {
    /// The rows of each user.
    pub fn batch(&self) -> &longseq::Batch {
        (*self.inner).as_ref()
    }
}

impl<P: Place> JaggedRows<P> {
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
    /// Those of [`Jagged::new`].
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
        Jagged::new(self, rows)
    }
}

impl<I: Copy + TryInto<usize> + std::fmt::Display> Offsets for Vec<I> {
    fn to_jagged(&self) -> Result<Jagged> {
        self[..].to_jagged()
    }
}

/// Offsets may be on any of burn's devices: they are read back.
impl Offsets for Tensor<1, Int> {
    fn to_jagged(&self) -> Result<Jagged> {
        let data = self.to_data();
        match data.dtype() {
            DType::U64 => data.iter::<u64>().collect::<Vec<_>>().to_jagged(),
            _ => data.iter::<i64>().collect::<Vec<_>>().to_jagged(),
        }
    }
}
