//! A `libcuda` that runs PTX on the CPU, with memory and race checks: test CUDA code without a GPU.
//!
//! As a shared library with the SONAME `libcuda.so`, this crate is a CUDA driver. Programs that use cudarc run on it
//! unmodified; the PTX that they load is parsed, decoded and executed, 32 lanes per instruction. As a Rust library, it is
//! the handle through which a test loads and configures that driver and reads what happened:
//!
//! ```
//! use cuda_emulator::{Device, Emulator};
//! use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
//! use cudarc::nvrtc::Ptx;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const DOUBLE: &str = "
//!     .version 7.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry double(.param .u64 values)
//!     {
//!         .reg .b32 %r<3>;
//!         .reg .b64 %rd<5>;
//!         ld.param.u64 %rd1, [values];
//!         cvta.to.global.u64 %rd2, %rd1;
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd3, %r1, 4;
//!         add.s64 %rd4, %rd2, %rd3;
//!         ld.global.u32 %r2, [%rd4];
//!         add.s32 %r2, %r2, %r2;
//!         st.global.u32 [%rd4], %r2;
//!         ret;
//!     }";
//!
//! let emulator = Emulator::install(Device::sm_80())?; // before the first CUDA call
//!
//! // From here on, an ordinary cudarc program.
//! let context = CudaContext::new(0)?;
//! let stream = context.default_stream();
//! let kernel = context.load_module(Ptx::from_src(DOUBLE))?.load_function("double")?;
//! let mut values = stream.clone_htod(&[1_u32, 2, 3, 4])?;
//! let mut launch = |threads| {
//!     let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 };
//!     unsafe { stream.launch_builder(&kernel).arg(&mut values).launch(config) }
//! };
//! launch(4)?;
//! assert_eq!(emulator.take_counts()[0].counts.global_sectors, 2);
//!
//! // Two threads too many: the launch fails, and the finding says why.
//! launch(6).unwrap_err();
//! let finding = &emulator.take_findings()[0];
//! assert_eq!((finding.thread, finding.text.trim()), ([4, 0, 0], "ld.global.u32 %r2, [%rd4];"));
//!
//! assert_eq!(stream.clone_dtoh(&values)?, [2, 4, 6, 8]);
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! - [`Emulator`]: installation, settings, counts, findings, injected faults, leaks; its types are in [`control`].
//! - [`Device`]: the emulated device and its driver version; [`functions`]: the functions of the driver.
//! - [`report`]: occupancy and modelled times, from the counts of a launch and the figures of ptxas.
//! - `driver`, private: the exported functions of the driver API.
//! - [`ptx`] loads text as a [`ptx::Module`]; [`memory::Memory`] is a device's address space; [`exec::launch`] runs a kernel.
//!
//! The test and the driver are two copies of this crate in one process, each with its own statics. They communicate
//! through one exported C function and share nothing else.

pub mod control;
pub mod device;
mod driver;
pub mod error;
pub mod exec;
pub mod functions;
mod loader;
pub mod memory;
pub mod ptx;
pub mod report;

pub use control::Emulator;
pub use device::{CudaVersion, Device};
pub use error::CudaError;
