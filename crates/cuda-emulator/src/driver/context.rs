//! Contexts and which of them is current.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::Handle;
use super::objects::{OBJECTS, lock};
use super::session::Session;
use super::{host_memory, session};
use crate::control::AllocationKind;
use crate::error::CudaError;

/// A context.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) session: Arc<Session>,
    pub(super) flags: AtomicU32,
    pub(super) cache_config: AtomicU32,
    /// Limits that the program set, by `CUlimit`.
    pub(super) limits: Mutex<BTreeMap<u32, usize>>,
    destroyed: AtomicBool,
    /// The error that spoilt the context for good.
    spoilt: Mutex<Option<CudaError>>,
    /// The error of finished work that no call has returned yet.
    pending: Mutex<Option<CudaError>>,
}

thread_local! {
    /// The calling thread's contexts, the current one last (`cuCtxPushCurrent`).
    static STACK: RefCell<Vec<Arc<Context>>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread's current context. None while the thread ends and its stack is gone.
pub(super) fn current() -> Option<Arc<Context>> {
    STACK.try_with(|stack| stack.borrow().last().cloned()).ok().flatten()
}

/// Replaces the current context; `None` removes it.
pub(super) fn set_current(context: Option<Arc<Context>>) {
    pop();
    if let Some(context) = context {
        push(context);
    }
}

/// Makes a context current on top of the one that is.
pub(super) fn push(context: Arc<Context>) {
    // A thread that is ending has no use for a current context.
    let _ = STACK.try_with(|stack| stack.borrow_mut().push(context));
}

/// Removes the current context and returns it.
pub(super) fn pop() -> Option<Arc<Context>> {
    STACK.try_with(|stack| stack.borrow_mut().pop()).ok().flatten()
}

/// Leaves the calling thread without contexts, as a fresh thread is.
pub(super) fn clear() {
    // Taken out first: dropping the last reference to a context must not find the stack borrowed.
    let contexts = STACK.try_with(|stack| std::mem::take(&mut *stack.borrow_mut()));
    drop(contexts);
}

/// The session that a call of this thread belongs to.
pub(super) fn session() -> Arc<Session> {
    current()
        .filter(|context| !context.is_destroyed())
        .map_or_else(session::Session::of_thread, |context| Arc::clone(&context.session))
}

impl Context {
    /// A new context, not current anywhere.
    pub(super) fn create(session: &Arc<Session>, flags: u32) -> Arc<Self> {
        OBJECTS.contexts.add(|handle| {
            Arc::new(Self {
                handle,
                session: Arc::clone(session),
                flags: AtomicU32::new(flags),
                cache_config: AtomicU32::new(0),
                limits: Mutex::default(),
                destroyed: AtomicBool::new(false),
                spoilt: Mutex::default(),
                pending: Mutex::default(),
            })
        })
    }

    pub(super) fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Acquire)
    }

    /// Fails if a launch spoilt the context.
    pub(super) fn check(&self) -> Result<(), CudaError> {
        lock(&self.spoilt).map_or(Ok(()), Err)
    }

    /// Fails if work that has finished left an error, which is then forgotten, unless errors are to stick.
    pub(super) fn settle(&self) -> Result<(), CudaError> {
        let Some(error) = lock(&self.pending).take() else { return Ok(()) };
        if lock(&self.session.settings).sticky {
            self.spoil(error);
        }
        Err(error)
    }

    /// Takes note of an error for a later synchronisation to return.
    pub(super) fn defer(&self, error: CudaError) {
        lock(&self.pending).get_or_insert(error);
    }

    /// Spoils the context.
    pub(super) fn spoil(&self, error: CudaError) {
        lock(&self.spoilt).get_or_insert(error);
    }

    /// Ends the context: whatever it still holds is freed and reported as a leak.
    pub(super) fn end(self: &Arc<Self>) {
        if self.destroyed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut held = self.session.live(Some(self.handle));
        held.contexts = 0;
        let ours = |context: &Arc<Self>| Arc::ptr_eq(context, self);
        // The objects are dropped before the memory that they use goes.
        OBJECTS.graph_execs.drain(|graph| ours(&graph.context));
        OBJECTS.graphs.drain(|graph| ours(&graph.context));
        OBJECTS.functions.drain(|function| ours(&function.module.context));
        for module in OBJECTS.modules.drain(|module| ours(&module.context)) {
            module.unload();
        }
        OBJECTS.events.drain(|event| ours(&event.context));
        OBJECTS.streams.drain(|stream| ours(&stream.context));
        for allocation in &held.allocations {
            let host = allocation.kind == AllocationKind::Host;
            lock(&self.session.allocations).live.remove(&(host, allocation.address));
            if host {
                host_memory::free(allocation.address);
            } else if let Err(error) = self.session.memory.free(allocation.address) {
                eprintln!("cuda-emulator: at the end of a context: {error}");
            }
        }
        OBJECTS.contexts.drain(|context| std::ptr::eq(context, self.as_ref()));
        if held != Default::default() {
            eprintln!("cuda-emulator: leaked at the end of a context: {held}");
            lock(&self.session.records).leaks.push(held);
        }
    }
}
