//! The operations: parameters, inputs, shape rules, costs and the traits with their calls. This folder specifies what is
//! computed; the backends decide how.
//!
//! Letters of sizes, everywhere: `B` users; `N` behaviours of all users; `M` candidates of all users; `L`, `C` one
//! user's behaviours and candidates; `d`, `d_v` width of a key, of a value; `H`, `H_kv` heads of queries, of keys and
//! values; `G`, `τ` SDIM groups and bits per group; `F` features; `K` behaviours that a search keeps.

mod decoupled;
mod din;
mod interest_channels;
mod lookup;
mod sdim;
mod search;
mod selected;
mod selection;
mod shape;
mod target_attention;
mod tin;

pub use decoupled::*;
pub use din::*;
pub use interest_channels::*;
pub use lookup::*;
pub(crate) use lookup::{check_host_gradient, check_host_ids, total_width};
pub use sdim::*;
pub use search::*;
pub use selected::*;
pub use selection::*;
pub(crate) use shape::{dim, elements, expect};
pub use target_attention::*;
pub use tin::*;
