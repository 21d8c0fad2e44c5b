//! What both GPU backends share: plans kept per batch, sizes that fit the device's integers, the bounds of id checks,
//! and how kernels number weightings and activations.

mod bound;
mod codes;
mod lock;
mod plan_cache;
mod sizes;

pub(crate) use bound::{Bound, id_bound};
pub(crate) use codes::{activation_code, weighting_code};
pub(crate) use lock::lock;
pub(crate) use plan_cache::PlanCache;
pub(crate) use sizes::{NONE, check_units, fit};
