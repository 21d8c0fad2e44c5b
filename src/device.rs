//! The device: memory, batches, waiting, forks. The calls of the operations are in `ops/<stem>`.

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::{Memory, View, ViewMut};

/// An owned buffer of backend `B`.
pub type Buffer<B, T> = <<B as DeviceOps>::Memory as Memory>::Buffer<T>;

/// What every backend has, whichever operations it runs: memory, batches, waiting, forks.
///
/// To write a backend, implement this trait and the traits of the operations that it has. For the others an empty `impl`
/// is enough; their calls answer [`Unsupported`](crate::Error::Unsupported). The type is then a
/// [`Backend`](crate::Backend).
pub trait DeviceOps {
    /// The kind of memory that holds its data.
    type Memory: Memory;

    /// A [`Jagged`] prepared for the device, for example with its offsets uploaded.
    type Jagged: AsRef<Jagged>;

    /// A [`Batch`] prepared for the device: offsets uploaded, plans cached. Reuse it for every operation over the same
    /// histories and candidates.
    type Batch: AsRef<Batch>;

    /// A description of the device, for people to read.
    fn device(&self) -> String;

    /// Another handle to the same device, memory, kernels and queue, which reports only the errors of its own calls.
    ///
    /// An error that a call finds on the device, such as an id out of range, is returned by the next wait of the handle
    /// that made the call. Threads that serve requests concurrently through one handle may receive each other's errors
    /// and miss their own. Give each request or thread a fork: it costs next to nothing.
    ///
    /// ```
    /// # use longseq::{Backend, Result};
    /// fn serve<B: Backend + Sync>(backend: &B, requests: usize) -> Result<()> {
    ///     std::thread::scope(|threads| {
    ///         let start = |_| threads.spawn(|| backend.fork()?.synchronize());
    ///         let running: Vec<_> = (0..requests).map(start).collect();
    ///         running.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    ///     })
    /// }
    /// # serve(&longseq::Cpu::new(), 2)?;
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device.
    fn fork(&self) -> Result<Self>
    where
        Self: Sized;

    /// Copies data to the device.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device.
    fn upload<T: Scalar>(&self, data: &[T]) -> Result<Buffer<Self, T>>;

    /// Allocates a buffer of zeros.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device.
    fn zeros<T: Scalar>(&self, length: usize) -> Result<Buffer<Self, T>>;

    /// Copies data from the host into a view, in the order of the calls: those before read and write what was there, those after what is
    /// there now. State that lives on the device grows in place.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// # let backend = longseq::Cpu::new();
    /// let mut history = backend.zeros::<f32>(4)?; // two behaviours of width 2, of which one has happened
    /// backend.upload_into(backend.view_mut(&mut history).slice(0, 2)?, &[1.0, 2.0])?;
    /// backend.upload_into(backend.view_mut(&mut history).slice(2, 2)?, &[3.0, 4.0])?;
    /// assert_eq!(backend.download(backend.view(&history))?, [1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) if there are not as many elements as in the view; [`OutOfMemory`](crate::Error::OutOfMemory), and the
    /// errors of the device.
    fn upload_into<T: Scalar>(&self, out: ViewMut<'_, Self::Memory, T>, data: &[T]) -> Result<()> {
        let _ = (out, data);
        Err(unsupported(self, "upload_into"))
    }

