//! The device: memory, batches, waiting, forks.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyBuffer, AnyJagged, AnyMemory};
use crate::any::open::Open;
#[cfg(feature = "cuda")]
use crate::cuda::CudaMemory;
use crate::device::DeviceOps;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use crate::device::of_another_device;
use crate::element::Scalar;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Jagged;
use crate::memory::{View, ViewMut};
#[cfg(feature = "wgpu")]
use crate::webgpu::WgpuMemory;

/// Begins a wait on the backend inside; each backend has a future of its own type.
macro_rules! begin {
    ($self:ident, $operation:literal, $method:ident($($view:ident)?)) => {{
        #[cfg(feature = "wgpu")]
        let wgpu = match $self {
            Self::Wgpu(backend) => Some(begin!(in WgpuMemory, $operation, backend.$method($($view)?))),
            _ => None,
        };
        #[cfg(feature = "cuda")]
        let cuda = match $self {
            Self::Cuda(backend) => Some(begin!(in CudaMemory, $operation, backend.$method($($view)?))),
            _ => None,
        };
        let cpu = match $self {
            Self::Cpu(backend) => begin!(in Host, $operation, backend.$method($($view)?)),
            #[cfg(any(feature = "cuda", feature = "wgpu"))]
            _ => Err(of_another_device($operation, "view")),
        };
        async move {
            #[cfg(feature = "wgpu")]
            if let Some(begun) = wgpu {
                return begun?.await;
            }
            #[cfg(feature = "cuda")]
            if let Some(begun) = cuda {
                return begun?.await;
            }
            cpu?.await
        }
    }};
    (in $memory:ty, $operation:literal, $backend:ident.$method:ident($view:ident)) => {
        Open::<$memory>::open($view, $operation, "view").map(|view| $backend.$method(view))
    };
    (in $memory:ty, $operation:literal, $backend:ident.$method:ident()) => {
        Ok($backend.$method())
    };
}

impl DeviceOps for AnyBackend {
    type Memory = AnyMemory;

    type Jagged = AnyJagged;

    type Batch = AnyBatch;

    fn device(&self) -> String {
        match self {
            Self::Cpu(backend) => backend.device(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(backend) => backend.device(),
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => backend.device(),
        }
    }

    fn fork(&self) -> Result<Self> {
        call!("fork", self.fork(;))
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<AnyBuffer<T>> {
        call!("upload", self.upload(data;))
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<AnyBuffer<T>> {
        call!("zeros", self.zeros(length;))
    }

    fn upload_into<T: Scalar>(&self, out: ViewMut<'_, AnyMemory, T>, data: &[T]) -> Result<()> {
        call!("upload_into", self.upload_into(; out; data))
    }

    fn copy<T: Scalar>(&self, from: View<'_, AnyMemory, T>, to: ViewMut<'_, AnyMemory, T>) -> Result<()> {
        call!("copy", self.copy(; from, to))
    }

    fn download<T: Scalar>(&self, view: View<'_, AnyMemory, T>) -> Result<Vec<T>> {
        call!("download", self.download(; view))
    }

    fn synchronize(&self) -> Result<()> {
        call!("synchronize", self.synchronize(;))
    }

    fn download_async<T: Scalar>(
        &self,
        view: View<'_, AnyMemory, T>,
    ) -> impl Future<Output = Result<Vec<T>>> {
        begin!(self, "download", download_async(view))
    }

    fn synchronize_async(&self) -> impl Future<Output = Result<()>> {
        begin!(self, "synchronize", synchronize_async())
    }

    fn jagged(&self, jagged: &Jagged) -> Result<AnyJagged> {
        call!("jagged", self.jagged(jagged;))
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<AnyBatch> {
        call!("batch", self.batch(histories, targets;))
    }

    fn compiled_kernels(&self) -> Vec<String> {
        match self {
            Self::Cpu(backend) => backend.compiled_kernels(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(backend) => backend.compiled_kernels(),
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => backend.compiled_kernels(),
        }
    }

    fn warm_up(&self, is_wanted: impl Fn(&str) -> bool) -> Result<usize> {
        match self {
            Self::Cpu(backend) => backend.warm_up(is_wanted),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(backend) => backend.warm_up(is_wanted),
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => backend.warm_up(is_wanted),
        }
    }
}
