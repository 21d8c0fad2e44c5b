//! What only the `wgpu` backend has.

mod device;
mod faults;
mod wrong_shaders;
