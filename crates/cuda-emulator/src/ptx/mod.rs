//! PTX text to a module that [`crate::exec`] can run.
//!
//! The specification is NVIDIA's "Parallel Thread Execution ISA" document; sections are cited by title. Every
//! opcode, modifier and operand form is resolved when a module is loaded: a form that is not known is a
//! [`LoadError`] that names it and its line, so nothing is skipped silently at run time.

pub(crate) mod ast;
mod declarations;
mod lexer;
mod module;
mod operands;
mod parser;
pub(crate) mod types;

pub use module::{Kernel, LoadError, Module, Parameter, Space, Variable};
