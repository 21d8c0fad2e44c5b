//! Kernels for long user-behaviour sequences: target attention, DIN, SDIM, embedding look-ups, decoupled embeddings and search, on
//! the CPU, on NVIDIA GPUs (CUDA) and on any GPU that `wgpu` drives.
//!
//! A recommender or advertising model predicts whether a user will click a candidate item from what the user did
//! before: 50 to 100,000 behaviours per user, a few to a thousand candidates per request, a few milliseconds to answer.
//! At the core of such a model is a handful of operations. This crate implements them behind one interface, without
//! padding and without repeating a user's history for each candidate, together with a plain
//! [`reference`](mod@reference) that every backend is tested against.
//!
//! # Ten lines
//!
//! Two users with 3 and 2 behaviours: their histories are concatenated in one buffer `[N, d]` with `N = 5`, their
//! candidates, 1 and 2 of them, in another, `[M, d]` with `M = 3`. [`Jagged`] says which rows belong to which user.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::{Cpu, Jagged, TargetAttention, TargetAttentionInputs};
//!
//! let d = 4;
//! let history: Vec<f32> = (0..5 * d).map(|i| (i as f32).sin()).collect();
//! let candidates: Vec<f32> = (0..3 * d).map(|i| (i as f32).cos()).collect();
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[3, 2])?, &Jagged::from_lengths(&[1, 2])?)?;
//! let (history, candidates) = (backend.upload(&history)?, backend.upload(&candidates)?);
//!
//! // The histories serve as keys and values.
//! let inputs = TargetAttentionInputs::new(backend.view(&candidates), backend.view(&history));
//! let interest = backend.target_attention(&TargetAttention::new(d), &batch, inputs)?;
//! let interest: Vec<f32> = backend.download(backend.view(&interest))?; // [M, d]
//! assert_eq!(interest.len(), 3 * d);
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! * Offsets from PyTorch or JAX go into [`Jagged::new`] unchanged (`&[i64]` with the leading 0).
//! * A history may be any range of a buffer, such as the newest 200 behaviours ([`Jagged::newest`]) or one that requests share
//!   ([`Jagged::from_starts`]).
//! * For `f16` and `bf16`, upload [`half::f16`] or [`half::bf16`]; nothing else changes.
//! * On the CPU, `upload` is a copy that [`Host::view`] avoids.
//! * For another device, replace `Cpu::new()`:
//!
//! | backend | create it with | or with your own |
//! |---|---|---|
//! | [`Cpu`] | `Cpu::new()` | instruction set: [`Cpu::with_instructions`] |
//! | [`Cuda`] | `Cuda::new(0)?`, the first NVIDIA GPU | stream: [`Cuda::from_stream`], slices: [`Cuda::borrow`] |
//! | [`Wgpu`] | `Wgpu::new()?` | device and queue: [`Wgpu::from_device`], buffers: [`webgpu::WgpuBuffer::from_buffer`] |
//! | [`AnyBackend`] | `AnyBackend::from(…)`, any of these, chosen at run time | |
//!
//! `Wgpu::new()` takes the adapter that `wgpu` ranks first for high performance: a discrete GPU before an integrated one,
//! and a software adapter, silently, if the machine has no other. [`DeviceOps::device`] names the adapter,
//! [`Wgpu::is_software`] tells whether it is a software one, and [`Wgpu::with_options`] selects an adapter by name.
//!
//! # A step of training
//!
//! From ids to rows of an embedding table, through target attention, and back to the rows that were read. `step` runs on every
//! backend; only the loss is computed on the host here. In candle or burn use the adapters of this repository, `longseq-candle` and
//! `longseq-burn`, which make these calls for you.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! const ITEMS: usize = 10;
//! const WIDTH: usize = 4;
//!
//! /// One step towards an interest of ones; returns the loss before it.
//! fn step<B: Backend>(backend: &B, table: &mut Buffer<B, f32>) -> Result<f32> {
//!     // Two users with 3 and 2 behaviours, 1 and 2 candidates.
//!     let batch = backend.batch(&Jagged::from_lengths(&[3, 2])?, &Jagged::from_lengths(&[1, 2])?)?;
//!     let ids = [backend.upload(&[3_u32, 1, 3, 7, 2])?, backend.upload(&[4_u32, 1, 2])?];
//!     let (op, look_up) = (TargetAttention::new(WIDTH), Lookup::default());
//!
//!     // Forward.
//!     let tables = [Table::new(ITEMS, WIDTH, TableData::F32(backend.view(table)))];
//!     let rows_of = |ids| LookupInputs::new(ids, &tables);
//!     let (keys, _) = backend.lookup(&look_up, Bags::Each, rows_of(backend.view(&ids[0])))?;
//!     let (queries, _) = backend.lookup(&look_up, Bags::Each, rows_of(backend.view(&ids[1])))?;
//!     let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys));
//!     let (mut out, mut lse) = (backend.zeros::<f32>(3 * WIDTH)?, backend.zeros::<f32>(3)?);
//!     let outputs = TargetAttentionOutputs::new(backend.view_mut(&mut out)).with_lse(backend.view_mut(&mut lse));
//!     backend.target_attention_into(&op, &batch, inputs, outputs)?;
//!
//!     // Half the squared distance, and its gradient.
//!     let distance: Vec<f32> = backend.download(backend.view(&out))?.iter().map(|x| x - 1.0).collect();
//!     let loss = distance.iter().map(|x| x * x / 2.0).sum();
//!     let grad_out = backend.upload(&distance)?;
//!
//!     // Backward: to the rows, then to the table.
//!     let mut grads = [backend.zeros::<f32>(5 * WIDTH)?, backend.zeros::<f32>(3 * WIDTH)?];
//!     let [grad_keys, grad_queries] = &mut grads;
//!     let saved = TargetAttentionSaved::new(backend.view(&out), backend.view(&lse));
//!     let asked = TargetAttentionGradients::new()
//!         .with_keys(backend.view_mut(grad_keys))
//!         .with_queries(backend.view_mut(grad_queries));
//!     let grad_out = TargetAttentionGradOut::new(backend.view(&grad_out));
//!     backend.target_attention_backward_into(&op, &batch, inputs, saved, grad_out, asked)?;
//!     let mut gradients = [backend.sparse_gradient(5, WIDTH)?, backend.sparse_gradient(3, WIDTH)?];
//!     for ((ids, grad), gradient) in ids.iter().zip(&grads).zip(&mut gradients) {
//!         let (grad, saved) = (LookupGradOut::new(backend.view(grad)), LookupSaved::new());
//!         let asked = LookupGradients::new().with_tables([Some(gradient.table_gradient())]);
//!         backend.lookup_backward_into(&look_up, Bags::Each, rows_of(backend.view(ids)), saved, grad, asked)?;
//!     }
//!
//!     // The optimiser changes only rows that were read.
//!     for gradient in &gradients {
//!         let table = TableMut::new(ITEMS, WIDTH, backend.view_mut(table));
//!         backend.update_rows(&Optimiser::sgd(0.5), table, OptimiserState::Empty, gradient.gradient())?;
//!     }
//!     backend.synchronize()?;
//!     Ok(loss)
//! }
//!
//! let backend = Cpu::new();
//! let mut table = backend.upload(&[0.1_f32; ITEMS * WIDTH])?;
//! let losses: Vec<f32> = (0..20).map(|_| step(&backend, &mut table)).collect::<Result<_>>()?;
//! assert!(losses[0] > 4.0 && losses[19] < 1e-3, "{losses:?}");
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! # Which operation does my model need?
//!
//! Each operation's page has its formula, its source and an example; [`systems`] composes the layers of published systems from them, and
//! [`from_pytorch`] names the call for what a model does in PyTorch.
//!
//! | published system | operation |
//! |---|---|
//! | MHTA, DIN variants without a network, STCA, TWIN's exact search unit | [`TargetAttentionOps::target_attention`], softmax |
//! | TWIN's behaviour features, any additive score | the same, with a `bias` |
//! | QIN (ReLU attention), HSTU (SiLU attention, divided by a number or, with [`SiluDivisor::HistoryLength`], by each history's length), linear attention | the same, with another [`Weighting`] |
//! | one history split over several devices or blocks | the same with `lse`, then [`TargetAttentionOps::merge_attention_into`] |
//! | DIN, DIEN's attention unit, with ReLU, sigmoid, PReLU or Dice | [`DinOps::din`] |
//! | SDIM's behaviour-sequence encoder: one table per user | [`SdimOps::sdim_encode`], [`SdimOps::sdim_append`] |
//! | SDIM's ranker: look candidates up in the tables | [`SdimOps::sdim_query`]; where the tables of all users are kept, [`SdimQueryInputs::with_users`]; where the signatures of all items are, [`Hash::Items8`] |
//! | kept histories that grow in place | [`UserSlots`] says where; [`DeviceOps::copy`], [`DeviceOps::upload_into`] |
//! | kernels that are compiled before the first request | [`DeviceOps::warm_up`] |
//! | new behaviours of any users, into kept tables, in one call | [`Jagged::with_slots`] with [`SdimOps::sdim_append`], [`SdimOps::sdim_encode_into`], [`SdimOps::sdim_remove`] |
//! | kept tables that forget | [`SdimOps::sdim_remove`], [`SdimOps::sdim_decay`], [`SdimEncodeInputs::with_weights`] |
//! | a batch of requests over the kept histories of all users | [`Jagged::of_users`] |
//! | SDIM in training or with many bits, without a table | [`SdimOps::sdim_attend`] |
//! | ETA's SimHash codes and its search by Hamming distance | [`SearchOps::pack_signs`], [`SearchOps::search`] with [`Search::hamming`] |
//! | SIM hard: the newest behaviours of the candidate's category | the same with [`Search::matching`] |
//! | SIM soft, TWIN's search by given keys, with cross features as a bias | the same with [`Search::dot`] |
//! | MUSE: cosine of 8-bit rows | the same with [`Search::cosine`] |
//! | second stages over what a search kept: ETA, SIM, TWIN, MUSE's similarity-aware attention (SA-TA) | [`SelectedOps::selected_attention`]; gradients [`SelectedOps::selected_attention_backward_into`]; with values from embedding tables [`SelectedOps::selected_table_attention`] |
//! | TIN: temporal positions on behaviours and candidates | [`TinOps::tin`]; gradients [`TinOps::tin_backward_into`] |
//! | DiffuMIN's multi-interest extractor: channels of orthogonal interests | [`InterestChannelsOps::interest_channels`]; gradients [`InterestChannelsOps::interest_channels_backward_into`] |
//! | MUSE's SimTier | [`SelectedOps::similarity_histogram`]; over the newest behaviours [`SelectedOps::newest_histogram`] |
//! | embedding bags, also with a weight per id (`per_sample_weights`) and with padding ids | [`LookupOps::lookup`], [`LookupInputs::with_weights`], [`IdPolicy::Skip`] |
//! | training: gradients of target attention, on every backend | [`TargetAttentionOps::target_attention_backward_into`] |
//! | training: gradients of SDIM, on every backend | [`SdimOps::sdim_attend_backward_into`]; of tables kept between requests [`SdimOps::sdim_query_backward_into`], [`SdimOps::sdim_encode_backward_into`] |
//! | training: gradients of DIN, on every backend | [`DinOps::din_backward_into`]; Dice in training mode [`DinOps::din_statistics_into`] |
//! | training embedding tables: sparse gradients, SGD, Adagrad, Adam, on every backend | [`LookupOps::lookup_backward_into`], [`LookupOps::update_rows`] |
//! | training DARE's tables, from a selection or over the whole history, on every backend | [`DecoupledOps::decoupled_attend_backward_into`]; in two calls [`DecoupledOps::decoupled_aggregate_backward_into`], [`DecoupledOps::decoupled_search_backward_into`] |
//! | DARE's two stages; searches in embedding tables | [`DecoupledOps::decoupled_search`], [`DecoupledOps::decoupled_aggregate`] |
//! | DARE in one call, with a top-K or over the whole history | [`DecoupledOps::decoupled_attend`] |
//!
//! # Concepts
//!
//! | concept | type | in short |
//! |---|---|---|
//! | a device | [`Backend`]: [`Cpu`], [`Wgpu`], [`Cuda`]; [`AnyBackend`] is one of them | write `fn score<B: Backend>(…)` once, run it anywhere |
//! | a jagged batch | [`Jagged`], [`Batch`] | offsets, validated once; no padding; histories may be [any ranges](Jagged#sub-ranges) of a buffer |
//! | an operation | [`TargetAttention`], [`Din`], [`Sdim`], [`Lookup`], [`Decoupled`], [`Search`], [`SelectedAttention`], [`Tin`], [`InterestChannels`] | a plain struct of parameters |
//! | data | [`Buffer`], [`View`], [`ViewMut`] | owned by you or the backend; borrowed by the call; written in place by [`upload_into`](DeviceOps::upload_into) and [`copy`](DeviceOps::copy) |
//! | storage types | [`Element`]: `f32`, [`half::f16`], [`half::bf16`] | arithmetic is always `f32` or wider |
//! | the specification | [`reference`](mod@reference) | plain loops in `f64`, public, for your own tests too; the gradients of every operation are there |
//! | failure | [`Error`](enum@Error) | names the operation, the argument, what was expected and what it got |
//!
//! Letters in shapes: `B` users; `N` behaviours and `M` candidates of all users; `L` and `C` of one user; `d`, `d_v`
//! widths; `H`, `H_kv` heads; `G`, `τ` SDIM groups and bits; `F` features; `K` behaviours kept by a search.
//!
//! Rules that hold for every operation:
//!
//! * An empty history gives a row of zeros, never NaN and never the mean of padding.
//! * The same batch on the same device gives the same bits; in another batch a user's last bits may differ.
//! * A NaN stays in the rows of the candidates whose inputs had it. (WGSL does not guarantee NaN arithmetic: on [`Wgpu`]
//!   those rows may hold anything.)
//! * No data make a call panic.
//! * Calls may return before the device is done. Errors that only the device can find, such as an id outside its table,
//!   are returned by the next [`download`](DeviceOps::download) or [`synchronize`](DeviceOps::synchronize) of the handle
//!   that made the call. Threads that serve requests concurrently take a [`DeviceOps::fork`] each.
//!
//! # Traits
//!
//! [`DeviceOps`] is the device: memory, batches, waiting, forks. Each operation is a trait over it: [`TargetAttentionOps`],
//! [`DinOps`], [`SdimOps`], [`LookupOps`], [`DecoupledOps`], [`SearchOps`], [`SelectedOps`], [`TinOps`], [`InterestChannelsOps`]. [`Backend`] stands for all of them and is implemented for every
//! type that implements them; generic code needs only `B: Backend`. On a concrete backend such as [`Cpu`], the calls are
//! methods of these traits, which `use longseq::prelude::*;` brings into scope.
//!
//! The traits are open: you can write a backend. It implements [`DeviceOps`] and the operations that it has; for the
//! others an empty `impl` is enough, because every call has a default that answers [`Error::Unsupported`]. For the same reason,
//! a new call is not a breaking change. A new operation is a new supertrait of [`Backend`]: that breaks only backends of
//! others, until they add one empty `impl`. Inputs and outputs are created with `new` and `with_*`, so that they can gain
//! optional fields.
//!
//! # Features
//!
//! * `cuda` (default): [`Cuda`], hand-written CUDA C++ for NVIDIA GPUs from Ampere on. Needs the driver at run time, and
//!   nothing at build time.
//! * `rayon` (default): [`Cpu`] spreads its work over the current thread pool. Results do not depend on it.
//! * `wgpu` (default): [`Wgpu`], hand-written WGSL for any Vulkan, Metal or Direct3D 12 device. It also compiles for a
//!   browser (`wasm32-unknown-unknown`), through the browser's own WebGPU and the `_async` calls alone; there it is
//!   type-checked by the tests and has not been run.
//!
//! Without default features the crate depends only on `bytemuck`, `crc32fast`, `half`, `pulp` and `thiserror`.
#![cfg_attr(not(any(feature = "cuda", target_arch = "x86_64", target_arch = "aarch64")), forbid(unsafe_code))]
#![deny(unsafe_code)]

