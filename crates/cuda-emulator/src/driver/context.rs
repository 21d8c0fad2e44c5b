//! Contexts, and the current context of each thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::Handle;
use super::objects::{OBJECTS, lock};
use super::session::Session;
use super::{host_memory, session, stream};
use crate::control::AllocationKind;
use crate::error::CudaError;

/// The limits of a new context: stack size, printf buffer, heap, the two of dynamic parallelism, L2 fetch granularity,
/// persisting L2. The emulator stores the values and does not act on them.
const LIMITS: [usize; 7] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];

/// A context.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) session: Arc<Session>,
    pub(super) flags: AtomicU32,
    pub(super) cache_config: AtomicU32,
    /// Limits by `CUlimit`: those of a fresh context, or what the program set.
    pub(super) limits: Mutex<[usize; 7]>,
    destroyed: AtomicBool,
    /// The sticky error of the context.
    sticky_error: Mutex<Option<CudaError>>,
    /// An error of completed work that no call has returned yet.
    pending: Mutex<Option<CudaError>>,
}

thread_local! {
    /// The calling thread's context stack; the current context is the last one (`cuCtxPushCurrent`).
    static STACK: RefCell<Vec<Arc<Context>>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread's current context. `None` as well while the thread is being destroyed.
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

/// Pushes a context, which becomes the current one.
pub(super) fn push(context: Arc<Context>) {
    // A thread that is being destroyed needs no current context.
    let _ = STACK.try_with(|stack| stack.borrow_mut().push(context));
}

/// Pops the current context and returns it.
pub(super) fn pop() -> Option<Arc<Context>> {
    STACK.try_with(|stack| stack.borrow_mut().pop()).ok().flatten()
}

/// Removes all contexts of the calling thread.
pub(super) fn clear() {
    // Taken out first: dropping the last reference to a context must not happen while the stack is borrowed.
    let contexts = STACK.try_with(|stack| std::mem::take(&mut *stack.borrow_mut()));
    drop(contexts);
}

/// The session to which calls of this thread belong.
pub(super) fn session() -> Arc<Session> {
    current()
        .filter(|context| !context.is_destroyed())
        .map_or_else(session::Session::of_thread, |context| Arc::clone(&context.session))
}

impl Context {
    /// Creates a context that is not current on any thread.
    pub(super) fn create(session: &Arc<Session>, flags: u32) -> Arc<Self> {
        OBJECTS.contexts.add(|handle| {
            Arc::new(Self {
                handle,
                session: Arc::clone(session),
                flags: AtomicU32::new(flags),
                cache_config: AtomicU32::new(0),
                limits: Mutex::new(LIMITS),
                destroyed: AtomicBool::new(false),
                sticky_error: Mutex::default(),
                pending: Mutex::default(),
            })
        })
    }

    pub(super) fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Acquire)
    }

    /// Fails if the context has a sticky error.
    pub(super) fn check(&self) -> Result<(), CudaError> {
        lock(&self.sticky_error).map_or(Ok(()), Err)
    }

    /// Fails if completed work has left an error. The error is then cleared, unless errors are sticky.
    pub(super) fn settle(&self) -> Result<(), CudaError> {
        let Some(error) = lock(&self.pending).take() else { return Ok(()) };
        if lock(&self.session.settings).sticky {
            self.set_sticky_error(error);
        }
        Err(error)
    }

    /// Stores an error, which a later synchronisation will return.
    pub(super) fn defer(&self, error: CudaError) {
        lock(&self.pending).get_or_insert(error);
    }

    /// Sets the sticky error.
    pub(super) fn set_sticky_error(&self, error: CudaError) {
        lock(&self.sticky_error).get_or_insert(error);
    }

    /// Destroys the context: everything it still holds is freed and reported as a leak.
    pub(super) fn end(self: &Arc<Self>) {
        if self.destroyed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut held = self.session.live(Some(self.handle));
        held.contexts = 0;
        let ours = |context: &Arc<Self>| Arc::ptr_eq(context, self);
        // The objects are dropped before the memory that they use.
        OBJECTS.graph_execs.drain(|graph| ours(&graph.context));
        OBJECTS.graphs.drain(|graph| ours(&graph.context));
        OBJECTS.functions.drain(|function| ours(&function.module.context));
        for module in OBJECTS.modules.drain(|module| ours(&module.context)) {
            module.unload();
        }
        OBJECTS.events.drain(|event| ours(&event.context));
        OBJECTS.streams.drain(|stream| ours(&stream.context));
        stream::forget_defaults(self);
        for allocation in &held.allocations {
            let host = allocation.kind == AllocationKind::Host;
            lock(&self.session.allocations).live.remove(&(host, allocation.address));
            if host {
                host_memory::free(allocation.address);
            } else if let Err(error) = self.session.memory.free(allocation.address) {
                eprintln!("cuda-emulator: while destroying a context: {error}");
            }
        }
        OBJECTS.contexts.drain(|context| std::ptr::eq(context, self.as_ref()));
        if held != Default::default() {
            eprintln!("cuda-emulator: a destroyed context still held: {held}");
            lock(&self.session.records).leaks.push(held);
        }
    }
}
