//! The work that can be submitted to a stream, and its execution.

use std::ffi::c_void;
use std::sync::Arc;

use super::abi::{CUdeviceptr, Host};
use super::context::Context;
use super::entry::{Call, in_host_function};
use super::host::{Later, Unusable};
use super::memory_calls;
use super::module::Function;
use super::objects::lock;
use crate::control::{AllocationKind, ErrorDelivery, LaunchCounts};
use crate::error::CudaError;
use crate::exec::{self, Finding, FindingKind, LaunchConfig, LaunchError};

/// `CUhostFn`.
pub(super) type HostFunction = unsafe extern "C" fn(data: *mut c_void);

/// The host memory of a copy.
#[derive(Clone, Debug)]
pub(super) enum HostSide {
    /// Used before the call that submits the copy returns.
    Now { host: Host, bytes: usize },
    /// Already read.
    Staged(Arc<Vec<u8>>),
    /// Used after that call has returned.
    Later(Later),
}

impl HostSide {
    /// Its address, if it is still to be used.
    pub(super) fn address(&self) -> Option<u64> {
        match self {
            Self::Now { host, .. } | Self::Later(Later { host, .. }) => Some(host.0 as u64),
            Self::Staged(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Now { bytes, .. } | Self::Later(Later { bytes, .. }) => *bytes,
            Self::Staged(data) => data.len(),
        }
    }
}

/// A unit of work, with everything it needs.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Launch {
        function: Arc<Function>,
        config: LaunchConfig,
        parameters: Vec<u8>,
    },
    HostToDevice {
        to: CUdeviceptr,
        host: HostSide,
    },
    DeviceToHost {
        host: HostSide,
        from: CUdeviceptr,
    },
    DeviceToDevice {
        to: CUdeviceptr,
        from: CUdeviceptr,
        bytes: usize,
    },
    Fill {
        to: CUdeviceptr,
        pattern: Vec<u8>,
        count: usize,
    },
    Call {
        function: HostFunction,
        data: Host,
    },
    /// An allocation of a graph: makes memory at reserved addresses.
    Allocate {
        address: CUdeviceptr,
    },
    Free {
        address: CUdeviceptr,
    },
    /// A stream reaches an allocation, which is recorded already.
    Begin {
        address: CUdeviceptr,
    },
    /// A stream reaches a free, which is recorded already.
    End {
        address: CUdeviceptr,
    },
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
            Self::Allocate { address } => return allocate(call, context, *address),
            Self::Free { address } => return memory_calls::free(call, *address),
            Self::Begin { address } => {
                memory.establish(*address);
                memory.give_up(*address);
                return Ok(());
            }
            Self::End { address } => memory.free(*address),
            // Nothing is accessed, so any address is valid.
            Self::DeviceToDevice { bytes: 0, .. } | Self::Fill { count: 0, .. } => return Ok(()),
            Self::HostToDevice { host, .. } | Self::DeviceToHost { host, .. } if host.bytes() == 0 => {
                return Ok(());
            }
            Self::HostToDevice { to, host } => match host {
                HostSide::Now { host, bytes } => memory.write(*to, &host.read(*bytes)?),
                HostSide::Staged(data) => memory.write(*to, data),
                HostSide::Later(later) => match later.read() {
                    Ok(data) => memory.write(*to, &data),
                    Err(unusable) => return self.unusable(call, context, unusable),
                },
            },
            Self::DeviceToHost { host, from } => {
                // The program is about to read a result: it must learn if the computation failed.
                context.settle()?;
                let mut data = vec![0; host.bytes()];
                let read = memory.read(*from, &mut data);
                match host {
                    HostSide::Now { host, .. } if read.is_ok() => host.write(&data)?,
                    HostSide::Later(later) if read.is_ok() => {
                        if let Err(unusable) = later.write(&data) {
                            return self.unusable(call, context, unusable);
                        }
                    }
                    _ => {}
                }
                read
            }
            Self::DeviceToDevice { to, from, bytes } => memory.copy(*to, *from, *bytes as u64),
            Self::Fill { to, pattern, count } => memory.fill(*to, pattern, *count as u64),
        };
        done.map_err(|error| call.memory_error(&error))
    }

    /// The kernel's name, or what the work is.
    pub(super) fn what(&self) -> &str {
        match self {
            Self::Launch { function, .. } => function.kernel().name(),
            Self::HostToDevice { .. } => "a copy from the host",
            Self::DeviceToHost { .. } => "a copy to the host",
            Self::DeviceToDevice { .. } => "a copy within the device",
            Self::Fill { .. } => "a memset",
            Self::Call { .. } => "a host function",
            Self::Allocate { .. } | Self::Begin { .. } => "an allocation",
            Self::Free { .. } | Self::End { .. } => "a free",
        }
    }

    /// Records that the program has freed or changed the host memory of a copy too early.
    fn unusable(&self, call: &Call, context: &Context, unusable: Unusable) -> Result<(), CudaError> {
        let (Self::HostToDevice { host, .. } | Self::DeviceToHost { host, .. }) = self else { return Ok(()) };
        let why = match unusable {
            Unusable::Missing => "was freed before the copy took place",
            Unusable::Changed => {
                "was freed or written between the call and the copy, which only ends with a synchronisation"
            }
        };
        let message = format!("the host memory of {} bytes {why}", host.bytes());
        let finding = finding(call, context, self, FindingKind::HostMemory, host.address(), message);
        fail(context, finding)
    }
}

/// A finding about work as a whole, not about an instruction of a kernel.
pub(super) fn finding(
    call: &Call,
    context: &Context,
    work: &Work,
    kind: FindingKind,
    address: Option<u64>,
    message: String,
) -> Finding {
    let near = address.filter(|_| kind != FindingKind::HostMemory);
    Finding {
        kind,
        kernel: work.what().to_owned(),
        line: 0,
        text: call.name.to_owned(),
        block: [0; 3],
        thread: [0; 3],
        address,
        allocation: near.and_then(|address| context.session.memory.nearest(address)),
        message,
    }
}

/// Makes the memory of a graph's allocation.
fn allocate(call: &Call, context: &Context, address: CUdeviceptr) -> Result<(), CudaError> {
    let session = &context.session;
    let Some(bytes) = session.memory.establish(address) else {
        return Err(call.misuse(CudaError::InvalidValue, format!("{address:#x} is allocated already")));
    };
    lock(&session.allocations).add(context.handle, AllocationKind::Graph, address, bytes);
    Ok(())
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
            lock(&session.records).launch(LaunchCounts {
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
pub(super) fn fail(context: &Context, finding: Finding) -> Result<(), CudaError> {
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
        | FindingKind::ReadOnly
        | FindingKind::HostMemory => CudaError::IllegalAddress,
        FindingKind::Misaligned => CudaError::MisalignedAddress,
        FindingKind::Trap => CudaError::IllegalInstruction,
        FindingKind::Hang => CudaError::LaunchTimeout,
        _ => CudaError::LaunchFailed,
    }
}
