//! Loads PTX text as a module that [`crate::exec`] can run.
//!
//! The specification is NVIDIA's "Parallel Thread Execution ISA" (PTX ISA); its sections are cited by title. All opcodes,
//! modifiers and operand forms are resolved when a module is loaded. An unknown form is a [`LoadError`] that names it and
//! its line, so nothing is skipped silently at run time.
//!
//! ```
//! use cuda_emulator::ptx::Module;
//!
//! let text = ".version 7.0 .target sm_80 .address_size 64 .visible .entry empty(.param .u64 p) { ret; }";
//! let module = Module::load(text).unwrap();
//! assert_eq!(module.kernels()[0].parameter_bytes(), 8);
//!
//! let error = Module::load(&text.replace("ret", "frobnicate.u32")).unwrap_err();
//! assert_eq!((error.line, error.message.contains("frobnicate")), (1, true));
//! ```

pub(crate) mod ast;
mod declarations;
mod error;
mod lexer;
mod module;
mod operands;
mod parser;
pub(crate) mod types;

pub use error::LoadError;
pub use module::{Kernel, Module, Variable};
pub use types::{Parameter, Space};
