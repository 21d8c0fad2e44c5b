//! burn's own wgpu device: tensors stay where burn keeps them.
//!
//! longseq runs on burn's device and queue, and binds the buffers that burn's tensors are parts of. What burn has enqueued for a tensor is
//! submitted before its buffer is handed out (`Client::get_resource` sees to it), what longseq records is submitted before a result becomes a
//! tensor: the queue keeps the order, nobody waits. Until then a call holds the memory that it was given, so that burn does not move it.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use burn_core::backend::wgpu::WgpuSetup;
use burn_core::backend::{BackendTensor, DispatchDevice, DispatchTensorKind, TensorMetadata};
use burn_core::tensor::{DType, Device};
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::server::Handle;
use burn_cubecl::cubecl::wgpu::{AutoCompiler, WgpuServer};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use longseq::prelude::*;
use longseq::webgpu::{WgpuBuffer, WgpuMemory};
use longseq::{Error, Result, ViewMut, Wgpu};

use crate::error::wrong;
use crate::handle::Longseq;
use crate::place::{Lent, Number, Place};
use crate::tensors::{Opened, Refused, Tensors, Tracked};

/// burn's wgpu device, on which longseq reads burn's tensors as they are and writes results into memory that burn allocates: nothing is
/// copied.
///
/// Calls only enqueue. An id out of range is reported by `longseq.backend().synchronize()`.
pub struct BurnWgpu {
    backend: Arc<Wgpu>,
    client: Client,
    device: CubeDevice,
    /// What a call was given by burn: memory that is held is neither moved nor handed out again.
    held: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Longseq<BurnWgpu> {
    /// On burn's wgpu device, with the handles that `Device::wgpu_options().init_with_setup()` gave with it, or that it was registered with.
    ///
    /// # Errors
    /// Another kind of device; the device's own errors, if it is already lost.
    pub fn on_burn(device: &Device, setup: &WgpuSetup) -> Result<Self> {
        let inner = device.clone().without_autodiff();
        let DispatchDevice::Cube(cube) = inner.as_dispatch() else {
            let got = format!("{device:?}");
            return Err(wrong("Longseq::on_burn", "device", "a device of burn's wgpu backend", got));
        };
        let backend = Arc::new(Wgpu::from_device(setup.device.clone(), setup.queue.clone())?);
        let (client, device) = (cube.client(), cube.clone());
        Ok(Self::on(BurnWgpu { backend, client, device, held: Mutex::default() }))
    }
}

impl BurnWgpu {
    /// The buffer that a handle is a part of.
    fn buffer<T: Number>(&self, handle: Handle, length: usize) -> Result<WgpuBuffer<T>> {
        let managed = self
            .client
            .get_resource::<WgpuServer<AutoCompiler>>(handle)
            .map_err(|error| Error::Device { operation: "longseq-burn", message: format!("{error:?}") })?;
        let resource = managed.resource();
        let buffer = WgpuBuffer::from_buffer(resource.buffer.clone(), resource.offset, length)?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(managed));
        Ok(buffer)
    }
}

/// Memory of burn's, and longseq's view of it.
pub struct BurnOutput<T: Number> {
    handle: Handle,
    buffer: WgpuBuffer<T>,
}

impl Place for BurnWgpu {
    type Backend = Wgpu;
    type Burn = CubeBackend;
    type Output<T: Number> = BurnOutput<T>;

    fn backend(&self) -> &Wgpu {
        &self.backend
    }

    /// The same handle of longseq, since nobody waits for this call alone.
    fn for_call(&self) -> Result<Self> {
        let (backend, client) = (self.backend.clone(), self.client.clone());
        Ok(Self { backend, client, device: self.device.clone(), held: Mutex::default() })
    }

    fn lend<'a, T: Number>(&self, tensor: &'a CubeTensor) -> Result<Lent<'a, Self, T>> {
        if tensor.device != self.device {
            let (expected, got) =
                (format!("one on {:?}", self.device), format!("one on {:?}", tensor.device));
            return Err(wrong("longseq-burn", "tensor", expected, got));
        }
        if tensor.dtype != <T as burn_core::tensor::Element>::dtype() {
            return Err(wrong("longseq-burn", "tensor", T::NAME, tensor.dtype.name()));
        }
        let length = TensorMetadata::shape(tensor).num_elements();
        Ok(Lent::Buffer(self.buffer(tensor.handle.clone(), length)?))
    }

    fn output<T: Number>(&self, length: usize) -> Result<BurnOutput<T>> {
        // Bindings are whole words.
        let handle = self.client.empty((length * size_of::<T>()).next_multiple_of(4).max(4));
        Ok(BurnOutput { buffer: self.buffer(handle.clone(), length)?, handle })
    }

    fn output_mut<'a, T: Number>(&self, output: &'a mut BurnOutput<T>) -> ViewMut<'a, WgpuMemory, T> {
        self.backend.view_mut(&mut output.buffer)
    }

    fn finish<T: Number>(&self, output: BurnOutput<T>, shape: Vec<usize>) -> Result<CubeTensor> {
        self.backend.flush();
        let (client, device) = (self.client.clone(), self.device.clone());
        let dtype = <T as burn_core::tensor::Element>::dtype();
        Ok(CubeTensor::new_contiguous(client, device, shape.into(), output.handle, dtype))
    }
}

impl Tensors for CubeBackend {
    const WHERE: &'static str = "a tensor of burn's wgpu backend (move it with .to_device)";

    fn open(kind: DispatchTensorKind) -> Option<Opened<Self>> {
        match kind {
            DispatchTensorKind::Cube(BackendTensor::Float(tensor) | BackendTensor::Int(tensor)) => {
                Some(Opened::Plain(tensor))
            }
            DispatchTensorKind::Autodiff(inner) => match *inner {
                DispatchTensorKind::Cube(BackendTensor::Autodiff(tensor)) => Some(Opened::Tracked(tensor)),
                _ => None,
            },
            _ => None,
        }
    }

    fn close(tensor: CubeTensor) -> DispatchTensorKind {
        DispatchTensorKind::Cube(match tensor.dtype.is_float() {
            true => BackendTensor::Float(tensor),
            false => BackendTensor::Int(tensor),
        })
    }

    fn close_tracked(tensor: Tracked<Self>) -> DispatchTensorKind {
        DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Cube(BackendTensor::Autodiff(tensor))))
    }

    fn contiguous(tensor: CubeTensor) -> CubeTensor {
        into_contiguous(tensor)
    }

    /// The bits of `i32` are read as they are: a negative number is one above 2³¹, in no table.
    fn ids(tensor: CubeTensor) -> std::result::Result<CubeTensor, Refused> {
        match tensor.dtype {
            DType::U32 => Ok(into_contiguous(tensor)),
            DType::I32 => {
                let mut tensor = into_contiguous(tensor);
                tensor.dtype = DType::U32;
                Ok(tensor)
            }
            other => {
                let expected = "u32 or i32, which are read as they are (convert with .cast(IntDType::I32))";
                Err((expected.into(), other.name().into()))
            }
        }
    }

    fn words(tensor: CubeTensor) -> std::result::Result<CubeTensor, Refused> {
        match tensor.dtype {
            DType::U16 => Ok(into_contiguous(tensor)),
            other => Err(("u16, as sdim_signatures gives them".into(), other.name().into())),
        }
    }
}
