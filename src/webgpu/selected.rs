//! Attention over a selection and histograms of its similarities: not on this backend yet.

use crate::ops::SelectedOps;
use crate::webgpu::state::Wgpu;

impl SelectedOps for Wgpu {}
