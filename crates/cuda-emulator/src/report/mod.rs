//! Performance estimates: occupancy, and times **modelled** from the counts of a launch. Nothing here is measured.
//!
//! The model adds up the work of a launch for each unit of a multiprocessor and for device memory, and divides it by the
//! published rates. It ignores latencies, caches and contention, so each time is a lower bound: a kernel can be slower
//! than modelled, for reasons outside the model, but hardly faster. It is useful for comparing two kernels that do the same
//! work, and for finding the unit that limits them.
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

/// The registers per thread that the driver reports for kernels for which the test has set no value. The emulator runs
/// PTX, whose virtual registers are not allocated; ptxas prints the true number.
pub const ASSUMED_REGISTERS: u32 = 32;
