//! Look-ups in embedding tables: the rows, their gradients, and the optimisers that apply them.

mod backward;
mod calls;
mod inputs;
mod parameters;
mod sorted_ids;
mod sparse_gradient;
mod update_rows;

pub use backward::{LookupGradOut, LookupGradients, LookupSaved};
pub use calls::LookupOps;
pub(in crate::ops) use inputs::check_tables;
pub(crate) use inputs::total_width;
pub use inputs::{Bags, IdPolicy, LookupInputs, LookupOutputs, Table, TableData};
pub use parameters::Lookup;
pub(crate) use parameters::check_host_ids;
pub use sorted_ids::{IdColumn, SortedIds, SortedIdsBuffers, SortedIdsMut};
pub(in crate::ops) use sparse_gradient::check_float_table_gradients;
pub use sparse_gradient::{SparseGradient, SparseGradientBuffers, SparseGradientMut, TableGradient};
pub(crate) use update_rows::check_host_gradient;
pub use update_rows::{Optimiser, OptimiserMethod, OptimiserState, TableMut};
