//! The traits. `use longseq::prelude::*;` brings a backend's calls into scope as methods.

pub use crate::backend::Backend;
pub use crate::device::DeviceOps;
pub use crate::ops::{
    DecoupledOps, DinOps, InterestChannelsOps, LookupOps, SdimOps, SearchOps, SelectedOps,
    TargetAttentionOps, TinOps,
};
