//! The common entry and exit path of all exported functions.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::abi::CUresult;
use super::context::{self, Context};
use super::objects::lock;
use super::session::Session;
use crate::control::Misuse;
use crate::error::CudaError;
use crate::memory::MemoryError;

/// Whether `cuInit` has been called in this process.
pub(super) static INITIALISED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// A driver call in progress.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) session: Arc<Session>,
}

/// When a call may run, and what happens when a fault is injected into it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Needs `cuInit`; a fault replaces its effect.
    Ordinary,
    /// Needs `cuInit`; it releases its object even where a fault makes it report an error.
    Releases,
    /// Works before `cuInit` and inside host functions; a fault replaces its effect.
    Always,
}

/// Runs a call.
pub(super) fn entry(name: &'static str, body: impl FnMut(&Call) -> Result<(), CudaError>) -> CUresult {
    run(name, Effect::Ordinary, body)
}

/// Runs a call that frees or destroys something. An injected error, or one left behind by an earlier launch, does not
/// prevent the release.
pub(super) fn release(name: &'static str, body: impl FnMut(&Call) -> Result<(), CudaError>) -> CUresult {
    run(name, Effect::Releases, body)
}

/// Runs a call that works before `cuInit` and at any time.
pub(super) fn always(name: &'static str, body: impl FnMut(&Call) -> Result<(), CudaError>) -> CUresult {
    run(name, Effect::Always, body)
}

/// Hands the body on as a trait object, so that everything around it is compiled once and not once per exported
/// function.
fn run(name: &'static str, effect: Effect, mut body: impl FnMut(&Call) -> Result<(), CudaError>) -> CUresult {
    guard(name, effect, &mut body)
}

/// The body of a driver call.
type Body<'a> = &'a mut dyn FnMut(&Call) -> Result<(), CudaError>;

/// Panics must not unwind into C.
fn guard(name: &'static str, effect: Effect, body: Body<'_>) -> CUresult {
    match catch_unwind(AssertUnwindSafe(|| perform(name, effect, body))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.code(),
        Err(_) => {
            eprintln!("cuda-emulator: {name} panicked; this is a bug in the emulator");
            CudaError::Unknown.code()
        }
    }
}

fn perform(name: &'static str, effect: Effect, body: Body<'_>) -> Result<(), CudaError> {
    let call = Call { name, session: context::session() };
    if effect != Effect::Always {
        if IN_HOST_FUNCTION.get() {
            return Err(call.misuse(CudaError::NotPermitted, "host functions must not call the driver"));
        }
        if !INITIALISED.load(Ordering::Acquire) {
            return Err(call.misuse(CudaError::NotInitialized, "cuInit has not been called"));
        }
    }
    lock(&call.session.records).call(name);
    match (call.session.injected_error(name), effect) {
        (None, _) => body(&call),
        (Some(error), Effect::Releases) => body(&call).and(Err(error)),
        (Some(error), _) => Err(error),
    }
}

/// Runs a host function submitted to a stream.
pub(super) fn in_host_function(function: impl FnOnce()) {
    IN_HOST_FUNCTION.set(true);
    function();
    IN_HOST_FUNCTION.set(false);
}

impl Call {
    /// The current context, which must exist and have no sticky error.
    pub(super) fn context(&self) -> Result<Arc<Context>, CudaError> {
        let context = self.any_context()?;
        context.check()?;
        Ok(context)
    }

    /// The current context, even if it has a sticky error.
    pub(super) fn any_context(&self) -> Result<Arc<Context>, CudaError> {
        let context = context::current()
            .ok_or_else(|| self.misuse(CudaError::InvalidContext, "no context is current on this thread"))?;
        if context.is_destroyed() {
            return Err(self.misuse(CudaError::ContextIsDestroyed, "the current context has been destroyed"));
        }
        Ok(context)
    }

    /// Records why the call fails, and returns the error.
    pub(super) fn misuse(&self, error: CudaError, message: impl Into<String>) -> CudaError {
        let misuse = Misuse { call: self.name.to_owned(), error, message: message.into() };
        lock(&self.session.records).misuses.push(misuse);
        error
    }

    /// The error of a failed access to device memory.
    pub(super) fn memory_error(&self, error: &MemoryError) -> CudaError {
        match error {
            MemoryError::OutOfMemory { .. } => CudaError::OutOfMemory,
            other => self.misuse(CudaError::InvalidValue, other.to_string()),
        }
    }
}
