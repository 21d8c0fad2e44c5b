//! The way into and out of every exported function.

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

/// A driver call under way.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) session: Arc<Session>,
}

/// What happens when a call is made to fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It does nothing.
    Ordinary,
    /// It does its work of releasing and then reports the failure.
    Releases,
}

/// Runs a call.
pub(super) fn entry(name: &'static str, body: impl FnOnce(&Call) -> Result<(), CudaError>) -> CUresult {
    run(name, Effect::Ordinary, body)
}

/// Runs a call that frees or ends something: an error that is injected, or that an earlier launch left behind,
/// does not stop it.
pub(super) fn release(name: &'static str, body: impl FnOnce(&Call) -> Result<(), CudaError>) -> CUresult {
    run(name, Effect::Releases, body)
}

/// Runs a call that works before `cuInit` and at any time.
pub(super) fn always(name: &'static str, body: impl FnOnce(&Call) -> Result<(), CudaError>) -> CUresult {
    guard(name, || {
        let call = Call { name, session: context::session() };
        lock(&call.session.records).calls.push(name);
        call.session.strike(name).map_or(Ok(()), Err)?;
        body(&call)
    })
}

fn run(name: &'static str, effect: Effect, body: impl FnOnce(&Call) -> Result<(), CudaError>) -> CUresult {
    guard(name, || {
        let call = Call { name, session: context::session() };
        if IN_HOST_FUNCTION.get() {
            return Err(call.misuse(CudaError::NotPermitted, "host functions must not call the driver"));
        }
        if !INITIALISED.load(Ordering::Acquire) {
            return Err(call.misuse(CudaError::NotInitialized, "cuInit comes first"));
        }
        lock(&call.session.records).calls.push(name);
        let struck = call.session.strike(name);
        match (struck, effect) {
            (None, _) => body(&call),
            (Some(error), Effect::Ordinary) => Err(error),
            (Some(error), Effect::Releases) => body(&call).and(Err(error)),
        }
    })
}

/// A panic must not unwind into C.
fn guard(name: &'static str, body: impl FnOnce() -> Result<(), CudaError>) -> CUresult {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.code(),
        Err(_) => {
            eprintln!("cuda-emulator: {name} panicked; this is a mistake in the emulator");
            CudaError::Unknown.code()
        }
    }
}

/// Runs a host function that a stream was given.
pub(super) fn in_host_function(function: impl FnOnce()) {
    IN_HOST_FUNCTION.set(true);
    function();
    IN_HOST_FUNCTION.set(false);
}

impl Call {
    /// The current context, which must exist and be sound.
    pub(super) fn context(&self) -> Result<Arc<Context>, CudaError> {
        let context = self.any_context()?;
        context.check()?;
        Ok(context)
    }

    /// The current context, even if a failed launch spoilt it.
    pub(super) fn any_context(&self) -> Result<Arc<Context>, CudaError> {
        let context = context::current()
            .ok_or_else(|| self.misuse(CudaError::InvalidContext, "no context is current in this thread"))?;
        if context.is_destroyed() {
            return Err(self.misuse(CudaError::ContextIsDestroyed, "the current context has ended"));
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
