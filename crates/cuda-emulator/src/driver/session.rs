//! A session: the state that a real driver keeps per process, and the records that a test reads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use super::abi::Handle;
use super::context::{self, Context};
use super::entry::Call;
use super::objects::{OBJECTS, lock};
use super::pool::{self, PoolState};
use super::queue::Queue;
use crate::control::settings::Settings;
use crate::control::{AllocationKind, Fault, LaunchCounts, LiveAllocation, LiveObjects, Misuse, StreamOrder};
use crate::device::Device;
use crate::error::CudaError;
use crate::exec::Finding;
use crate::memory::Memory;

/// An allocation and the context it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Allocation {
    pub(super) context: Handle,
    pub(super) kind: AllocationKind,
    pub(super) bytes: u64,
    pub(super) serial: u64,
}

/// Allocations by address. The first part of the key is true for host memory.
#[derive(Debug, Default)]
pub(super) struct Allocations {
    made: u64,
    pub(super) live: BTreeMap<(bool, u64), Allocation>,
}

impl Allocations {
    pub(super) fn add(&mut self, context: Handle, kind: AllocationKind, address: u64, bytes: u64) {
        self.made += 1;
        let allocation = Allocation { context, kind, bytes, serial: self.made };
        self.live.insert((kind == AllocationKind::Host, address), allocation);
    }

    pub(super) fn report(&self, wanted: impl Fn(&Allocation) -> bool) -> Vec<LiveAllocation> {
        let mut report: Vec<_> = self
            .live
            .iter()
            .filter(|(_, allocation)| wanted(allocation))
            .map(|(&(_, address), &Allocation { kind, bytes, serial, .. })| LiveAllocation {
                kind,
                address,
                bytes,
                serial,
            })
            .collect();
        report.sort_by_key(|allocation| allocation.serial);
        report
    }
}

/// A fault, and how many matching calls it has counted.
#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
}

/// The most launches that are recorded at a time.
const MOST_LAUNCHES: usize = 1 << 14;

/// The records that a test reads.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) launches: Vec<LaunchCounts>,
    pub(super) findings: Vec<Finding>,
    pub(super) misuses: Vec<Misuse>,
    pub(super) leaks: Vec<LiveObjects>,
    pub(super) calls: Vec<&'static str>,
}

impl Records {
    /// Records a launch.
    pub(super) fn launch(&mut self, launch: LaunchCounts) {
        add(&mut self.launches, launch, MOST_LAUNCHES);
    }

    /// Records a call of a driver function.
    pub(super) fn call(&mut self, name: &'static str) {
        add(&mut self.calls, name, 16 * MOST_LAUNCHES);
    }
}

/// Adds to a list. Of a full one the older half goes: nobody takes it, and a program may run for days.
fn add<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() == most {
        list.drain(..most / 2);
    }
    list.push(item);
}

/// The primary context and its reference count.
#[derive(Debug, Default)]
pub(super) struct Primary {
    pub(super) context: Option<Arc<Context>>,
    pub(super) retained: u32,
    pub(super) flags: u32,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) memory: Memory,
    pub(super) settings: Mutex<Settings>,
    pub(super) primary: Mutex<Primary>,
    pub(super) allocations: Mutex<Allocations>,
    pub(super) default_pool: Mutex<PoolState>,
    /// The pool set by `cuDeviceSetMemPool`.
    pub(super) current_pool: Mutex<Handle>,
    pub(super) records: Mutex<Records>,
    pub(super) queue: Queue,
    faults: Mutex<Vec<Armed>>,
}

/// The live sessions of the control interface.
#[derive(Debug, Default)]
struct Sessions {
    begun: u64,
    live: Vec<Arc<Session>>,
}

impl Sessions {
    fn numbered(&self, number: u64) -> Option<&Arc<Session>> {
        self.live.iter().find(|session| session.number == number)
    }

    /// The session of all threads that have none of their own; `device` describes it if it does not exist yet.
    fn shared(&mut self, device: impl FnOnce() -> Device) -> Arc<Session> {
        if let Some(session) = self.numbered(0) {
            return Arc::clone(session);
        }
        let session = Session::new(0, device());
        lock(&session.settings).follow_environment();
        self.live.push(Arc::clone(&session));
        session
    }
}

static SESSIONS: LazyLock<Mutex<Sessions>> = LazyLock::new(Mutex::default);

thread_local! {
    static OF_THREAD: RefCell<Option<Arc<Session>>> = const { RefCell::new(None) };
}

