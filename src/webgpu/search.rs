//! Search by rows, packed signs and keys: not on this backend yet.

use crate::ops::SearchOps;
use crate::webgpu::state::Wgpu;

impl SearchOps for Wgpu {}
