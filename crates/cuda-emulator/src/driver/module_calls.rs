//! "Module Management".

use std::sync::Arc;

use super::abi::{CUdeviceptr, CUresult, Handle, Host, Out, Text};
use super::capture;
use super::entry::{Call, entry, release};
use super::module::{self, Module};
use super::objects::OBJECTS;
use crate::error::CudaError;

/// First bytes of compiled code: ELF, and the two wrappers of fat binaries.
const COMPILED: [[u8; 4]; 3] = [*b"\x7fELF", 0x466243B1_u32.to_le_bytes(), 0xBA55ED50_u32.to_le_bytes()];

/// The log buffers that the options of `cuModuleLoadDataEx` specify.
struct Logs {
    info: Log,
    error: Log,
}

#[derive(Clone, Copy)]
struct Log {
    buffer: Out<u8>,
    /// In: the buffer's size. Out: the number of bytes written.
    size: Option<Out<usize>>,
}

impl Log {
    fn none() -> Self {
        Self { buffer: Host(std::ptr::null_mut()).into(), size: None }
    }

    /// Writes the message, truncated to the buffer, and a NUL.
    fn write(self, message: &str) -> Result<(), CudaError> {
        let Some(size) = self.size else { return Ok(()) };
        // The option's value is an integer with the size of a pointer, of which the low 32 bits are used.
        let room = size.get()? & 0xFFFF_FFFF;
        if self.buffer.is_null() || room == 0 {
            return size.set(0);
        }
        let message = &message.as_bytes()[..message.len().min(room - 1)];
        for (index, byte) in message.iter().chain([&0]).enumerate() {
            self.buffer.at(index).set(*byte)?;
        }
        size.set(message.len() + usize::from(!message.is_empty()))
    }
}

/// The values of `CUjit_option` that are read; the others control an optimiser, which the emulator does not have.
const INFO_LOG: u32 = 3;
const INFO_LOG_SIZE: u32 = 4;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_SIZE: u32 = 6;
const LAST_OPTION: u32 = 35;

fn logs(call: &Call, count: u32, options: Out<u32>, values: Out<usize>) -> Result<Logs, CudaError> {
    let mut logs = Logs { info: Log::none(), error: Log::none() };
    for index in 0..count as usize {
        let (option, value) = (options.at(index).get()?, values.at(index));
        match option {
            INFO_LOG => logs.info.buffer = Host(value.get()? as *mut _).into(),
            INFO_LOG_SIZE => logs.info.size = Some(value),
            ERROR_LOG => logs.error.buffer = Host(value.get()? as *mut _).into(),
            ERROR_LOG_SIZE => logs.error.size = Some(value),
            0..=LAST_OPTION => {}
            _ => return Err(call.misuse(CudaError::InvalidValue, format!("invalid JIT option {option}"))),
        }
    }
    Ok(logs)
}

fn load(call: &Call, out: Out<Handle>, text: &[u8], logs: Option<&Logs>) -> Result<(), CudaError> {
    let context = call.context()?;
    capture::forbid_unsafe(call, &call.session)?;
    let (outcome, log) = match Module::load(&context, text) {
        Ok(module) => (out.set(module.handle), String::new()),
        Err((error, message)) => {
            eprintln!("cuda-emulator: {message}");
            (Err(call.misuse(error, message.as_str())), message)
        }
    };
    if let Some(logs) = logs {
        logs.error.write(&log)?;
        logs.info.write("")?;
    }
    outcome
}

/// The text of an image in memory.
fn text_of(call: &Call, image: Host) -> Result<Vec<u8>, CudaError> {
    let text = image.string_bytes()?;
    // The wrapper of a fat binary has no NUL before its fourth byte.
    if COMPILED.iter().any(|magic| text.len() >= 4 && text.starts_with(magic)) {
        return Err(call.misuse(CudaError::NoBinaryForGpu, "the emulator runs PTX text, not compiled code"));
    }
    Ok(text)
}

fn load_image(call: &Call, out: Out<Handle>, image: Host, logs: Option<&Logs>) -> Result<(), CudaError> {
    if out.is_null() || image.is_null() {
        return Err(call.misuse(CudaError::InvalidValue, "the image or the output pointer is null"));
    }
    load(call, out, &text_of(call, image)?, logs)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(out: Out<Handle>, image: Host) -> CUresult {
    entry("cuModuleLoadData", |call| load_image(call, out, image, None))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadDataEx(
    out: Out<Handle>,
    image: Host,
    count: u32,
    options: Out<u32>,
    values: Out<usize>,
) -> CUresult {
    entry("cuModuleLoadDataEx", |call| {
        let logs = logs(call, count, options, values)?;
        load_image(call, out, image, Some(&logs))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoad(out: Out<Handle>, path: Text) -> CUresult {
    entry("cuModuleLoad", |call| {
        let path = path.string()?;
        if out.is_null() {
            return Err(CudaError::InvalidValue);
        }
        let text = std::fs::read(&path)
            .map_err(|error| call.misuse(CudaError::FileNotFound, format!("{path}: {error}")))?;
        load(call, out, &text, None)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(handle: Handle) -> CUresult {
    release("cuModuleUnload", |call| {
        let module = module::module(call, handle)?;
        module.context.session.queue.finish(call, Some(&module.context));
        OBJECTS.functions.drain(|function| Arc::ptr_eq(&function.module, &module));
        OBJECTS.modules.remove(handle)?;
        module.unload();
        module.context.check()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(out: Out<Handle>, handle: Handle, name: Text) -> CUresult {
    entry("cuModuleGetFunction", |call| {
        let module = module::module(call, handle)?;
        module.context.check()?;
        let name = name.string()?;
        let function = module
            .function(&name)
            .ok_or_else(|| call.misuse(CudaError::NotFound, format!("the module has no kernel {name}")))?;
        out.set(function.handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetGlobal_v2(
    address: Out<CUdeviceptr>,
    bytes: Out<usize>,
    handle: Handle,
    name: Text,
) -> CUresult {
    entry("cuModuleGetGlobal_v2", |call| {
        let module = module::module(call, handle)?;
        module.context.check()?;
        let name = name.string()?;
        let (start, length) = module
            .program
            .variable(&name)
            .ok_or_else(|| call.misuse(CudaError::NotFound, format!("the module has no variable {name}")))?;
        address.set_if_wanted(start);
        bytes.set_if_wanted(length as usize);
        Ok(())
    })
}