impl Session {
    fn new(number: u64, device: Device) -> Arc<Self> {
        Arc::new(Self {
            number,
            memory: Memory::new(device.total_memory),
            settings: Mutex::new(Settings::new(device)),
            primary: Mutex::default(),
            allocations: Mutex::default(),
            default_pool: Mutex::default(),
            current_pool: Mutex::new(pool::DEFAULT),
            records: Mutex::default(),
            queue: Queue::default(),
            faults: Mutex::default(),
        })
    }

    /// Begins a session for the calling thread.
    pub(super) fn begin(device: Device) -> u64 {
        let mut sessions = lock(&SESSIONS);
        // Threads without a session use the device of the first session.
        sessions.shared(|| device.clone());
        sessions.begun += 1;
        let session = Self::new(sessions.begun, device);
        sessions.live.push(Arc::clone(&session));
        session.enter();
        session.number
    }

    /// Removes a session that has no more handles. Threads and contexts that use it keep it alive.
    pub(super) fn end(number: u64) {
        if number != 0 {
            let mut sessions = lock(&SESSIONS);
            let position = sessions.live.iter().position(|session| session.number == number);
            let ended = position.map(|position| sessions.live.swap_remove(position));
            drop(sessions);
            // Dropped after the lock is released. Unfinished work refers to its contexts, and they to the session.
            if let Some(ended) = &ended {
                ended.queue.clear();
            }
            drop(ended);
        }
    }

    /// Makes this the calling thread's session.
    pub(super) fn enter(self: &Arc<Self>) {
        // A context left over from another session would take precedence.
        context::clear();
        OF_THREAD.set(Some(Arc::clone(self)));
    }

    pub(super) fn numbered(number: u64) -> Option<Arc<Self>> {
        lock(&SESSIONS).numbered(number).cloned()
    }

    /// The calling thread's session, or the shared one. A program that loads the library through `LD_LIBRARY_PATH` has
    /// only the shared session, whose device the environment may select.
    pub(super) fn of_thread() -> Arc<Self> {
        let own = OF_THREAD.try_with(|session| session.borrow().clone()).ok().flatten();
        own.unwrap_or_else(|| lock(&SESSIONS).shared(Device::from_environment))
    }

    pub(super) fn device(&self) -> Device {
        lock(&self.settings).device.clone()
    }

    pub(super) fn stream_order(&self) -> StreamOrder {
        lock(&self.settings).stream_order
    }

    /// Whether work is queued, and not done by the call that submits it. Work left from before the mode was switched off is
    /// done first.
    pub(super) fn queues(&self, call: &Call) -> bool {
        if lock(&self.settings).queues() {
            return true;
        }
        if !self.queue.is_empty() {
            self.queue.finish(call, None);
        }
        false
    }

    pub(super) fn inject(&self, fault: Fault) {
        lock(&self.faults).push(Armed { fault, seen: 0 });
    }

    pub(super) fn clear_faults(&self) {
        lock(&self.faults).clear();
    }

    /// Counts a call for the pending faults; returns the error of the first one that is due.
    pub(super) fn injected_error(&self, name: &str) -> Option<CudaError> {
        let mut error = None;
        lock(&self.faults).retain_mut(|armed| {
            if !armed.fault.watches(name) {
                return true;
            }
            armed.seen += 1;
            if armed.seen < armed.fault.nth {
                return true;
            }
            error = error.or(Some(armed.fault.error));
            armed.fault.lasts == crate::control::Duration::Lasting
        });
        error
    }

    /// The live objects of this session, or of one of its contexts.
    pub(super) fn live(self: &Arc<Self>, of: Option<Handle>) -> LiveObjects {
        let here = |context: &Context| {
            Arc::ptr_eq(&context.session, self) && of.is_none_or(|handle| handle == context.handle)
        };
        LiveObjects {
            allocations: lock(&self.allocations)
                .report(|allocation| of.is_none_or(|context| context == allocation.context)),
            contexts: OBJECTS.contexts.select(here).len(),
            streams: OBJECTS.streams.select(|stream| !stream.is_default() && here(&stream.context)).len(),
            events: OBJECTS.events.select(|event| here(&event.context)).len(),
            modules: OBJECTS.modules.select(|module| here(&module.context)).len(),
            graphs: OBJECTS.graphs.select(|graph| here(&graph.context)).len()
                + OBJECTS.graph_execs.select(|graph| here(&graph.context)).len(),
            pools: match of {
                Some(_) => 0,
                None => OBJECTS.pools.select(|pool| Arc::ptr_eq(&pool.session, self)).len(),
            },
        }
    }
}
