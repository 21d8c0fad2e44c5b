//! The protocol between a test and the loaded driver.
//!
//! The test binary links this crate as an rlib, and the driver is the same crate as a shared library, so every static
//! exists twice. The two halves share no state; they exchange requests and replies as JSON through one C function,
//! [`CONTROL`].

use std::ffi::c_void;

use serde::{Deserialize, Serialize};

use super::faults::Fault;
use super::records::{LaunchCounts, LiveObjects, Misuse};
use super::settings::Setting;
use crate::device::Device;
use crate::exec::Finding;

/// Name of the exported function that takes requests.
pub(crate) const CONTROL: &str = "cuda_emulator_control";

/// Name of the exported function that returns the build of the library.
pub(crate) const BUILD: &str = "cuda_emulator_build";

/// Identifies the build: both halves of one compilation have the same.
pub(crate) const BUILD_ID: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("OUT_DIR"), "\0");

/// Callback that receives the bytes of a reply.
pub(crate) type Sink = unsafe extern "C" fn(data: *mut c_void, bytes: *const u8, length: usize);

/// The C type of [`CONTROL`].
pub(crate) type Control =
    unsafe extern "C" fn(request: *const u8, length: usize, sink: Sink, data: *mut c_void);

/// A request to the driver. Session 0 is that of the threads that belong to no other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Begin(Box<Device>),
    End(u64),
    Enter(u64),
    Set(u64, Setting),
    Inject(u64, Fault),
    ClearFaults(u64),
    Launches { session: u64, take: bool },
    Findings { session: u64, take: bool },
    Misuses { session: u64, take: bool },
    Leaks { session: u64, take: bool },
    Calls { session: u64, take: bool },
    Live(u64),
}

/// The driver's reply.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Session(u64),
    Launches(Vec<LaunchCounts>),
    Findings(Vec<Finding>),
    Misuses(Vec<Misuse>),
    Leaks(Vec<LiveObjects>),
    Calls(Vec<String>),
    Live(LiveObjects),
    Refused(String),
}
