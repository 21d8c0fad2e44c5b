//! "Execution Control": function attributes and configuration.

use std::ffi::c_char;
use std::sync::atomic::Ordering;

use super::abi::{CUresult, Handle, Out};
use super::entry::entry;
use super::module;
use super::objects::lock;
use crate::error::CudaError;
use crate::ptx::Space;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: u32 = 8;
/// `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`.
const CARVEOUT: u32 = 9;

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(out: Out<i32>, attribute: u32, function: Handle) -> CUresult {
    entry("cuFuncGetAttribute", |call| {
        let function = module::function(call, function)?;
        function.module.context.check()?;
        let (kernel, text) = (function.kernel(), function.module.program.module());
        let device = call.session.device();
        let constants = text.variables().iter().filter(|variable| variable.space == Space::Const);
        out.set(match attribute {
            0 => kernel.max_threads().min(1024) as i32,
            1 => kernel.static_shared_bytes() as i32,
            2 => constants.map(|variable| variable.bytes).sum::<u64>() as i32,
            3 => kernel.local_bytes() as i32,
            4 => function.registers() as i32,
            5 => (text.version().0 * 10 + text.version().1) as i32,
            6 => device.architecture() as i32,
            7 => 0,
            MAX_DYNAMIC_SHARED => *lock(&function.dynamic_shared_limit) as i32,
            CARVEOUT => function.carveout.load(Ordering::Relaxed),
            // Attributes of clusters, which are not supported.
            10..=15 => 0,
            _ => {
                return Err(
                    call.misuse(CudaError::InvalidValue, format!("invalid function attribute {attribute}"))
                );
            }
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: u32, value: i32) -> CUresult {
    entry("cuFuncSetAttribute", |call| {
        let function = module::function(call, function)?;
        function.module.context.check()?;
        let refuse = |what: String| Err(call.misuse(CudaError::InvalidValue, what));
        match attribute {
            MAX_DYNAMIC_SHARED => {
                let fixed = function.kernel().static_shared_bytes();
                let limit = call.session.device().shared_per_block_optin;
                match u32::try_from(value) {
                    Ok(bytes) if bytes.saturating_add(fixed) <= limit => {
                        *lock(&function.dynamic_shared_limit) = bytes;
                        Ok(())
                    }
                    _ => refuse(format!(
                        "{value} bytes of dynamic and {fixed} bytes of static shared memory exceed the limit of {limit}"
                    )),
                }
            }
            CARVEOUT if (-1..=100).contains(&value) => {
                function.carveout.store(value, Ordering::Relaxed);
                Ok(())
            }
            _ => refuse(format!("function attribute {attribute} cannot be set to {value}")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(function: Handle, config: u32) -> CUresult {
    entry("cuFuncSetCacheConfig", |call| {
        let function = module::function(call, function)?;
        function.module.context.check()?;
        if config > 3 {
            return Err(call.misuse(CudaError::InvalidValue, format!("invalid cache configuration {config}")));
        }
        function.cache_config.store(config, Ordering::Relaxed);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetModule(out: Out<Handle>, function: Handle) -> CUresult {
    entry("cuFuncGetModule", |call| out.set(module::function(call, function)?.module.handle))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetName(out: Out<*const c_char>, function: Handle) -> CUresult {
    // The name has the lifetime of the function.
    entry("cuFuncGetName", |call| out.set(module::function(call, function)?.name.as_ptr()))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetParamInfo(
    function: Handle,
    index: usize,
    offset: Out<usize>,
    bytes: Out<usize>,
) -> CUresult {
    entry("cuFuncGetParamInfo", |call| {
        let function = module::function(call, function)?;
        let parameter = function.kernel().parameters().get(index).ok_or_else(|| {
            call.misuse(CudaError::InvalidValue, format!("the kernel has no parameter {index}"))
        })?;
        offset.set(parameter.offset as usize)?;
        bytes.set_if_wanted(parameter.bytes as usize);
        Ok(())
    })
}
