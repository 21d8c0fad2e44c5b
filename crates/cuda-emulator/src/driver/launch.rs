//! The work that can be submitted to a stream, and its execution.

use std::ffi::c_void;
use std::sync::Arc;

use super::abi::{CUdeviceptr, Host};
use super::context::Context;
use super::entry::{Call, in_host_function};
use super::module::Function;
use super::objects::lock;
use crate::control::{ErrorDelivery, LaunchCounts};
use crate::error::CudaError;
use crate::exec::{self, Finding, FindingKind, LaunchConfig, LaunchError};

/// `CUhostFn`.
pub(super) type HostFunction = unsafe extern "C" fn(data: *mut c_void);

/// A unit of work, with everything it needs.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Launch { function: Arc<Function>, config: LaunchConfig, parameters: Vec<u8> },
    HostToDevice { to: CUdeviceptr, from: Host, bytes: usize },
    DeviceToHost { to: Host, from: CUdeviceptr, bytes: usize },
    DeviceToDevice { to: CUdeviceptr, from: CUdeviceptr, bytes: usize },
    Fill { to: CUdeviceptr, pattern: Vec<u8>, count: usize },
    Call { function: HostFunction, data: Host },
}

impl Work {
    /// Executes the work.
    pub(super) fn run(&self, call: &Call, context: &Arc<Context>) -> Result<(), CudaError> {
        let memory = &context.session.memory;
        let done = match self {
            Self::Launch { function, config, parameters } => {
                return launch(call, context, function, config, parameters);
            }
            Self::Call { function, data } => {
                // SAFETY: the caller of cuLaunchHostFunc guarantees that the function accepts this argument.
                in_host_function(|| unsafe { function(data.0) });
                return Ok(());
            }
            // Nothing is accessed, so any address is valid.
            Self::HostToDevice { bytes: 0, .. }
            | Self::DeviceToHost { bytes: 0, .. }
            | Self::DeviceToDevice { bytes: 0, .. }
            | Self::Fill { count: 0, .. } => return Ok(()),
            Self::HostToDevice { to, from, bytes } => memory.write(*to, &from.read(*bytes)?),
            Self::DeviceToHost { to, from, bytes } => {
                // The program is about to read a result: it must learn if the computation failed.
                context.settle()?;
                let mut host = vec![0; *bytes];
                let read = memory.read(*from, &mut host);
                if read.is_ok() {
                    to.write(&host)?;
                }
                read
            }
            Self::DeviceToDevice { to, from, bytes } => memory.copy(*to, *from, *bytes as u64),
            Self::Fill { to, pattern, count } => memory.fill(*to, pattern, *count as u64),
        };
        done.map_err(|error| call.memory_error(&error))
    }
}

fn launch(
    call: &Call,
    context: &Arc<Context>,
    function: &Function,
    config: &LaunchConfig,
    parameters: &[u8],
) -> Result<(), CudaError> {
    let session = &context.session;
    let options = lock(&session.settings).options.clone();
    let kernel = function.kernel();
    let program = &function.module.program;
    match exec::launch(program, kernel.name(), config, parameters, &session.memory, &options) {
        Ok(counts) => {
            lock(&session.records).launches.push(LaunchCounts {
                kernel: kernel.name().to_owned(),
                grid: config.grid,
                block: config.block,
                dynamic_shared_bytes: config.dynamic_shared_bytes,
                static_shared_bytes: kernel.static_shared_bytes(),
                counts,
            });
            Ok(())
        }
        Err(LaunchError::Finding(finding)) => fail(context, *finding),
        Err(error @ LaunchError::Target { .. }) => {
            Err(call.misuse(CudaError::NoBinaryForGpu, error.to_string()))
        }
        Err(error @ LaunchError::Invalid(_)) => Err(call.misuse(CudaError::InvalidValue, error.to_string())),
    }
}

/// Records a failed check of a kernel, and returns the error now or later, as the session's settings require.
fn fail(context: &Context, finding: Finding) -> Result<(), CudaError> {
    eprintln!("cuda-emulator: {finding}");
    let error = error_of(finding.kind);
    lock(&context.session.records).findings.push(finding);
    let (delivery, sticky) = {
        let settings = lock(&context.session.settings);
        (settings.delivery, settings.sticky)
    };
    match delivery {
        ErrorDelivery::AtSynchronisation => {
            context.defer(error);
            Ok(())
        }
        ErrorDelivery::AtLaunch => {
            if sticky {
                context.set_sticky_error(error);
            }
            Err(error)
        }
    }
}

/// The error that a device would return, for errors that a device detects; a failed launch for the rest.
fn error_of(kind: FindingKind) -> CudaError {
    match kind {
        FindingKind::OutOfBounds
        | FindingKind::UseAfterFree
        | FindingKind::SharedOutOfRange
        | FindingKind::LocalOutOfRange
        | FindingKind::ReadOnly => CudaError::IllegalAddress,
        FindingKind::Misaligned => CudaError::MisalignedAddress,
        FindingKind::Trap => CudaError::IllegalInstruction,
        FindingKind::Hang => CudaError::LaunchTimeout,
        _ => CudaError::LaunchFailed,
    }
}
