//! The traits, for `use longseq::prelude::*;`: with them in scope, a backend's calls are methods.

pub use crate::backend::Backend;
pub use crate::device::DeviceOps;
pub use crate::ops::{DecoupledOps, DinOps, LookupOps, SdimOps, TargetAttentionOps};
