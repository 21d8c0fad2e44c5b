//! Interest channels: not on this backend yet.

use crate::ops::InterestChannelsOps;
use crate::webgpu::state::Wgpu;

impl InterestChannelsOps for Wgpu {}
