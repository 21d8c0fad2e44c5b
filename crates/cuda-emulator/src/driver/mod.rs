//! The exported C functions of the CUDA driver API, and their state.
//!
//! Each function follows its description in the "CUDA Driver API" reference; the documentation of each module names the
//! chapter. All functions go through [`entry`], which records the call, injects faults and catches panics.
//!
//! Unless the test asks for another order, work runs inside the call that submits it: when a launch or a copy returns, it
//! is complete, and work of several streams is executed in the order of submission. Otherwise it waits in the `queue`.

#![allow(non_snake_case, reason = "the exported names are those of the C interface")]

mod abi;
mod capture;
mod context;
mod context_calls;
mod control_entry;
mod copy_calls;
mod device_calls;
mod entry;
mod error_calls;
mod event;
mod function_calls;
mod graph;
mod graph_calls;
mod host;
mod host_memory;
mod launch;
mod launch_calls;
mod memory_calls;
mod module;
mod module_calls;
mod objects;
mod occupancy_calls;
mod pool;
mod primary_calls;
mod queue;
mod session;
mod stream;
mod stream_calls;
mod unsupported_calls;