    /// Copies a view into another, on the device and in the order of the calls, as [`upload_into`](Self::upload_into).
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) if they differ in length; [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device.
    fn copy<T: Scalar>(
        &self,
        from: View<'_, Self::Memory, T>,
        to: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (from, to);
        Err(unsupported(self, "copy"))
    }

    /// Borrows a buffer for reading.
    fn view<'a, T: Scalar>(&self, buffer: &'a Buffer<Self, T>) -> View<'a, Self::Memory, T> {
        View::new(Self::Memory::data(buffer))
    }

    /// Borrows a buffer for writing.
    fn view_mut<'a, T: Scalar>(&self, buffer: &'a mut Buffer<Self, T>) -> ViewMut<'a, Self::Memory, T> {
        ViewMut::new(Self::Memory::data_mut(buffer))
    }

    /// Waits for all enqueued work and copies data to the host.
    ///
    /// # Errors
    /// Errors that this handle's calls caused on the device since its last wait, such as
    /// [`IndexOutOfRange`](crate::Error::IndexOutOfRange); the errors of the device.
    fn download<T: Scalar>(&self, view: View<'_, Self::Memory, T>) -> Result<Vec<T>>;

    /// Waits for all enqueued work.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    fn synchronize(&self) -> Result<()>;

    /// As [`download`](Self::download), without blocking the thread that polls the future: for async code, and where nothing may block. What is
    /// copied is what the view holds after the calls so far. On `Cpu` it is there at once, since calls are done when they return; so it is
    /// on a backend that does not override this, which waits here. On [`Wgpu`](crate::Wgpu) the time-out counts from the first poll, and in a browser, for
    /// want of a clock, it is not kept. While a wait is pending, no capture of a CUDA graph may begin.
    ///
    /// A future that is dropped gives up the result, and leaves errors to the next wait, if they have not been found yet.
    ///
    /// ```
    /// # use longseq::{Backend, Result};
    /// async fn scores<B: Backend>(backend: &B, scores: &longseq::Buffer<B, f32>) -> Result<Vec<f32>> {
    ///     // Other tasks of this thread run in the meantime.
    ///     backend.download_async(backend.view(scores)).await
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`download`](Self::download).
    fn download_async<T: Scalar>(
        &self,
        view: View<'_, Self::Memory, T>,
    ) -> impl Future<Output = Result<Vec<T>>> {
        std::future::ready(self.download(view))
    }

    /// As [`synchronize`](Self::synchronize), without blocking; see [`download_async`](Self::download_async).
    ///
    /// # Errors
    /// As [`synchronize`](Self::synchronize).
    fn synchronize_async(&self) -> impl Future<Output = Result<()>> {
        std::future::ready(self.synchronize())
    }

    /// Prepares one side of a batch.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device.
    fn jagged(&self, jagged: &Jagged) -> Result<Self::Jagged>;

    /// Prepares a batch.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) if the two sides have different numbers of users;
    /// [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device.
    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<Self::Batch>;

    /// The kernels that have been compiled on this device so far, by name and in alphabetical order: by calls, each at its first use, or by
    /// [`warm_up`](Self::warm_up). None on a device that compiles nothing, such as `Cpu`.
    fn compiled_kernels(&self) -> Vec<String> {
        Vec::new()
    }

    /// Compiles kernels before a call needs them, those whose names `is_wanted` takes, and returns how many were not compiled yet. A process
    /// that serves requests calls it before the first, which would otherwise wait for its kernels.
    ///
    /// Which kernels a call takes depends on storage types, parameters and shapes. So either all are compiled, with `|_| true` (on
    /// `Cuda` all files of PTX, which the driver keeps compiled between runs; on `Wgpu` many hundred variants), or those of some operations,
    /// whose names begin with the operation's (kernels that several operations share have other names), or those that requests have needed
    /// before:
    ///
    /// ```
    /// # use longseq::{Backend, Result};
    /// /// Where requests of each kind have been tried.
    /// fn learn<B: Backend>(backend: &B) -> Vec<String> {
    ///     backend.compiled_kernels() // to be kept with the model
    /// }
    ///
    /// /// Where they are served.
    /// fn start<B: Backend>(backend: &B, learned: &[String]) -> Result<()> {
    ///     backend.warm_up(|name| learned.iter().any(|kernel| kernel == name))?;
    ///     Ok(())
    /// }
    /// # let cpu = longseq::Cpu::new();
    /// # start(&cpu, &learn(&cpu))?;
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// Names are of this version and this kind of backend; of a name that no kernel has, nothing comes. What else a first request does,
    /// such as allocating scratch memory, it still does.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device. What has been compiled until then stays.
    fn warm_up(&self, is_wanted: impl Fn(&str) -> bool) -> Result<usize> {
        let _ = is_wanted;
        Ok(0)
    }
}

/// Fails for a copy of so many elements into a view of another length.
pub(crate) fn expect_length(
    operation: &'static str,
    argument: &'static str,
    length: usize,
    expected: usize,
) -> Result<()> {
    if length == expected {
        return Ok(());
    }
    let expected = format!("{expected} elements, as many as are written");
    Err(Error::Shape { operation, argument, expected, got: format!("{length} elements") })
}

/// The error of a call that a device does not implement.
pub(crate) fn unsupported<D: DeviceOps + ?Sized>(device: &D, operation: &'static str) -> Error {
    let what = format!("this operation on {}", device.device());
    Error::Unsupported { operation, what, supported: "the operations that this backend implements".into() }
}

/// The error of an argument that another device made.
pub(crate) fn of_another_device(operation: &'static str, argument: &'static str) -> Error {
    let (expected, got) = ("one that was made for this device".into(), "one of another device".into());
    Error::Parameter { operation, argument, expected, got }
}