mod any;
mod backend;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
pub mod element;
mod error;
pub mod from_pytorch;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod gpu;
mod host;
mod jagged;
mod memory;
mod ops;
mod plan;
pub mod prelude;
pub mod reference;
mod slots;
pub mod systems;
#[cfg(feature = "wgpu")]
pub mod webgpu;

pub use any::{AnyBackend, AnyBatch, AnyBuffer, AnyJagged, AnyMemory};
pub use backend::Backend;
pub use cpu::{Cpu, Instructions};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
#[cfg(feature = "cuda")]
pub use cudarc;
pub use device::{Buffer, DeviceOps};
pub use element::{DType, Element, GradientOf, Scalar, Signature};
pub use error::{Error, Result};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
#[doc(hidden)]
pub use gpu::set_trace;
pub use half;
pub use host::{Host, HostBuffer};
pub use jagged::{Batch, Jagged};
pub use memory::{Memory, View, ViewMut};
pub use ops::*;
pub use slots::{RowCopy, SlotAppend, UserSlots};
#[cfg(feature = "wgpu")]
pub use webgpu::Wgpu;
#[cfg(feature = "wgpu")]
pub use wgpu;

/// The code of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The repository's folder. These tests are compiled in the package `tests`, too.
#[cfg(all(test, any(feature = "cuda", feature = "wgpu")))]
fn repository() -> std::path::PathBuf {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    if package.join("shaders").exists() { package.into() } else { package.join("..") }
}
