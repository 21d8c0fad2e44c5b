//! TIN: not on this backend yet.

use crate::cuda::handle::Cuda;
use crate::ops::TinOps;

impl TinOps for Cuda {}
