//! What host and kernels must agree on, compared with the CUDA sources and the PTX that ships.
//!
//! [`source`] reads structs from `kernels/`, [`twins`] compares them with the Rust structs, [`tables`] compares the tables
//! of kernels with the PTX and with what ptxas reports, and [`shared`] compares shared-memory sizes with the kernels' own.

mod shared;
mod source;
mod tables;
mod twins;
