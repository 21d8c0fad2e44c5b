//! Faults that a test injects into driver calls.

use serde::{Deserialize, Serialize};

use crate::error::CudaError;

/// The driver calls that a fault counts and makes fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallSelector {
    /// Every call except `cuGetErrorName` and `cuGetErrorString`, which only describe errors.
    Any,
    /// Calls of one function, by exported name: `cuMemAllocAsync`.
    Named(String),
    /// Calls of one kind.
    Kind(CallKind),
}

impl From<&str> for CallSelector {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

impl From<CallKind> for CallSelector {
    fn from(kind: CallKind) -> Self {
        Self::Kind(kind)
    }
}

/// Kinds of driver calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CallKind {
    /// `cuInit`, versions, devices and their attributes.
    Device,
    /// Creating, destroying, binding and querying contexts.
    Context,
    /// Allocating memory on the device or the host.
    Allocate,
    /// Freeing memory.
    Free,
    /// Copies between host and device, and within the device.
    Copy,
    /// Setting memory (`cuMemset`).
    Fill,
    /// Loading and unloading modules, looking up functions and variables.
    Module,
    /// Function attributes and occupancy.
    Function,
    /// Launches of kernels, graphs and host functions.
    Launch,
    /// Waiting for contexts, streams and events.
    Synchronize,
    /// Creating, destroying, querying and joining streams.
    Stream,
    /// Creating, destroying, recording and querying events.
    Event,
    /// Memory pools.
    Pool,
    /// Stream capture and graphs.
    Graph,
    /// Everything else.
    Other,
}

impl CallKind {
    /// The kind of an exported function.
    pub fn of(name: &str) -> Self {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if name.contains("Synchronize") {
            Self::Synchronize
        } else if starts(&["cuLaunch", "cuGraphLaunch"]) {
            Self::Launch
        } else if starts(&["cuGraph", "cuStreamBeginCapture", "cuStreamEndCapture"])
            || starts(&["cuStreamIsCapturing", "cuStreamGetCaptureInfo"])
        {
            Self::Graph
        } else if starts(&[
            "cuMemPool",
            "cuDeviceGetDefaultMemPool",
            "cuDeviceGetMemPool",
            "cuDeviceSetMemPool",
        ]) {
            Self::Pool
        } else if starts(&["cuMemAlloc", "cuMemHostAlloc"]) {
            Self::Allocate
        } else if starts(&["cuMemFree"]) {
            Self::Free
        } else if starts(&["cuMemcpy"]) {
            Self::Copy
        } else if starts(&["cuMemset"]) {
            Self::Fill
        } else if starts(&["cuCtx", "cuDevicePrimaryCtx"]) {
            Self::Context
        } else if starts(&["cuInit", "cuDriver", "cuDevice", "cuMemGetInfo"]) {
            Self::Device
        } else if starts(&["cuModule"]) {
            Self::Module
        } else if starts(&["cuFunc", "cuOccupancy"]) {
            Self::Function
        } else if starts(&["cuStream"]) {
            Self::Stream
        } else if starts(&["cuEvent"]) {
            Self::Event
        } else {
            Self::Other
        }
    }
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duration {
    /// Only that call fails.
    Once,
    /// That call and every later one that the selector matches fail, until the faults are cleared: a lost device.
    Lasting,
}

/// An injected failure.
///
/// A call that fails this way has no effect, with one exception: calls that release something (free, destroy, unload,
/// release) release it and then return the error, as real drivers do when they return the error of earlier work. A
/// program that handles the error correctly therefore leaks nothing, and a test can check that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The calls counted.
    pub calls: CallSelector,
    /// Which of them fails first, counting from 1 from the moment the fault is injected.
    pub nth: u64,
    /// What that call returns.
    pub error: CudaError,
    /// Whether later calls fail as well.
    pub lasts: Duration,
}

impl Fault {
    /// Whether the fault applies to calls of this function.
    pub(crate) fn watches(&self, name: &str) -> bool {
        match &self.calls {
            CallSelector::Any => !name.starts_with("cuGetError"),
            CallSelector::Named(wanted) => wanted == name,
            CallSelector::Kind(kind) => CallKind::of(name) == *kind,
        }
    }
}
