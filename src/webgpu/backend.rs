//! The device operations: memory, batches, waiting, forks.

use crate::device::{DeviceOps, expect_length};
use crate::element::Scalar;
use crate::error::Result;
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};
use crate::webgpu::batch::{WgpuBatch, WgpuJagged};
use crate::webgpu::memory::{Region, WgpuBuffer, WgpuMemory};
use crate::webgpu::state::Wgpu;

impl DeviceOps for Wgpu {
    type Memory = WgpuMemory;

    type Jagged = WgpuJagged;

    type Batch = WgpuBatch;

    fn device(&self) -> String {
        let info = self.wgpu_device().adapter_info();
        format!("{} ({:?}, {:?})", info.name, info.backend, info.device_type)
    }

    fn fork(&self) -> Result<Self> {
        Ok(self.forked())
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<WgpuBuffer<T>> {
        if let Some(placed) = self.placed(data)? {
            return Ok(placed);
        }
        self.upload_slice("upload", data)
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<WgpuBuffer<T>> {
        if self.placement.is_some()
            && let Some(placed) = self.placed(&vec![T::zeroed(); length])?
        {
            return Ok(placed);
        }
        self.zeroed("zeros", length)
    }

    fn upload_into<T: Scalar>(&self, out: ViewMut<'_, WgpuMemory, T>, data: &[T]) -> Result<()> {
        self.upload_to("upload_into", &Region::of_mut(&out), data)
    }

    fn copy<T: Scalar>(&self, from: View<'_, WgpuMemory, T>, to: ViewMut<'_, WgpuMemory, T>) -> Result<()> {
        const NAME: &str = "copy";
        expect_length(NAME, "from", from.len(), to.len())?;
        let (from, to) = (Region::of(from), Region::of_mut(&to));
        self.call(|gpu| gpu.copy_elements(NAME, &from, &to))
    }

    fn download<T: Scalar>(&self, view: View<'_, WgpuMemory, T>) -> Result<Vec<T>> {
        self.download_view("download", Some(Region::of(view)))
    }

    fn synchronize(&self) -> Result<()> {
        self.download_view::<u32>("synchronize", None).map(drop)
    }

    fn download_async<T: Scalar>(
        &self,
        view: View<'_, WgpuMemory, T>,
    ) -> impl Future<Output = Result<Vec<T>>> {
        self.download_view_async("download", Some(Region::of(view)))
    }

    fn synchronize_async(&self) -> impl Future<Output = Result<()>> {
        let waiting = self.download_view_async::<u32>("synchronize", None);
        async move { waiting.await.map(drop) }
    }

    fn jagged(&self, jagged: &Jagged) -> Result<WgpuJagged> {
        WgpuJagged::new(jagged.clone(), self.shared.owner.clone())
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<WgpuBatch> {
        let batch = Batch::new(histories.clone(), targets.clone())?;
        Ok(WgpuBatch::new(batch, self.shared.owner.clone()))
    }

    fn compiled_kernels(&self) -> Vec<String> {
        self.shared.pipelines.keys()
    }

    fn warm_up(&self, is_wanted: impl Fn(&str) -> bool) -> Result<usize> {
        self.compile(is_wanted)
    }
}
