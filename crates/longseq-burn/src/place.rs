//! Where longseq computes for burn's tensors.

use burn_core::backend::flex::FlexTensor;
use burn_core::backend::{BackendTypes, Flex, TensorMetadata};
use burn_core::tensor::Element;
use longseq::prelude::*;
use longseq::{Buffer, Cpu, Host, Result, Scalar, View, ViewMut};

use crate::error::wrong;
use crate::tensors::{Tensors, flex};

/// What a tensor of burn and a buffer of longseq both may hold.
pub trait Number: Scalar + Element {}

impl<T: Scalar + Element> Number for T {}

/// A tensor outside of burn's graph, that a place reads.
pub type Values<P> = <<P as Place>::Burn as BackendTypes>::FloatTensorPrimitive;

/// A backend of longseq that reads tensors of one of burn's backends and gives results to it.
///
/// [`Cpu`] reads the memory of Flex's tensors as it is, and writes results where the resulting tensor keeps them: nothing is copied. Other
/// backends upload what they read of Flex and download what they wrote, in every call.
pub trait Place: Sized + Send + Sync + 'static {
    /// The backend of longseq.
    type Backend: Backend
        + DeviceOps<Batch: Send + Sync + 'static, Jagged: Send + Sync + 'static>
        + Send
        + Sync
        + 'static;
    /// The backend of burn.
    type Burn: Tensors;
    /// Where results are written.
    type Output<T: Number>;

    /// The backend of longseq.
    fn backend(&self) -> &Self::Backend;

    /// A place for one call, which learns only of its own errors.
    ///
    /// # Errors
    /// Those of [`fork`](DeviceOps::fork).
    fn for_call(&self) -> Result<Self>;

    /// Lets the backend read a contiguous tensor.
    ///
    /// # Errors
    /// Those of [`upload`](DeviceOps::upload), and of a tensor of another type.
    fn lend<'a, T: Number>(&self, tensor: &'a Values<Self>) -> Result<Lent<'a, Self, T>>;

    /// Memory for a result of so many numbers, which are zeros.
    ///
    /// # Errors
    /// Those of [`zeros`](DeviceOps::zeros).
    fn output<T: Number>(&self, length: usize) -> Result<Self::Output<T>>;

    /// The output, for writing.
    fn output_mut<'a, T: Number>(
        &self,
        output: &'a mut Self::Output<T>,
    ) -> ViewMut<'a, <Self::Backend as DeviceOps>::Memory, T>;

    /// What was written, as a tensor of this shape, which has as many elements as the output.
    ///
    /// # Errors
    /// Those of [`download`](DeviceOps::download).
    fn finish<T: Number>(&self, output: Self::Output<T>, shape: Vec<usize>) -> Result<Values<Self>>;
}

/// What a backend reads: the tensor itself, or a copy on the device.
pub enum Lent<'a, P: Place, T: Number> {
    /// Memory that the backend reads as it is.
    Borrowed(View<'a, <P::Backend as DeviceOps>::Memory, T>),
    /// A buffer of the device.
    Buffer(Buffer<P::Backend, T>),
}

impl<P: Place, T: Number> Lent<'_, P, T> {
    /// A view, for the inputs of a call.
    pub fn view(&self) -> View<'_, <P::Backend as DeviceOps>::Memory, T> {
        match self {
            Self::Borrowed(view) => *view,
            Self::Buffer(buffer) => {
                View::new(<<P::Backend as DeviceOps>::Memory as longseq::Memory>::data(buffer))
            }
        }
    }
}

/// The elements of a contiguous tensor.
fn slice<T: Number>(tensor: &FlexTensor) -> Result<&[T]> {
    if TensorMetadata::shape(tensor).num_elements() == 0 {
        // burn's memory of nothing need not be aligned.
        return Ok(&[]);
    }
    tensor.as_slice::<T>().ok_or_else(|| {
        wrong("longseq-burn", "tensor", format!("contiguous elements of {}", T::NAME), format!("{tensor:?}"))
    })
}

impl Place for Cpu {
    type Backend = Self;
    type Burn = Flex;
    type Output<T: Number> = Vec<T>;

    fn backend(&self) -> &Self {
        self
    }

    fn for_call(&self) -> Result<Self> {
        self.fork()
    }

    fn lend<'a, T: Number>(&self, tensor: &'a Values<Self>) -> Result<Lent<'a, Self, T>> {
        Ok(Lent::Borrowed(Host::view(slice::<T>(tensor)?)))
    }

    fn output<T: Number>(&self, length: usize) -> Result<Vec<T>> {
        let bytes = (length as u64).saturating_mul(size_of::<T>() as u64);
        let mut output = Vec::new();
        output
            .try_reserve_exact(length)
            .map_err(|_| longseq::Error::OutOfMemory { operation: "output", bytes })?;
        output.resize(length, T::default());
        Ok(output)
    }

    fn output_mut<'a, T: Number>(&self, output: &'a mut Vec<T>) -> ViewMut<'a, Host, T> {
        Host::view_mut(output)
    }

    fn finish<T: Number>(&self, output: Vec<T>, shape: Vec<usize>) -> Result<Values<Self>> {
        Ok(flex(output, shape))
    }
}

/// Uploads, computes, downloads.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
macro_rules! device {
    ($($backend:ty),*) => {$(
        impl Place for $backend {
            type Backend = Self;
            type Burn = Flex;
            type Output<T: Number> = Buffer<Self, T>;

            fn backend(&self) -> &Self {
                self
            }

            fn for_call(&self) -> Result<Self> {
                self.fork()
            }

            fn lend<'a, T: Number>(&self, tensor: &'a Values<Self>) -> Result<Lent<'a, Self, T>> {
                Ok(Lent::Buffer(self.upload(slice::<T>(tensor)?)?))
            }

            fn output<T: Number>(&self, length: usize) -> Result<Buffer<Self, T>> {
                self.zeros(length)
            }

            fn output_mut<'a, T: Number>(
                &self,
                output: &'a mut Buffer<Self, T>,
            ) -> ViewMut<'a, <Self as DeviceOps>::Memory, T> {
                self.view_mut(output)
            }

            fn finish<T: Number>(&self, output: Buffer<Self, T>, shape: Vec<usize>) -> Result<Values<Self>> {
                Ok(flex(self.download(self.view(&output))?, shape))
            }
        }
    )*};
}
#[cfg(feature = "cuda")]
device!(longseq::Cuda);
#[cfg(feature = "wgpu")]
device!(longseq::Wgpu);
