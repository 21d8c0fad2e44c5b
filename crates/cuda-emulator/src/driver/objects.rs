//! The registries of objects, by handle.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::abi::Handle;
use super::context::Context;
use super::event::Event;
use super::graph::{Graph, GraphExec};
use super::module::{Function, Module};
use super::pool::Pool;
use super::stream::Stream;
use crate::error::CudaError;

/// Locks a mutex and ignores poisoning: the protected states are consistent between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The live objects of one type. Handles are not reused, so a stale one stays invalid.
#[derive(Debug)]
pub(super) struct Registry<T> {
    /// The upper bits of each handle, so that a handle of one type is invalid for another.
    tag: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    made: usize,
    /// In the order of creation, which is that of the handles.
    live: Vec<(Handle, Arc<T>)>,
}

impl<T> Registry<T> {
    const fn new(tag: usize) -> Self {
        Self { tag, state: Mutex::new(State { made: 0, live: Vec::new() }) }
    }

    /// Adds the object that `make` creates with its handle.
    pub(super) fn add(&self, make: impl FnOnce(Handle) -> Arc<T>) -> Arc<T> {
        let mut state = lock(&self.state);
        state.made += 1;
        // Like real handles, which are pointers, handles are even and far from the small special values.
        let handle = (self.tag << 40) + (state.made << 4);
        let object = make(handle);
        state.live.push((handle, Arc::clone(&object)));
        object
    }

    pub(super) fn get(&self, handle: Handle) -> Result<Arc<T>, CudaError> {
        let state = lock(&self.state);
        Ok(Arc::clone(&state.live[state.position(handle)?].1))
    }

    pub(super) fn remove(&self, handle: Handle) -> Result<Arc<T>, CudaError> {
        let mut state = lock(&self.state);
        let position = state.position(handle)?;
        Ok(state.live.remove(position).1)
    }

    /// The objects for which `wanted` is true.
    pub(super) fn select(&self, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        lock(&self.state)
            .live
            .iter()
            .filter(|(_, object)| wanted(object))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Removes and returns the objects for which `wanted` is true.
    pub(super) fn drain(&self, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        lock(&self.state)
            .live
            .extract_if(.., |(_, object)| wanted(object))
            .map(|(_, object)| object)
            .collect()
    }
}

impl<T> State<T> {
    fn position(&self, handle: Handle) -> Result<usize, CudaError> {
        self.live.binary_search_by_key(&handle, |(handle, _)| *handle).map_err(|_| CudaError::InvalidHandle)
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
