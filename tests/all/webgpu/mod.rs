//! What only the `wgpu` backend has.

mod device;
mod edges;
mod faults;
mod handles;
mod sdim_gradients;
mod submissions;
mod wrong_lookup_gradients;
mod wrong_shaders;
