//! The exported C functions of the CUDA driver API, and the state behind them.
//!
//! Each function follows its description in the "CUDA Driver API" reference, which its module's documentation
//! names. All of them go through [`entry`], which records the call, injects faults and keeps panics away from C.
//!
//! Work runs inside the call that asks for it: when a launch or a copy returns, it is done. Streams therefore
//! keep their order, and work of two streams happens in the order in which the program asked for it.

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
mod graph_calls;
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
mod session;
mod stream;
mod stream_calls;
mod unsupported_calls;
