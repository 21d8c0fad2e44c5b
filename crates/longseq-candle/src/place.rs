//! Where longseq computes for tensors that are in the memory of candle's CPU.

use longseq::{Backend, Buffer, Cpu, DeviceOps, Host, Result, Scalar, View, ViewMut};

/// A backend of longseq that reads tensors of candle's CPU and gives results to it.
///
/// [`Cpu`] reads a tensor's memory as it is, and writes results where the resulting tensor keeps them: nothing is copied. Other
/// backends upload what they read and download what they wrote, in every call; with a backend of your own these five functions
/// are all that is asked for, as `Wgpu`'s implementation shows.
pub trait Place:
    Backend + DeviceOps<Batch: Send + Sync + 'static, Jagged: Send + Sync + 'static> + Send + Sync + 'static
{
    /// Where results are written.
    type Output<T: Scalar>;

    /// Lets the backend read a slice.
    ///
    /// # Errors
    /// Those of [`upload`](DeviceOps::upload).
    fn lend<'a, T: Scalar>(&self, data: &'a [T]) -> Result<Lent<'a, Self, T>>;

    /// Memory for a result of so many numbers, which are zeros.
    ///
    /// # Errors
    /// Those of [`zeros`](DeviceOps::zeros).
    fn output<T: Scalar>(&self, length: usize) -> Result<Self::Output<T>>;

    /// The buffer, for writing.
    fn output_mut<'a, T: Scalar>(&self, output: &'a mut Self::Output<T>) -> ViewMut<'a, Self::Memory, T>;

    /// Waits for what was written, and returns it.
    ///
    /// # Errors
    /// Those of [`download`](DeviceOps::download).
    fn finish<T: Scalar>(&self, output: Self::Output<T>) -> Result<Vec<T>>;
}

/// What a backend reads: the slice itself, or a copy on the device.
pub enum Lent<'a, B: DeviceOps + ?Sized, T: Scalar> {
    /// Memory that the backend reads as it is.
    Borrowed(View<'a, B::Memory, T>),
    /// A copy.
    Uploaded(Buffer<B, T>),
}

impl<B: DeviceOps, T: Scalar> Lent<'_, B, T> {
    /// A view, for the inputs of a call.
    pub fn view(&self) -> View<'_, B::Memory, T> {
        match self {
            Self::Borrowed(view) => *view,
            Self::Uploaded(buffer) => View::new(<B::Memory as longseq::Memory>::data(buffer)),
        }
    }
}

impl Place for Cpu {
    type Output<T: Scalar> = Vec<T>;

    fn lend<'a, T: Scalar>(&self, data: &'a [T]) -> Result<Lent<'a, Self, T>> {
        Ok(Lent::Borrowed(Host::view(data)))
    }

    fn output<T: Scalar>(&self, length: usize) -> Result<Vec<T>> {
        let bytes = (length as u64).saturating_mul(size_of::<T>() as u64);
        let mut output = Vec::new();
        output
            .try_reserve_exact(length)
            .map_err(|_| longseq::Error::OutOfMemory { operation: "output", bytes })?;
        output.resize(length, T::zeroed());
        Ok(output)
    }

    fn output_mut<'a, T: Scalar>(&self, output: &'a mut Vec<T>) -> ViewMut<'a, Host, T> {
        Host::view_mut(output)
    }

    fn finish<T: Scalar>(&self, output: Vec<T>) -> Result<Vec<T>> {
        Ok(output)
    }
}

/// Uploads, computes, downloads.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
macro_rules! device {
    ($($backend:ty),*) => {$(
        impl Place for $backend {
            type Output<T: Scalar> = Buffer<Self, T>;

            fn lend<'a, T: Scalar>(&self, data: &'a [T]) -> Result<Lent<'a, Self, T>> {
                Ok(Lent::Uploaded(self.upload(data)?))
            }

            fn output<T: Scalar>(&self, length: usize) -> Result<Buffer<Self, T>> {
                self.zeros(length)
            }

            fn output_mut<'a, T: Scalar>(&self, output: &'a mut Buffer<Self, T>) -> ViewMut<'a, Self::Memory, T> {
                self.view_mut(output)
            }

            fn finish<T: Scalar>(&self, output: Buffer<Self, T>) -> Result<Vec<T>> {
                self.download(self.view(&output))
            }
        }
    )*};
}
#[cfg(feature = "cuda")]
device!(longseq::Cuda);
#[cfg(feature = "wgpu")]
device!(longseq::Wgpu);
