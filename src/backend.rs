//! One interface for every device.

use crate::device::DeviceOps;
use crate::ops::{DecoupledOps, DinOps, LookupOps, SdimOps, TargetAttentionOps};

/// A device that runs the operations: the CPU, a GPU.
///
/// A model writes `fn score<B: Backend>(backend: &B, …)` once and runs on every device. The calls only enqueue;
/// [`download`](DeviceOps::download) and [`synchronize`](DeviceOps::synchronize) wait, and report what went wrong on the
/// device meanwhile. Every call checks its arguments first and changes nothing where it returns an error of the
/// kinds [`Shape`](crate::Error::Shape), [`Parameter`](crate::Error::Parameter),
/// [`Unsupported`](crate::Error::Unsupported) or [`Limit`](crate::Error::Limit).
///
/// Each operation comes as `name_into`, which writes where it is told and allocates no result, and as `name`, which
/// allocates the result. The same inputs on the same device give the same bits.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Buffer, Jagged, Result, TargetAttention, TargetAttentionInputs};
///
/// /// Scores each candidate by what its user's history says of it.
/// fn interest<B: Backend>(
///     backend: &B,
///     history: &Buffer<B, f32>,
///     candidates: &Buffer<B, f32>,
///     batch: &B::Batch,
/// ) -> Result<Buffer<B, f32>> {
///     let inputs = TargetAttentionInputs {
///         queries: backend.view(candidates),
///         keys: backend.view(history),
///         values: None, // the history serves as values too
///         bias: None,
///     };
///     backend.target_attention(&TargetAttention::new(2), batch, inputs)
/// }
///
/// let backend = longseq::Cpu::new();
/// let history = backend.upload(&[1.0, 0.0, 0.0, 1.0])?; // one user, two behaviours of width 2
/// let candidates = backend.upload(&[9.0, 0.0])?; // one candidate, close to the first
/// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let out = interest(&backend, &history, &candidates, &batch)?;
/// assert!(backend.download(backend.view(&out))?[0] > 0.99);
/// # Ok::<(), longseq::Error>(())
/// ```
pub trait Backend: DeviceOps + TargetAttentionOps + DinOps + SdimOps + LookupOps + DecoupledOps {}

impl<B> Backend for B where B: DeviceOps + TargetAttentionOps + DinOps + SdimOps + LookupOps + DecoupledOps {}
