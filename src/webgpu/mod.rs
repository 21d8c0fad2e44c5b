//! The `Wgpu` backend: hand-written WGSL on any device that wgpu drives.
//!
//! Kernels stay within WebGPU's default limits and need no optional feature; attention uses subgroups if the device has
//! them. Histories are cut into pieces of equal work on the host, all candidates of a user share each load, and no tensor of
//! behaviours × candidates is ever stored.
//!
//! Each operation has a file or folder here and a folder in `shaders/`. A `Kernel` (`shader.rs`) is named after its file
//! in `shaders/`; its parameters are a struct with the same name and fields on both sides.

mod allocate;
mod arrival;
mod backend;
mod batch;
mod binding;
mod call;
mod check;
mod copy;
mod decoupled;
mod device;
mod din;
mod faults;
mod interest_channels;
mod launch;
mod lookup;
mod memory;
mod output;
mod pace;
mod params;
mod pipeline;
mod placement;
mod recording;
mod scope;
mod sdim;
mod search;
mod selected;
mod selection;
mod shader;
mod state;
mod sum_parts;
mod suspects;
mod tables;
mod tally;
mod target_attention;
mod tin;
mod transfer;
mod waiter;
mod warm_up;

pub use batch::{WgpuBatch, WgpuJagged};
pub use device::WgpuOptions;
pub use memory::{WgpuBuffer, WgpuMemory};
pub use state::Wgpu;

/// The WGSL text of every variant of every kernel, by key, for checks with other compilers. Variants whose key contains
/// `QUADS=1` need the feature `subgroups`: other compilers require the directive `enable subgroups;`, which naga does not
/// accept.
pub fn shaders() -> Vec<(String, String)> {
    all_kernels().iter().map(|kernel| (kernel.key(), kernel.text())).collect()
}

/// Every variant of every kernel.
fn all_kernels() -> Vec<shader::Kernel> {
    let stems = [
        target_attention::variants,
        din::variants,
        sdim::variants,
        lookup::variants,
        decoupled::variants,
        search::variants,
        selected::variants,
        selection::variants,
        tin::variants,
        interest_channels::variants,
        check::variants,
        output::variants,
        copy::variants,
        sum_parts::variants,
    ];
    stems.into_iter().flat_map(|variants| variants()).collect()
}
