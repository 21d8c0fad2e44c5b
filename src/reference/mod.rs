//! The specification as code: every operation in its simplest form, one number at a time, in `f64`.
//!
//! Every backend is compared with these functions. They widen the inputs exactly, compute in `f64` and return `f64`,
//! so that the error of a backend can be measured for every storage type. They are deliberately slow: the loops follow
//! the formulas of [`TargetAttention`](crate::TargetAttention), [`Din`](crate::Din), [`Sdim`](crate::Sdim),
//! [`Lookup`](crate::Lookup), [`Decoupled`](crate::Decoupled), [`Search`](crate::Search),
//! [`SelectedAttention`](crate::SelectedAttention), [`Tin`](crate::Tin) and [`InterestChannels`](crate::InterestChannels) literally.
//!
//! The functions that end in `_backward` give the gradients of a scalar loss, from that of the operation's output (`grad_out`).
//! They save nothing: what the forward pass computed is computed again. Behaviours that a score of `-∞` removes get zeros,
//! whatever they hold; so do rows that belong to no user.
//!
//! Rows that belong to no user are zeros here; a backend leaves them unchanged. The functions compute in the caller's
//! floating-point mode; [`Cpu`](crate::Cpu) in the default one, whatever the caller's.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::{Cpu, Host, Jagged, TargetAttention, TargetAttentionInputs, reference};
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
//! let (candidate, history) = ([0.5_f32, -1.0], [1.0_f32, 0.0, 0.0, 1.0, 2.0, 2.0]);
//! let inputs = TargetAttentionInputs::new(Host::view(&candidate), Host::view(&history));
//! let op = TargetAttention::new(2);
//!
//! let out = backend.target_attention(&op, &batch, inputs)?;
//! let exact = reference::target_attention(&op, &batch, &inputs)?;
//! for (value, exact) in out.iter().zip(exact.out) {
//!     assert!((f64::from(*value) - exact).abs() < 1e-6);
//! }
//! # Ok::<(), longseq::Error>(())
//! ```

mod arithmetic;
mod decoupled;
mod decoupled_backward;
mod din;
mod din_backward;
mod interest_channels;
mod interest_channels_backward;
mod lookup;
mod lookup_backward;
mod sdim;
mod sdim_backward;
mod search;
mod selected;
mod selected_backward;
mod selected_tables;
mod sorted_ids;
mod target_attention;
mod target_attention_backward;
mod tin;
mod tin_backward;
mod update_rows;
mod widened;

pub use decoupled::*;
pub use decoupled_backward::*;
pub use din::*;
pub use din_backward::*;
pub use interest_channels::*;
pub use interest_channels_backward::*;
pub use lookup::*;
pub use lookup_backward::*;
pub use sdim::*;
pub use sdim_backward::*;
pub use search::*;
pub use selected::*;
pub use selected_backward::*;
pub use selected_tables::*;
pub use sorted_ids::*;
pub use target_attention::*;
pub use target_attention_backward::*;
pub use tin::*;
pub use tin_backward::*;
pub use update_rows::*;
