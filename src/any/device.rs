//! The device: memory, batches, waiting, forks.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyBuffer, AnyJagged, AnyMemory};
use crate::device::DeviceOps;
use crate::element::Scalar;
use crate::error::Result;
use crate::jagged::Jagged;
use crate::memory::{View, ViewMut};

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

    fn jagged(&self, jagged: &Jagged) -> Result<AnyJagged> {
        call!("jagged", self.jagged(jagged;))
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<AnyBatch> {
        call!("batch", self.batch(histories, targets;))
    }
}
