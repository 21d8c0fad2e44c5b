//! Selections.

use crate::any::memory::AnyMemory;
use crate::any::open::opens;
#[cfg(feature = "cuda")]
use crate::cuda::CudaMemory;
use crate::host::Host;
use crate::ops::{Selection, SelectionBuffers, SelectionMut};
#[cfg(feature = "wgpu")]
use crate::webgpu::WgpuMemory;

opens! {
    Selection { positions, scores, counts } as ["saved.kept", "saved.selection"];
    SelectionMut { positions, scores, counts } as ["kept"];
}

/// What a backend allocated for a selection.
macro_rules! from_buffers {
    ($memory:ty) => {
        impl From<SelectionBuffers<$memory>> for SelectionBuffers<AnyMemory> {
            fn from(kept: SelectionBuffers<$memory>) -> Self {
                let SelectionBuffers { positions, scores, counts } = kept;
                Self { positions: positions.into(), scores: scores.into(), counts: counts.into() }
            }
        }
    };
}

from_buffers!(Host);
#[cfg(feature = "wgpu")]
from_buffers!(WgpuMemory);
#[cfg(feature = "cuda")]
from_buffers!(CudaMemory);
