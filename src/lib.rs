//! Kernels for long user-behaviour sequences.
//!
//! A recommender or advertising model predicts whether a user will click a candidate item from what the user did
//! before: 50 to 100,000 behaviours a user, a few to a thousand candidates a request, a few milliseconds to answer.
//! The heart of such a model is a handful of operations. This crate gives them behind one interface, without padding
//! and without repeating a user's history for each candidate, and with a plain [`reference`](mod@reference) that every backend is
//! compared with.
//!
//! # Target attention on your own tensors
//!
//! Suppose two users with 3 and 2 behaviours. Their histories lie one after the other in one buffer, `[N, d]` with
//! `N = 5`; their candidates, 1 and 2 of them, in another, `[M, d]` with `M = 3`. [`Jagged`] says who owns what:
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::{Cpu, Jagged, TargetAttention, TargetAttentionInputs};
//!
//! # fn main() -> longseq::Result<()> {
//! let d = 4;
//! let history: Vec<f32> = (0..5 * d).map(|i| (i as f32).sin()).collect();
//! let candidates: Vec<f32> = (0..3 * d).map(|i| (i as f32).cos()).collect();
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[3, 2])?, &Jagged::from_lengths(&[1, 2])?)?;
//!
//! let history = backend.upload(&history)?; // for the CPU, a copy; `Host::view(&history)` does without
//! let candidates = backend.upload(&candidates)?;
//! let inputs = TargetAttentionInputs {
//!     queries: backend.view(&candidates),
//!     keys: backend.view(&history),
//!     values: None, // the keys are the values
//!     bias: None,
//! };
//! let interest = backend.target_attention(&TargetAttention::new(d), &batch, inputs)?;
//! let interest: Vec<f32> = backend.download(backend.view(&interest))?; // [M, d]
//!
//! assert_eq!(interest.len(), 3 * d);
//! # Ok(())
//! # }
//! ```
//!
//! If your offsets come from PyTorch or JAX, [`Jagged::new`] takes them as they are (`&[i64]` with the leading 0).
//! For several heads, grouped key/value heads, other weights than softmax or a bias, see [`TargetAttention`]; for
//! `f16` and `bf16`, upload [`half::f16`] or [`half::bf16`] and nothing else changes.
//!
//! To run the same on a GPU, write `Wgpu::new()?` for `Cpu::new()`: the first adapter there is, or your own device and
//! queue with [`Wgpu::from_device`], and your own buffers with [`webgpu::WgpuBuffer::from_buffer`]. On an NVIDIA GPU write
//! `Cuda::new(0)?`, or take your own stream with [`Cuda::from_stream`] and your own slices with [`Cuda::borrow`].
//!
//! Threads that answer requests side by side on one device take a [`DeviceOps::fork`] each: what the device finds wrong with
//! one request, such as an id outside its table, is then told to that request alone.
//!
//! # Concepts
//!
//! | concept | type | in a word |
//! |---|---|---|
//! | a device | [`Backend`]: [`Cpu`], [`Wgpu`], [`Cuda`] | write `fn score<B: Backend>(…)` once, run it anywhere |
//! | a jagged batch | [`Jagged`], [`Batch`] | offsets, validated once; no padding |
//! | an operation | [`TargetAttention`], [`Din`], [`Sdim`], [`Lookup`], [`Decoupled`] | a plain struct of parameters |
//! | data | [`Buffer`], [`View`], [`ViewMut`] | owned by you or the backend; borrowed by the call |
//! | storage types | [`Element`]: `f32`, [`half::f16`], [`half::bf16`] | arithmetic is always `f32` or wider |
//! | the specification | [`reference`](mod@reference) | plain loops in `f64`, public, for your own tests too |
//! | failure | [`Error`](enum@Error) | names operation, argument, what was expected, what came |
//!
//! Letters in shapes: `B` users; `N` behaviours and `M` candidates of all users; `L` and `C` of one user; `d`, `d_v`
//! widths; `H`, `H_kv` heads; `G`, `τ` SDIM groups and bits; `F` features; `K` behaviours kept by a search.
//!
//! Rules that hold for every operation: an empty history gives a row of zeros, never NaN and never the mean of padding;
//! the same inputs on the same device give the same bits; a NaN stays in the rows of the candidates whose inputs had
//! it (WGSL promises no NaN arithmetic: on [`Wgpu`] those rows may hold anything); nothing panics on data.
//!
//! # Which operation does my model need?
//!
//! | published system | here |
//! |---|---|
//! | MHTA, DIN variants without a network, STCA, TWIN's exact search unit | [`TargetAttentionOps::target_attention`], softmax |
//! | TWIN's behaviour features, any additive score | the same, with a `bias` |
//! | QIN (ReLU attention), HSTU (SiLU attention), linear attention | the same, another [`Weighting`] |
//! | one history over several devices or blocks | the same with `lse`, then [`TargetAttentionOps::merge_attention_into`] |
//! | DIN, DIEN's attention unit, with ReLU, sigmoid, PReLU or Dice | [`DinOps::din`] |
//! | SDIM's behaviour-sequence encoder: a table per user | [`SdimOps::sdim_encode`], [`SdimOps::sdim_append`] |
//! | SDIM's ranker: look candidates up in the tables | [`SdimOps::sdim_query`] |
//! | SDIM in training or with many bits, without a table | [`SdimOps::sdim_attend`] |
//! | SimHash codes of ETA | [`SdimOps::sdim_signatures_into`], then count differing bits |
//! | embedding bags | [`LookupOps::lookup`] |
//! | DARE's two stages; the search of SIM soft and of two-stage models | [`DecoupledOps::decoupled_search`], [`DecoupledOps::decoupled_aggregate`] |
//! | DARE in one call, with a top-K or over the whole history | [`DecoupledOps::decoupled_attend`] |
//!
//! # DIN
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::{Activation, Cpu, Din, DinInputs, DinLayer, Host, Jagged};
//!
//! # fn main() -> longseq::Result<()> {
//! let (d, units) = (4, 3);
//! let (targets, history) = (vec![0.5f32; d], vec![0.25f32; 2 * d]);
//! let (w1, b1) = (vec![0.1f32; units * 4 * d], vec![0.0; units]); // PyTorch's layout, [out, in]
//! let (w2, b2) = (vec![1.0f32; units], vec![0.0]);
//! let hidden = [DinLayer {
//!     weight: Host::view(&w1),
//!     bias: Host::view(&b1),
//!     activation: Activation::Sigmoid,
//! }];
//! let inputs = DinInputs {
//!     targets: Host::view(&targets),
//!     history: Host::view(&history),
//!     hidden: &hidden,
//!     output_weight: Host::view(&w2),
//!     output_bias: Host::view(&b2),
//! };
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
//! let interest = backend.din(&Din::new(d), &batch, inputs)?;
//! assert_eq!(interest.len(), d);
//! # Ok(())
//! # }
//! ```
//!
//! # SDIM: encode once, query for every request
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimHistory, SdimQuery};
//!
//! # fn main() -> longseq::Result<()> {
//! let op = Sdim::new(8); // 16 groups of 3 bits, as in the paper
//! let rotations = op.rotations(42)?; // draw once, store with the model
//! let hash = Hash::Rotations(Host::view(&rotations));
//! let backend = Cpu::new();
//!
//! // The behaviour-sequence service, whenever the user did something:
//! let history: Vec<f32> = (0..1000 * 8).map(|i| (i as f32).sin()).collect();
//! let histories = backend.jagged(&Jagged::from_lengths(&[1000])?)?;
//! let behaviours = SdimHistory { rows: Host::view(&history), hash };
//! let table = backend.sdim_encode(&op, &histories, behaviours)?; // [B, G, 2^τ, d]
//!
//! // The ranker: its cost does not depend on the 1000.
//! let candidates = vec![1.0f32; 20 * 8];
//! let targets = backend.jagged(&Jagged::from_lengths(&[20])?)?;
//! let query = SdimQuery { table: Host::view(&table), targets: Some(Host::view(&candidates)), hash };
//! let interest = backend.sdim_query(&op, &targets, query)?;
//! assert_eq!(interest.len(), 20 * 8);
//! # Ok(())
//! # }
//! ```
//!
//! # Decoupled embeddings: search in one table, aggregate from another
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::{Cpu, Decoupled, DecoupledInputs, Host, Jagged, Table, TableData};
//!
//! # fn main() -> longseq::Result<()> {
//! let (items, a, r) = (100, 4, 16);
//! let attention: Vec<f32> = (0..items * a).map(|i| (i as f32).sin()).collect();
//! let representation: Vec<f32> = (0..items * r).map(|i| (i as f32).cos()).collect();
//! let attention = [Table { rows: items, width: a, data: TableData::F32(Host::view(&attention)) }];
//! let representation = [Table { rows: items, width: r, data: TableData::F32(Host::view(&representation)) }];
//! let ids: Vec<u32> = (0..50).map(|l| l * 7 % 100).collect(); // one user's 50 behaviours
//! let inputs = DecoupledInputs {
//!     attention: &attention,
//!     representation: &representation,
//!     ids: Host::view(&ids),
//!     target_ids: Host::view(&[3, 14]),
//! };
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[50])?, &Jagged::from_lengths(&[2])?)?;
//! let op = Decoupled::new([0.5]).with_top_k(Some(20)); // one feature, scaled by 1/√4
//! let interest = backend.decoupled_attend(&op, &batch, inputs)?;
//! assert_eq!(interest.len(), 2 * r);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! * `cuda` (default): [`Cuda`], hand-written CUDA C++ for NVIDIA GPUs from Ampere on. Needs the driver, and nothing to build.
//! * `rayon` (default): [`Cpu`] spreads its work over the current thread pool. Results do not depend on it.
//! * `wgpu` (default): [`Wgpu`], hand-written WGSL for any Vulkan, Metal or Direct3D 12 device.
//!
//! Without default features the crate needs `bytemuck`, `half`, `pulp` and `thiserror` only.
#![cfg_attr(not(any(feature = "cuda", target_arch = "x86_64")), forbid(unsafe_code))]
#![deny(unsafe_code)]

mod backend;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
pub mod element;
mod error;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod gpu;
mod host;
mod jagged;
mod memory;
mod ops;
mod plan;
pub mod prelude;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod webgpu;

pub use backend::Backend;
pub use cpu::{Cpu, Instructions};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
#[cfg(feature = "cuda")]
pub use cudarc;
pub use device::{Buffer, DeviceOps};
pub use element::{DType, Element, Scalar, Signature};
pub use error::{Error, Result};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
#[doc(hidden)]
pub use gpu::set_trace;
pub use half;
pub use host::{Host, HostBuffer};
pub use jagged::{Batch, Jagged};
pub use memory::{Memory, View, ViewMut};
pub use ops::*;
#[cfg(feature = "wgpu")]
pub use webgpu::Wgpu;
#[cfg(feature = "wgpu")]
pub use wgpu;
