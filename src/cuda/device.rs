//! The device alone: memory, batches, waiting, forks.

use std::sync::{Arc, Mutex};

use crate::cuda::batch::{CudaBatch, CudaJagged};
use crate::cuda::driver::{Allocation, PageLocked, abandon, check_not_captured, copy, read};
use crate::cuda::handle::Cuda;
use crate::cuda::kernels::files;
use crate::cuda::memory::{CudaBuffer, CudaMemory};
use crate::cuda::records::Records;
use crate::device::{DeviceOps, expect_length};
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::gpu::{Bound, lock};
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};

impl DeviceOps for Cuda {
    type Memory = CudaMemory;

    type Jagged = CudaJagged;

    type Batch = CudaBatch;

    fn device(&self) -> String {
        self.shared.name.clone()
    }

    fn fork(&self) -> Result<Self> {
        let records = Records::new(self.stream(), "fork")?;
        Ok(Self { records: Arc::new(Mutex::new(records)), ..self.clone() })
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<CudaBuffer<T>> {
        let gpu = if data.is_empty() { self } else { self.maker() };
        let allocation = gpu.list("upload", data)?;
        Ok(CudaBuffer::allocated(allocation, data.len(), gpu.stream().clone()))
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<CudaBuffer<T>> {
        const NAME: &str = "zeros";
        let limit = isize::MAX as u64;
        let bytes = length
            .checked_mul(size_of::<T>())
            .filter(|&bytes| bytes as u64 <= limit)
            .ok_or(Error::Limit { operation: NAME, argument: "length", needed: length as u64, limit })?;
        let allocation = Allocation::new(self.stream(), NAME, bytes)?;
        allocation.fill(NAME, 0)?;
        Ok(CudaBuffer::allocated(allocation, length, self.stream().clone()))
    }

    fn upload_into<T: Scalar>(&self, out: ViewMut<'_, CudaMemory, T>, data: &[T]) -> Result<()> {
        const NAME: &str = "upload_into";
        expect_length(NAME, "data", data.len(), out.len())?;
        let region = self.region_mut(NAME, &out)?;
        // What a graph would copy at each launch is the host's, and may be gone.
        check_not_captured(self.stream(), NAME, "a copy from the host")?;
        self.shared.staging.upload_to(NAME, region.pointer, bytemuck::cast_slice(data))
    }

    fn copy<T: Scalar>(&self, from: View<'_, CudaMemory, T>, to: ViewMut<'_, CudaMemory, T>) -> Result<()> {
        const NAME: &str = "copy";
        expect_length(NAME, "from", from.len(), to.len())?;
        let (from, to) = (self.region(NAME, &from)?, self.region_mut(NAME, &to)?);
        copy(self.stream(), NAME, from.pointer, to.pointer, to.length * size_of::<T>())
    }

    fn download<T: Scalar>(&self, view: View<'_, CudaMemory, T>) -> Result<Vec<T>> {
        const NAME: &str = "download";
        let region = self.region(NAME, &view)?;
        let mut data = vec![T::zeroed(); region.length];
        read(self.stream(), NAME, region.pointer, bytemuck::cast_slice_mut(&mut data))?;
        self.shared.waiter.settle();
        match self.take_records(NAME) {
            Ok(()) => Ok(data),
            Err(error) => {
                // If waiting failed, the copy may still be made.
                if !Bound::found(&error) {
                    abandon(data);
                }
                Err(error)
            }
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.shared.waiter.settle();
        self.take_records("synchronize")
    }

    fn download_async<T: Scalar>(
        &self,
        view: View<'_, CudaMemory, T>,
    ) -> impl Future<Output = Result<Vec<T>>> {
        const NAME: &str = "download";
        let begun = self.region(NAME, &view).and_then(|region| {
            let bytes = region.length * size_of::<T>();
            let copy = PageLocked::copy_of(self.stream(), NAME, region.pointer, bytes)?;
            Ok(self.wait_elsewhere(NAME, Some(copy)))
        });
        async move {
            let bytes = begun?.await?;
            let mut data = vec![T::zeroed(); bytes.len() / size_of::<T>()];
            bytemuck::cast_slice_mut(&mut data).copy_from_slice(&bytes);
            Ok(data)
        }
    }

    fn synchronize_async(&self) -> impl Future<Output = Result<()>> {
        const NAME: &str = "synchronize";
        // Here, not on the thread that waits: the caller's thread may end the capture in the meantime.
        let begun =
            check_not_captured(self.stream(), NAME, "a wait").map(|()| self.wait_elsewhere(NAME, None));
        async move { begun?.await.map(drop) }
    }

    fn jagged(&self, jagged: &Jagged) -> Result<CudaJagged> {
        CudaJagged::new(jagged.clone(), self.maker().stream())
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<CudaBatch> {
        Ok(CudaBatch::new(Batch::new(histories.clone(), targets.clone())?, self.maker().stream()))
    }

    fn compiled_kernels(&self) -> Vec<String> {
        self.loaded().into_iter().map(str::to_owned).collect()
    }

    fn warm_up(&self, is_wanted: impl Fn(&str) -> bool) -> Result<usize> {
        const NAME: &str = "warm_up";
        let loaded = self.loaded();
        let mut compiled = 0;
        for file in files().filter(|file| is_wanted(file)) {
            // Of a file that is loaded, too: drivers that load lazily load a kernel as it is asked for.
            self.module(NAME, file)?.find_all(NAME)?;
            compiled += usize::from(!loaded.contains(&file));
        }
        Ok(compiled)
    }
}

impl Cuda {
    /// Waits on another thread for all that is enqueued, and for a copy.
    fn wait_elsewhere(
        &self,
        operation: &'static str,
        copy: Option<PageLocked>,
    ) -> impl Future<Output = Result<Vec<u8>>> + use<> {
        let (gpu, records) = (self.clone(), self.records.clone());
        let job = move |is_wanted: &dyn Fn() -> bool| {
            // Errors are the next wait's if nobody wants this one's any more.
            let waited = match is_wanted() {
                true => gpu.take_records(operation),
                false => gpu.shared.staging.wait(operation),
            };
            match waited {
                Ok(()) => Ok(copy.map_or(Vec::new(), |copy| copy.bytes().to_vec())),
                Err(error) => {
                    // If waiting fails, the copy may still be made.
                    let is_over = Bound::found(&error)
                        || check_not_captured(gpu.stream(), operation, "a wait").is_ok()
                            && gpu.shared.staging.wait(operation).is_ok();
                    if !is_over {
                        abandon(copy);
                    }
                    Err(error)
                }
            }
        };
        let unclaimed = move |result: Result<Vec<u8>>| {
            if let Err(error) = result {
                lock(&records).give_back(error);
            }
        };
        let outcome = self.shared.waiter.wait(job, unclaimed);
        async move {
            let panicked = || Error::Device { operation, message: "the thread that waits panicked".into() };
            outcome.await.unwrap_or_else(|| Err(panicked()))
        }
    }

    /// Waits, and fails with the first id out of range among this handle's calls since the last wait.
    fn take_records(&self, operation: &'static str) -> Result<()> {
        let copied = self.shared.staging.take();
        // Of the calls that have been enqueued whole.
        let uses = {
            let _no_calls = lock(&self.shared.workspace);
            lock(&self.records).uses()
        };
        let mut found = {
            let mut records = lock(&self.records);
            let found = records.look(self.stream(), operation);
            if found.is_ok() {
                records.settle(uses);
            }
            found
        };
        let is_found = found.as_ref().is_err_and(Bound::found);
        if found.is_err() && !is_found {
            self.shared.staging.put_back(copied);
            return found;
        }
        if is_found {
            let _no_calls = lock(&self.shared.workspace);
            found = lock(&self.records).take(self.stream(), operation);
        }
        // The older one first.
        lock(&self.records).unclaimed().map_or(found, Err)
    }
}
