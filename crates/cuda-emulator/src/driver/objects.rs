//! The objects that handles stand for.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::abi::Handle;
use super::capture::{Graph, GraphExec};
use super::context::Context;
use super::event::Event;
use super::module::{Function, Module};
use super::pool::Pool;
use super::stream::Stream;
use crate::error::CudaError;

/// Locks, whatever a panicking thread may have left: the states kept here are whole between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The live objects of one type. Handles are never used twice, so a stale one stays invalid.
#[derive(Debug)]
pub(super) struct Registry<T> {
    /// In the upper half of each handle, so that one type's handle is invalid for another.
    tag: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    made: usize,
    live: BTreeMap<Handle, Arc<T>>,
}

impl<T> Registry<T> {
    const fn new(tag: usize) -> Self {
        Self { tag, state: Mutex::new(State { made: 0, live: BTreeMap::new() }) }
    }

    /// Adds the object that `make` returns for its future handle.
    pub(super) fn add(&self, make: impl FnOnce(Handle) -> Arc<T>) -> Arc<T> {
        let mut state = lock(&self.state);
        state.made += 1;
        // Real handles are pointers: keep them even and far from the small special values.
        let handle = (self.tag << 40) + (state.made << 4);
        let object = make(handle);
        state.live.insert(handle, Arc::clone(&object));
        object
    }

    pub(super) fn get(&self, handle: Handle) -> Result<Arc<T>, CudaError> {
        lock(&self.state).live.get(&handle).cloned().ok_or(CudaError::InvalidHandle)
    }

    pub(super) fn remove(&self, handle: Handle) -> Result<Arc<T>, CudaError> {
        lock(&self.state).live.remove(&handle).ok_or(CudaError::InvalidHandle)
    }

    /// Objects for which `wanted` holds.
    pub(super) fn select(&self, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        lock(&self.state).live.values().filter(|object| wanted(object)).cloned().collect()
    }

    /// Removes the objects for which `wanted` holds and returns them.
    pub(super) fn drain(&self, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut state = lock(&self.state);
        let handles: Vec<Handle> =
            state.live.iter().filter(|(_, object)| wanted(object)).map(|(handle, _)| *handle).collect();
        handles.iter().filter_map(|handle| state.live.remove(handle)).collect()
    }
}

/// All objects of the process.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) contexts: Registry<Context>,
    pub(super) streams: Registry<Stream>,
    pub(super) events: Registry<Event>,
    pub(super) modules: Registry<Module>,
    pub(super) functions: Registry<Function>,
    pub(super) pools: Registry<Pool>,
    pub(super) graphs: Registry<Graph>,
    pub(super) graph_execs: Registry<GraphExec>,
}

pub(super) static OBJECTS: LazyLock<Objects> = LazyLock::new(|| Objects {
    contexts: Registry::new(1),
    streams: Registry::new(2),
    events: Registry::new(3),
    modules: Registry::new(4),
    functions: Registry::new(5),
    pools: Registry::new(6),
    graphs: Registry::new(7),
    graph_execs: Registry::new(8),
});
