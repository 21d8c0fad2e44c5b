//! The device alone: memory, batches, waiting, forks. The calls of the operations stand in `ops/<stem>`.

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::{Memory, View, ViewMut};

/// An owned buffer of backend `B`.
pub type Buffer<B, T> = <<B as DeviceOps>::Memory as Memory>::Buffer<T>;

/// What every backend has, whatever operations it runs: memory, batches, waiting, forks.
///
/// To write a backend, implement this and the traits of the operations that it has; for the others an empty `impl` is
/// enough, and their calls answer [`Unsupported`](crate::Error::Unsupported). It is a [`Backend`](crate::Backend) then.
pub trait DeviceOps {
    /// Where its data live.
    type Memory: Memory;

    /// A [`Jagged`] made ready for the device: offsets uploaded, work planned.
    type Jagged: AsRef<Jagged>;

    /// A [`Batch`](crate::Batch) made ready for the device: offsets uploaded, work planned. Reuse it for every
    /// operation over the same histories and candidates.
    type Batch: AsRef<Batch>;

    /// What runs the operations, for people to read.
    fn device(&self) -> String;

    /// Another handle to the same device, memory, kernels and queue, which hears of its own calls alone.
    ///
    /// What a call finds on the device, such as an id out of range, is told to the next wait of the handle that made
    /// the call. Threads that answer requests side by side through one handle may be told of each other's errors, and
    /// then not of their own: give each request or thread a fork. It costs next to nothing.
    ///
    /// ```
    /// # use longseq::{Backend, Result};
    /// fn serve<B: Backend + Sync>(backend: &B, requests: usize) -> Result<()> {
    ///     std::thread::scope(|threads| {
    ///         let answer = |_| threads.spawn(|| backend.fork()?.synchronize());
    ///         let answers: Vec<_> = (0..requests).map(answer).collect();
    ///         answers.into_iter().try_for_each(|answer| answer.join().expect("no panic"))
    ///     })
    /// }
    /// # serve(&longseq::Cpu::new(), 2)?;
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn fork(&self) -> Result<Self>
    where
        Self: Sized;

    /// Copies data to the device.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn upload<T: Scalar>(&self, data: &[T]) -> Result<Buffer<Self, T>>;

    /// A buffer of zeros.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn zeros<T: Scalar>(&self, length: usize) -> Result<Buffer<Self, T>>;

    /// Borrows a buffer to read.
    fn view<'a, T: Scalar>(&self, buffer: &'a Buffer<Self, T>) -> View<'a, Self::Memory, T> {
        View::new(Self::Memory::data(buffer))
    }

    /// Borrows a buffer to write.
    fn view_mut<'a, T: Scalar>(&self, buffer: &'a mut Buffer<Self, T>) -> ViewMut<'a, Self::Memory, T> {
        ViewMut::new(Self::Memory::data_mut(buffer))
    }

    /// Waits for everything enqueued and copies data to the host.
    ///
    /// # Errors
    /// What went wrong on the device since the last wait of this handle, such as
    /// [`IndexOutOfRange`](crate::Error::IndexOutOfRange); the device's own.
    fn download<T: Scalar>(&self, view: View<'_, Self::Memory, T>) -> Result<Vec<T>>;

    /// Waits for everything enqueued.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    fn synchronize(&self) -> Result<()>;

    /// Makes one side of a batch ready.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn jagged(&self, jagged: &Jagged) -> Result<Self::Jagged>;

    /// Makes a batch ready.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) where the two sides count different users;
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<Self::Batch>;
}

/// What a call answers on a device that does not have it.
pub(crate) fn unsupported<D: DeviceOps + ?Sized>(device: &D, operation: &'static str) -> Error {
    let what = format!("this operation on {}", device.device());
    Error::Unsupported { operation, what, supported: "the operations that this backend implements".into() }
}
