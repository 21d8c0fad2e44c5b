//! Static evidence for speed: occupancy, and times **modelled** from a launch's counts. Nothing here is measured.
//!
//! The model adds up what a launch asks of each unit of a multiprocessor and of device memory, and divides by
//! the published rates. It knows no latencies, no caches and no contention, so each time is a floor: a kernel can
//! be slower than the model says, for reasons the model cannot see, but hardly faster. Its use is to compare two
//! kernels that do the same work, and to see which unit binds them.
//!
//! ```
//! use cuda_emulator::exec::Counts;
//! use cuda_emulator::report::{Report, Resources, Target};
//!
//! let ptxas = "ptxas info    : Compiling entry function 'saxpy' for 'sm_80'
//! ptxas info    : Used 12 registers, 388 bytes cmem[0]";
//! let resources = Resources::from_ptxas(ptxas, "saxpy").unwrap();
//! let counts = Counts { global_sectors: 3_000_000, global_sectors_minimum: 3_000_000, ..Counts::default() };
//! let report = Report::new(&Target::a100(), resources, 4096, 256, &counts);
//! assert_eq!(report.occupancy.warps, 64);
//! assert!(report.memory_seconds > 47e-6);
//! println!("{report}");
//! ```

mod model;
mod occupancy;
mod resources;
mod target;

pub use model::{Report, Unit};
pub use occupancy::{Limits, Occupancy, Restriction};
pub use resources::Resources;
pub use target::Target;

/// Registers a thread that the driver reports for kernels of which a test said nothing. The emulator runs PTX,
/// whose virtual registers are not allocated; ptxas knows the true figure.
pub const ASSUMED_REGISTERS: u32 = 32;
