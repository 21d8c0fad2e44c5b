//! What one of the backends made: memory, jagged rows, batches.

#[cfg(feature = "cuda")]
use crate::cuda::{CudaBatch, CudaBuffer, CudaJagged, CudaMemory};
use crate::element::Scalar;
use crate::host::{Host, HostBuffer};
use crate::jagged::{Batch, Jagged};
use crate::memory::Memory;
#[cfg(feature = "wgpu")]
use crate::webgpu::{WgpuBatch, WgpuBuffer, WgpuJagged, WgpuMemory};

/// The memory of an [`AnyBackend`](crate::AnyBackend).
#[derive(Debug, Clone, Copy)]
pub struct AnyMemory;

/// Elements of type `T` in the memory of one of the backends.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyBuffer<T: Scalar> {
    /// On the host.
    Cpu(HostBuffer<T>),
    /// On a `wgpu` device.
    #[cfg(feature = "wgpu")]
    Wgpu(WgpuBuffer<T>),
    /// On an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(CudaBuffer<T>),
}

/// A [`Jagged`] of one of the backends.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "there are few, and they are borrowed")]
pub enum AnyJagged {
    /// Of the CPU.
    Cpu(Jagged),
    /// Of a `wgpu` device.
    #[cfg(feature = "wgpu")]
    Wgpu(WgpuJagged),
    /// Of an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(CudaJagged),
}

/// A [`Batch`] of one of the backends.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "there are few, and they are borrowed")]
pub enum AnyBatch {
    /// Of the CPU.
    Cpu(Batch),
    /// Of a `wgpu` device.
    #[cfg(feature = "wgpu")]
    Wgpu(WgpuBatch),
    /// Of an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(CudaBatch),
}

/// A kind of memory that an [`AnyMemory`] may be: takes its own out of the enums.
pub(super) trait Kind: Memory {
    /// Its backend's jagged rows.
    type Jagged;

    /// Its backend's batch.
    type Batch;

    fn buffer<T: Scalar>(any: &AnyBuffer<T>) -> Option<&Self::Data<T>>;

    fn buffer_mut<T: Scalar>(any: &mut AnyBuffer<T>) -> Option<&mut Self::Data<T>>;

    fn jagged(any: &AnyJagged) -> Option<&Self::Jagged>;

    fn batch(any: &AnyBatch) -> Option<&Self::Batch>;
}

impl Memory for AnyMemory {
    type Buffer<T: Scalar> = AnyBuffer<T>;
    type Data<T: Scalar> = AnyBuffer<T>;

    fn data<T: Scalar>(buffer: &AnyBuffer<T>) -> &AnyBuffer<T> {
        buffer
    }

    fn data_mut<T: Scalar>(buffer: &mut AnyBuffer<T>) -> &mut AnyBuffer<T> {
        buffer
    }

    fn length<T: Scalar>(data: &AnyBuffer<T>) -> usize {
        match data {
            AnyBuffer::Cpu(buffer) => Host::length(buffer),
            #[cfg(feature = "wgpu")]
            AnyBuffer::Wgpu(buffer) => WgpuMemory::length(buffer),
            #[cfg(feature = "cuda")]
            AnyBuffer::Cuda(buffer) => CudaMemory::length(buffer),
        }
    }
}

impl AsRef<Jagged> for AnyJagged {
    fn as_ref(&self) -> &Jagged {
        match self {
            Self::Cpu(jagged) => jagged,
            #[cfg(feature = "wgpu")]
            Self::Wgpu(jagged) => jagged.as_ref(),
            #[cfg(feature = "cuda")]
            Self::Cuda(jagged) => jagged.as_ref(),
        }
    }
}

impl AsRef<Batch> for AnyBatch {
    fn as_ref(&self) -> &Batch {
        match self {
            Self::Cpu(batch) => batch,
            #[cfg(feature = "wgpu")]
            Self::Wgpu(batch) => batch.as_ref(),
            #[cfg(feature = "cuda")]
            Self::Cuda(batch) => batch.as_ref(),
        }
    }
}

/// What the enums hold of a backend: how it goes in, and how it is taken out.
macro_rules! kind {
    ($variant:ident: $memory:ty, $buffer:ident, $jagged:ty, $batch:ty) => {
        impl Kind for $memory {
            type Jagged = $jagged;

            type Batch = $batch;

            fn buffer<T: Scalar>(any: &AnyBuffer<T>) -> Option<&Self::Data<T>> {
                take!(any, AnyBuffer::$variant(buffer) => Self::data(buffer))
            }

            fn buffer_mut<T: Scalar>(any: &mut AnyBuffer<T>) -> Option<&mut Self::Data<T>> {
                take!(any, AnyBuffer::$variant(buffer) => Self::data_mut(buffer))
            }

            fn jagged(any: &AnyJagged) -> Option<&$jagged> {
                take!(any, AnyJagged::$variant(jagged) => jagged)
            }

            fn batch(any: &AnyBatch) -> Option<&$batch> {
                take!(any, AnyBatch::$variant(batch) => batch)
            }
        }

        impl<T: Scalar> From<$buffer<T>> for AnyBuffer<T> {
            fn from(buffer: $buffer<T>) -> Self {
                Self::$variant(buffer)
            }
        }

        impl From<$jagged> for AnyJagged {
            fn from(jagged: $jagged) -> Self {
                Self::$variant(jagged)
            }
        }

        impl From<$batch> for AnyBatch {
            fn from(batch: $batch) -> Self {
                Self::$variant(batch)
            }
        }
    };
}

/// What is inside, if it is of the variant.
macro_rules! take {
    ($any:ident, $enum:ident::$variant:ident($inner:ident) => $taken:expr) => {
        match $any {
            $enum::$variant($inner) => Some($taken),
            #[allow(unreachable_patterns, reason = "a build may have one backend only")]
            _ => None,
        }
    };
}

kind!(Cpu: Host, HostBuffer, Jagged, Batch);
#[cfg(feature = "wgpu")]
kind!(Wgpu: WgpuMemory, WgpuBuffer, WgpuJagged, WgpuBatch);
#[cfg(feature = "cuda")]
kind!(Cuda: CudaMemory, CudaBuffer, CudaJagged, CudaBatch);
