//! What both GPU backends share: plans cached per batch, sizes that fit the device's integers, the bounds of id checks,
//! the codes of weightings and activations, and the trace of launches.

mod bound;
mod codes;
mod lock;
mod plan_cache;
mod sizes;
mod trace;

pub(crate) use bound::{Bound, id_bound};
pub(crate) use codes::{activation_code, weighting_code};
pub(crate) use lock::lock;
pub(crate) use plan_cache::PlanCache;
pub(crate) use sizes::{NONE, check_units, fit};
pub use trace::set_trace;
pub(crate) use trace::{trace, trace_plan};
