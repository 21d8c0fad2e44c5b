//! Checks, benchmarks and explains the operations of `longseq`, on its backends and on anybody else's.
//!
//! A *case* is a small struct that prints as Rust, such as [`target_attention::AttentionCase`]. [`check`] generates its
//! data from a seed, computes the reference in `f64`, runs the backend twice into poisoned outputs between guard bands,
//! and compares:
//!
//! ```
//! use longseq_check::target_attention::AttentionCase;
//! use longseq_check::{Rules, check};
//!
//! let case = AttentionCase { histories: vec![40, 0, 9], targets: vec![3, 1, 20], ..Default::default() };
//! check(&case, &longseq::Cpu::new(), Rules::IEEE).unwrap();
//! ```
//!
//! # Check your own backend
//!
//! [`registry::tests`] lists every test of a stem as a function of a backend; each panics where it fails. A backend of your
//! own passes when all of them do:
//!
//! ```no_run
//! # let backend = longseq::Cpu::new();
//! for test in longseq_check::registry::tests::<longseq::Cpu>("target_attention") {
//!     (test.run)(&backend, longseq_check::Rules::IEEE);
//! }
//! ```
//!
//! The backends of `longseq` have these functions compiled in this crate: see [`device`]. Test binaries that call them
//! contain no generic code, so they build and link quickly.
//!
//! # Map
//!
//! - [`target_attention`], [`din`], [`sdim`], [`lookup`], [`decoupled`], [`search`], [`selected`], [`tin`], [`interest_channels`]: the cases of each stem, how their
//!   results are compared, and their tests; [`sub_ranges`]: all of them with histories anywhere in their buffers; [`memory`]: copies into memory that is in use; [`waits`]: waits that do not block; [`forks`]: tests of handles that share a device.
//! - [`case`]: [`check`] and its trait; [`compare`]: when two results count as equal; [`guard`]: guarded outputs;
//!   [`data`]: inputs from a seed; [`golden`]: results of published implementations.
//! - [`named`]: cases by name; [`cases`]: the tables of them.
//! - [`mutant`]: backends that are wrong on purpose.
//! - [`device`]: the devices that tests and benchmarks run on; [`registry`]: every test by stem and name.
//! - [`bench`](mod@bench): times the named cases.
//! - [`faults`](mod@faults): calls that fail for want of memory.
//! - [`soak`]: mixed requests from many threads for a long time.
//! - [`preload`]: all kernels of a device, compiled one after the other.
//! - [`support`], [`explain`]: what the program `longseq-check` prints.

pub mod bench;
pub mod case;
pub mod cases;
pub mod compare;
pub mod data;
pub mod decoupled;
pub mod device;
pub mod din;
pub mod explain;
pub mod faults;
pub mod forks;
pub mod fuzz;
pub mod golden;
pub mod guard;
#[cfg(feature = "cuda")]
pub mod hashing;
pub mod hostile;
pub mod interest_channels;
pub mod long_sums;
pub mod lookup;
mod matrix;
pub mod memory;
pub mod mutant;
pub mod named;
pub mod preload;
pub mod registry;
pub mod sample;
pub mod sdim;
pub mod search;
pub mod selected;
mod selection;
pub mod soak;
pub mod sub_ranges;
pub mod support;
pub mod target_attention;
pub mod tin;
pub mod waits;

pub use case::{Call, Calls, Case, Failure, Rules, check};
pub use named::{AnyCase, Named};

use std::path::Path;

/// The root of the repository that this crate was built in.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Runs an expression with `$T` standing for the type that `$dtype` names.
#[macro_export]
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            longseq::DType::F16 => {
                type $T = longseq::half::f16;
                $body
            }
            longseq::DType::Bf16 => {
                type $T = longseq::half::bf16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}

/// Runs an expression with `$T` standing for the type of a table's stored numbers.
#[macro_export]
macro_rules! by_storage {
    ($storage:expr, $T:ident => $body:expr) => {
        match $storage {
            $crate::lookup::Storage::F32 => {
                type $T = f32;
                $body
            }
            $crate::lookup::Storage::F16 => {
                type $T = longseq::half::f16;
                $body
            }
            $crate::lookup::Storage::Bf16 => {
                type $T = longseq::half::bf16;
                $body
            }
            $crate::lookup::Storage::Int8 => {
                type $T = i8;
                $body
            }
        }
    };
}
