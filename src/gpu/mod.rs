//! What both GPU backends share: plans cached per batch, sizes that fit the device's integers, the bounds of id checks,
//! checks at the start of calls, the parts of SDIM's and DIN's gradients, the chunks of those of decoupled embeddings, the codes of
//! weightings and activations, and the trace of launches.

mod bound;
mod codes;
mod decoupled;
mod din;
pub(crate) mod din_moments;
mod entry;
mod lookup;
mod plan_cache;
mod sdim;
mod sizes;
pub(crate) mod sync;
mod trace;

pub(crate) use bound::{Bound, has_unread_history, id_bound};
pub(crate) use codes::{activation_code, weighting_of};
pub(crate) use decoupled::{Chunk, ChunkLimits, Chunks, SPAN, TILE_CANDIDATES};
#[cfg(feature = "cuda")]
pub(crate) use decoupled::{ChunkMerge, ChunkSpan, ChunkTile};
pub(crate) use din::{CHAIN, DinLayout, DinLimits, DinPart, DinParts, DinWanted};
pub(crate) use entry::{check_din, check_encode, check_top_k, check_units, known_offsets, search};
pub(crate) use lookup::{SortPlan, Step, gradient_checks, head_levels, sorted_checks};
pub(crate) use plan_cache::PlanCache;
pub(crate) use sdim::{AttendCut, PartCache, UserRows};
pub(crate) use sizes::{NONE, fit};
pub(crate) use sync::lock;
pub use trace::set_trace;
pub(crate) use trace::{trace, trace_plan};
