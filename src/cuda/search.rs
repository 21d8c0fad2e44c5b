//! Search by rows, packed signs and keys: not on this backend yet.

use crate::cuda::handle::Cuda;
use crate::ops::SearchOps;

impl SearchOps for Cuda {}
