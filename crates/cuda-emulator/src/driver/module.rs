//! Modules and their functions.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::Handle;
use super::context::Context;
use super::entry::Call;
use super::objects::{OBJECTS, lock};
use crate::error::CudaError;
use crate::exec::Program;
use crate::ptx::{self, Kernel};

/// Shared memory per block without opting in to more.
pub(super) const SHARED_WITHOUT_OPTIN: u32 = 48 * 1024;

#[derive(Debug)]
pub(super) struct Module {
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    pub(super) program: Program,
    unloaded: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Function {
    pub(super) handle: Handle,
    pub(super) module: Arc<Module>,
    kernel: usize,
    pub(super) name: CString,
    pub(super) dynamic_shared_limit: Mutex<u32>,
    pub(super) carveout: AtomicI32,
    pub(super) cache_config: AtomicU32,
}

/// How many parsed modules are kept.
const PARSED_MODULES: usize = 64;

/// The parsed text. Tests load the same modules hundreds of times, so the last ones are kept, the most recent at the end.
fn parsed(text: &str) -> Result<Arc<ptx::Module>, ptx::LoadError> {
    static PARSED: Mutex<Vec<Arc<ptx::Module>>> = Mutex::new(Vec::new());
    let known = {
        let mut parsed = lock(&PARSED);
        let position = parsed.iter().position(|module| module.text() == text);
        position.map(|position| parsed.remove(position))
    };
    let module = match known {
        Some(module) => module,
        None => Arc::new(ptx::Module::load(text)?),
    };
    let mut parsed = lock(&PARSED);
    if parsed.len() >= PARSED_MODULES {
        parsed.remove(0);
    }
    parsed.push(Arc::clone(&module));
    Ok(module)
}

impl Module {
    /// Loads PTX text into the context. The error includes the message for the compiler's log.
    pub(super) fn load(context: &Arc<Context>, text: &[u8]) -> Result<Arc<Self>, (CudaError, String)> {
        let device = context.session.device();
        let text = std::str::from_utf8(text)
            .map_err(|_| (CudaError::InvalidPtx, "the image is not UTF-8 text".to_owned()))?;
        // Checked first: text of a later version may not be readable.
        let newest = device.driver_version.newest_ptx();
        if let Some(version) = stated_version(text).filter(|version| *version > newest) {
            let message = format!(
                "PTX version {}.{}, but a driver of CUDA {} supports at most {}.{}",
                version.0, version.1, device.driver_version, newest.0, newest.1
            );
            return Err((CudaError::UnsupportedPtxVersion, message));
        }
        let module = parsed(text).map_err(|error| (CudaError::InvalidPtx, error.to_string()))?;
        if module.target() > device.architecture() {
            let message =
                format!("target sm_{}, but the device is sm_{}", module.target(), device.architecture());
            return Err((CudaError::InvalidPtx, message));
        }
        let program = Program::new(module, &context.session.memory)
            .map_err(|error| (CudaError::OutOfMemory, error.to_string()))?;
        Ok(OBJECTS.modules.add(|handle| {
            let context = Arc::clone(context);
            Arc::new(Self { handle, context, program, unloaded: AtomicBool::new(false) })
        }))
    }

    /// Frees the memory of the module's variables.
    pub(super) fn unload(&self) {
        if !self.unloaded.swap(true, Ordering::AcqRel) {
            self.program.release(&self.context.session.memory);
        }
    }

    pub(super) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }

    /// The function with this name. Every call returns the same handle.
    pub(super) fn function(self: &Arc<Self>, name: &str) -> Option<Arc<Function>> {
        let kernels = self.program.module().kernels();
        let kernel = kernels.iter().position(|kernel| kernel.name() == name)?;
        let same = |function: &Function| Arc::ptr_eq(&function.module, self) && function.kernel == kernel;
        if let Some(function) = OBJECTS.functions.select(same).pop() {
            return Some(function);
        }
        let free = SHARED_WITHOUT_OPTIN.saturating_sub(kernels[kernel].static_shared_bytes());
        let name = CString::new(name).ok()?;
        Some(OBJECTS.functions.add(|handle| {
            Arc::new(Function {
                handle,
                module: Arc::clone(self),
                kernel,
                name,
                dynamic_shared_limit: Mutex::new(free),
                carveout: AtomicI32::new(-1),
                cache_config: AtomicU32::new(0),
            })
        }))
    }
}

impl Function {
    pub(super) fn kernel(&self) -> &Kernel {
        &self.module.program.module().kernels()[self.kernel]
    }

    /// Registers per thread, as set by the test.
    pub(super) fn registers(&self) -> u32 {
        let settings = lock(&self.module.context.session.settings);
        let mut set = settings.registers.iter().rev();
        set.find(|(name, _)| name == self.kernel().name())
            .map_or(crate::report::ASSUMED_REGISTERS, |(_, n)| *n)
    }
}

/// The version of the first `.version` directive.
fn stated_version(text: &str) -> Option<(u32, u32)> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(".version"))?;
    let (major, minor) = line.split_whitespace().next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The module with the given handle.
pub(super) fn module(call: &Call, handle: Handle) -> Result<Arc<Module>, CudaError> {
    OBJECTS.modules.get(handle).map_err(|error| {
        call.misuse(error, format!("{handle:#x} is not a module, or the module has been unloaded"))
    })
}

/// The function with the given handle.
pub(super) fn function(call: &Call, handle: Handle) -> Result<Arc<Function>, CudaError> {
    OBJECTS.functions.get(handle).map_err(|error| {
        call.misuse(error, format!("{handle:#x} is not a function, or its module has been unloaded"))
    })
}
