//! TIN: not on this backend yet.

use crate::ops::TinOps;
use crate::webgpu::state::Wgpu;

impl TinOps for Wgpu {}
