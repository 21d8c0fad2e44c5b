//! Attention over a selection and histograms of its similarities: not on this backend yet.

use crate::cuda::handle::Cuda;
use crate::ops::SelectedOps;

impl SelectedOps for Cuda {}
