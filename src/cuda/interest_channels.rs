//! Interest channels: not on this backend yet.

use crate::cuda::handle::Cuda;
use crate::ops::InterestChannelsOps;

impl InterestChannelsOps for Cuda {}
