//! `Backend`: one interface for every device.

use crate::device::DeviceOps;
use crate::ops::{
    DecoupledOps, DinOps, InterestChannelsOps, LookupOps, SdimOps, SearchOps, SelectedOps,
    TargetAttentionOps, TinOps,
};

/// A device that runs the operations: the CPU, a GPU.
///
/// A model writes `fn score<B: Backend>(backend: &B, …)` once and runs on every device. Calls only enqueue work;
/// [`download`](DeviceOps::download) and [`synchronize`](DeviceOps::synchronize) wait for it and return the errors that
/// occurred on the device. Every call checks its arguments first, and changes nothing if it returns
/// [`Shape`](crate::Error::Shape), [`Parameter`](crate::Error::Parameter), [`Unsupported`](crate::Error::Unsupported) or
/// [`Limit`](crate::Error::Limit).
///
/// Most calls come in two forms: `name_into` writes into a given output, `name` allocates the output. The same inputs on
/// the same device give the same bits.
///
/// The trait is implemented for every type that implements [`DeviceOps`] and the traits of all operations. Anybody may
/// implement those; [the front page](crate#traits) says how they grow.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Buffer, Jagged, Result, TargetAttention, TargetAttentionInputs};
///
/// /// The interest of each candidate's user in it.
/// fn interest<B: Backend>(
///     backend: &B,
///     history: &Buffer<B, f32>,
///     candidates: &Buffer<B, f32>,
///     batch: &B::Batch,
/// ) -> Result<Buffer<B, f32>> {
///     // The history serves as keys and values.
///     let inputs = TargetAttentionInputs::new(backend.view(candidates), backend.view(history));
///     backend.target_attention(&TargetAttention::new(2), batch, inputs)
/// }
///
/// let backend = longseq::Cpu::new();
/// let history = backend.upload(&[1.0, 0.0, 0.0, 1.0])?; // one user, two behaviours of width 2
/// let candidates = backend.upload(&[9.0, 0.0])?; // one candidate, similar to the first behaviour
/// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let out = interest(&backend, &history, &candidates, &batch)?;
/// assert!(backend.download(backend.view(&out))?[0] > 0.99);
/// # Ok::<(), longseq::Error>(())
/// ```
pub trait Backend:
    DeviceOps
    + TargetAttentionOps
    + DinOps
    + SdimOps
    + LookupOps
    + DecoupledOps
    + SearchOps
    + SelectedOps
    + TinOps
    + InterestChannelsOps
{
}

impl<B> Backend for B where
    B: DeviceOps
        + TargetAttentionOps
        + DinOps
        + SdimOps
        + LookupOps
        + DecoupledOps
        + SearchOps
        + SelectedOps
        + TinOps
        + InterestChannelsOps
{
}
