//! Kernels for long user-behaviour sequences.
#![forbid(unsafe_code)]

mod backend;
mod cpu;
pub mod element;
mod error;
mod jagged;
mod memory;
mod ops;
#[cfg(feature = "wgpu")]
mod plan;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod webgpu;

pub use backend::{Backend, Buffer};
pub use cpu::Cpu;
pub use element::{DType, Element, Scalar, Signature};
pub use error::{Error, Result};
pub use half;
pub use jagged::{Batch, Jagged};
pub use memory::{Host, Memory, View, ViewMut};
pub use ops::*;
#[cfg(feature = "wgpu")]
pub use webgpu::Wgpu;
#[cfg(feature = "wgpu")]
pub use wgpu;
