//! The backend: an enum over those of the build.

use crate::cpu::Cpu;
#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
#[cfg(feature = "wgpu")]
use crate::webgpu::Wgpu;

/// Any backend of the build: a program that chooses the device at run time has one type for it.
///
/// Each call goes to the backend inside, with the same results and the same errors; it costs a `match`, and a small vector for each
/// list of tables or layers. What one backend made, the others refuse: a buffer, batch or [`Jagged`](crate::Jagged) of another kind of
/// device is an [`Error::Parameter`](crate::Error::Parameter) that names the argument.
///
/// What only one backend has, such as [`Cuda::from_stream`], is set before it is put in here, or reached by a `match`. Buffers of
/// your own, such as those of [`WgpuBuffer::from_buffer`](crate::webgpu::WgpuBuffer::from_buffer), become an
/// [`AnyBuffer`](crate::AnyBuffer) by `From`.
///
/// Code that is generic over [`Backend`](crate::Backend) is compiled once for `AnyBackend`, with the kernels of all backends in it.
/// Where a program needs one backend only, the backend itself is the smaller program.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{AnyBackend, Cpu, Jagged, TargetAttention, TargetAttentionInputs};
///
/// /// An NVIDIA GPU, else a GPU that `wgpu` drives, else the CPU.
/// fn fastest() -> AnyBackend {
///     #[cfg(feature = "cuda")]
///     if let Ok(gpu) = longseq::Cuda::new(0) {
///         return gpu.into();
///     }
///     #[cfg(feature = "wgpu")]
///     if let Some(gpu) = longseq::Wgpu::new().ok().filter(|gpu| !gpu.is_software()) {
///         return gpu.into();
///     }
///     Cpu::new().into()
/// }
///
/// let backend = fastest();
/// println!("{}", backend.device());
/// let history = backend.upload(&[1.0_f32, 0.0, 0.0, 1.0])?; // one user, two behaviours of width 2
/// let candidates = backend.upload(&[9.0_f32, 0.0])?; // one candidate, similar to the first behaviour
/// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let inputs = TargetAttentionInputs::new(backend.view(&candidates), backend.view(&history));
/// let out = backend.target_attention(&TargetAttention::new(2), &batch, inputs)?;
/// assert!(backend.download(backend.view(&out))?[0] > 0.99);
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AnyBackend {
    /// The CPU.
    Cpu(Cpu),
    /// A `wgpu` device.
    #[cfg(feature = "wgpu")]
    Wgpu(Wgpu),
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

impl From<Cpu> for AnyBackend {
    fn from(backend: Cpu) -> Self {
        Self::Cpu(backend)
    }
}

#[cfg(feature = "wgpu")]
impl From<Wgpu> for AnyBackend {
    fn from(backend: Wgpu) -> Self {
        Self::Wgpu(backend)
    }
}

#[cfg(feature = "cuda")]
impl From<Cuda> for AnyBackend {
    fn from(backend: Cuda) -> Self {
        Self::Cuda(backend)
    }
}

/// Makes a call of the backend inside: `call!("name", self.call(op; inputs, out))`. The arguments after the semicolon (up to another one) are opened first,
/// and errors name them as they are named here; `inputs.lend()` is for what holds lists ([`Held`](crate::any::open::Held)). What the
/// call returns becomes what `AnyBackend` returns.
macro_rules! call {
    ($operation:literal, $self:ident.$method:ident $arguments:tt) => {
        match $self {
            $crate::any::AnyBackend::Cpu(backend) => {
                call!(in $crate::host::Host, $operation, backend.$method $arguments)
            }
            #[cfg(feature = "wgpu")]
            $crate::any::AnyBackend::Wgpu(backend) => {
                call!(in $crate::webgpu::WgpuMemory, $operation, backend.$method $arguments)
            }
            #[cfg(feature = "cuda")]
            $crate::any::AnyBackend::Cuda(backend) => {
                call!(in $crate::cuda::CudaMemory, $operation, backend.$method $arguments)
            }
        }
    };
    (in $memory:ty, $operation:literal, $backend:ident.$method:ident(
        $($plain:ident),*; $($argument:ident $(.$lend:ident())?),* $(; $last:ident)?
    )) => {{
        $(
            #[allow(unused_mut, reason = "only what lends a list to be written changes")]
            let mut $argument =
                $crate::any::open::Open::<$memory>::open($argument, $operation, stringify!($argument))?;
        )*
        $backend.$method($($plain,)* $($argument $(.$lend())?,)* $($last)?).map(Into::into)
    }};
}
pub(super) use call;
