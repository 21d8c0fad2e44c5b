//! What only the CUDA backend has.

mod another_stream;
mod calls;
mod channels;
mod decoupled;
mod decoupled_gradients;
mod device;
mod din_gradients;
mod din_limits;
mod edges;
mod evidence;
mod faults;
mod gradients;
mod instructions;
mod lookup_gradients;
#[cfg(target_os = "linux")]
mod old_driver;
mod sdim;
mod sdim_gradients;
mod sdim_items;
mod search;
mod selected;
mod selected_tables;
mod streams;
mod target_attention;
mod tin;
mod waits;
#[cfg(target_os = "linux")]
mod without_driver;
mod wrong_kernels;
