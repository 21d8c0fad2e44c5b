//! What only the `wgpu` backend has.

mod calls;
mod copies;
mod device;
mod din_gradients;
mod edges;
mod faults;
mod handles;
mod lookup_in_one_buffer;
mod one_buffer;
mod sdim_gradients;
mod sdim_in_one_buffer;
mod sdim_items;
mod selected_tables;
mod submissions;
mod suspects;
mod wide_rows;
mod wrong_decoupled_gradients;
mod wrong_interest_channels;
mod wrong_lookup_gradients;
mod wrong_sdim;
mod wrong_search;
mod wrong_selected;
mod wrong_shaders;
mod wrong_silu;
mod wrong_tin;
