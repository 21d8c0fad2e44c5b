//! "Graph Management": the graphs of captured streams.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::abi::{CUresult, Handle, Out};
use super::entry::{Call, entry, release};
use super::graph::{Graph, GraphExec};
use super::objects::OBJECTS;
use super::stream::Stream;
use crate::error::CudaError;

const AUTO_FREE_ON_LAUNCH: u64 = 1;
const UPLOAD: u64 = 2;
const DEVICE_LAUNCH: u64 = 4;
const USE_NODE_PRIORITY: u64 = 8;

fn graph(call: &Call, handle: Handle) -> Result<Arc<Graph>, CudaError> {
    OBJECTS.graphs.get(handle).map_err(|error| {
        call.misuse(error, format!("{handle:#x} is not a graph, or the graph has been destroyed"))
    })
}

fn executable(call: &Call, handle: Handle) -> Result<Arc<GraphExec>, CudaError> {
    OBJECTS.graph_execs.get(handle).map_err(|error| {
        call.misuse(error, format!("{handle:#x} is not an executable graph, or the graph has been destroyed"))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(out: Out<Handle>, handle: Handle, flags: u64) -> CUresult {
    entry("cuGraphInstantiateWithFlags", |call| {
        let graph = graph(call, handle)?;
        graph.context.check()?;
        let known = AUTO_FREE_ON_LAUNCH | UPLOAD | DEVICE_LAUNCH | USE_NODE_PRIORITY;
        let contradicts = flags & DEVICE_LAUNCH != 0 && flags & AUTO_FREE_ON_LAUNCH != 0;
        if out.is_null() || flags & !known != 0 || contradicts {
            return Err(call.misuse(CudaError::InvalidValue, format!("invalid graph flags {flags:#x}")));
        }
        if flags & DEVICE_LAUNCH != 0 {
            return Err(
                call.misuse(CudaError::NotSupported, "launching graphs on the device is not emulated")
            );
        }
        // The order of the nodes is fixed, so the other flags have no effect.
        let frees = flags & AUTO_FREE_ON_LAUNCH != 0;
        let (context, nodes) = (Arc::clone(&graph.context), graph.nodes.clone());
        if graph.instantiated.swap(true, Ordering::AcqRel) && !nodes.memory.is_empty() {
            let what = "a graph that allocates memory can have only one instance at a time";
            return Err(call.misuse(CudaError::InvalidValue, what));
        }
        let instance = Arc::clone(&graph.instantiated);
        let make = |handle| Arc::new(GraphExec { handle, context, nodes, frees, instance });
        out.set(OBJECTS.graph_execs.add(make).handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(handle: Handle, stream: Handle) -> CUresult {
    entry("cuGraphLaunch", |call| {
        let graph = executable(call, handle)?;
        graph.launch(call, &*Stream::by_handle(call, stream)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(handle: Handle, stream: Handle) -> CUresult {
    entry("cuGraphUpload", |call| {
        executable(call, handle)?;
        Stream::by_handle(call, stream)?.context.check()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphClone(out: Out<Handle>, handle: Handle) -> CUresult {
    entry("cuGraphClone", |call| {
        let graph = graph(call, handle)?;
        if out.is_null() {
            return Err(CudaError::InvalidValue);
        }
        if !graph.nodes.memory.is_empty() {
            return Err(
                call.misuse(CudaError::InvalidValue, "a graph that allocates memory cannot be cloned")
            );
        }
        let (context, nodes) = (Arc::clone(&graph.context), graph.nodes.clone());
        let make = |handle| Arc::new(Graph { handle, context, nodes, instantiated: Arc::default() });
        out.set(OBJECTS.graphs.add(make).handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(handle: Handle) -> CUresult {
    release("cuGraphDestroy", |call| {
        graph(call, handle)?;
        OBJECTS.graphs.remove(handle).map(drop)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(handle: Handle) -> CUresult {
    release("cuGraphExecDestroy", |call| {
        executable(call, handle)?;
        OBJECTS.graph_execs.remove(handle).map(drop)
    })
}
