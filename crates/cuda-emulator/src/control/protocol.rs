//! What a test's process and the loaded driver say to each other.
//!
//! The test binary links this crate as an rlib, the driver is the same crate as a shared library: every static
//! exists twice. So the two halves share no state; they exchange requests and replies as JSON through one C
//! function, [`CONTROL`].

use std::ffi::c_void;

use serde::{Deserialize, Serialize};

use super::faults::Fault;
use super::records::{LaunchCounts, LiveObjects, Misuse};
use super::settings::Setting;
use crate::device::Device;
use crate::exec::Finding;

/// The exported function that takes requests.
pub(crate) const CONTROL: &str = "cuda_emulator_control";

/// The exported function that tells which build a library is.
pub(crate) const BUILD: &str = "cuda_emulator_build";

/// Tells two builds apart: both halves of one compilation have the same.
pub(crate) const BUILD_ID: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("OUT_DIR"), "\0");

/// Receives the bytes of a reply.
pub(crate) type Sink = unsafe extern "C" fn(data: *mut c_void, bytes: *const u8, length: usize);

/// The C type of [`CONTROL`].
pub(crate) type Control =
    unsafe extern "C" fn(request: *const u8, length: usize, sink: Sink, data: *mut c_void);

/// A request to the driver. Session 0 is that of threads that belong to no other.
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

/// The driver's answer.
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
