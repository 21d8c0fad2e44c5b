//! "Execution Control": launches.

use super::abi::{CUresult, Handle, Host, Out};
use super::entry::{Call, entry};
use super::launch::{HostFunction, Work};
use super::module::{self, Function};
use super::objects::lock;
use super::stream::Stream;
use crate::error::CudaError;
use crate::exec::LaunchConfig;

/// `CU_LAUNCH_PARAM_END`, `CU_LAUNCH_PARAM_BUFFER_POINTER`, `CU_LAUNCH_PARAM_BUFFER_SIZE`: the keys of `extra`.
const EXTRA_END: usize = 0;
const EXTRA_BUFFER: usize = 1;
const EXTRA_BUFFER_SIZE: usize = 2;

/// Builds the parameter block from one pointer per parameter, with the sizes that the PTX declares, or from one buffer.
fn parameters(
    call: &Call,
    function: &Function,
    pointers: Out<Host>,
    extra: Out<usize>,
) -> Result<Vec<u8>, CudaError> {
    let kernel = function.kernel();
    let mut block = vec![0; kernel.parameter_bytes() as usize];
    if !extra.is_null() {
        if !pointers.is_null() {
            return Err(call.misuse(CudaError::InvalidValue, "kernelParams and extra must not both be given"));
        }
        let buffer = extra_buffer(extra)?;
        if buffer.len() > block.len() {
            return Err(call.misuse(CudaError::InvalidValue, "extra is longer than the kernel's parameters"));
        }
        block[..buffer.len()].copy_from_slice(&buffer);
        return Ok(block);
    }
    for (index, parameter) in kernel.parameters().iter().enumerate() {
        if pointers.is_null() {
            return Err(
                call.misuse(CudaError::InvalidValue, "the kernel has parameters, but kernelParams is null")
            );
        }
        let bytes = pointers.at(index).get()?.read(parameter.bytes as usize).map_err(|error| {
            call.misuse(error, format!("kernelParams[{index}] ({}) is null", parameter.name))
        })?;
        let offset = parameter.offset as usize;
        block[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(block)
}

fn extra_buffer(extra: Out<usize>) -> Result<Vec<u8>, CudaError> {
    let (mut buffer, mut size) = (0, 0);
    let mut at = 0;
    loop {
        let key = extra.at(at).get()?;
        let value = extra.at(at + 1);
        match key {
            EXTRA_END => break,
            EXTRA_BUFFER => buffer = value.get()?,
            EXTRA_BUFFER_SIZE => size = value.cast::<Out<usize>>().get()?.get()?,
            _ => return Err(CudaError::InvalidValue),
        }
        at += 2;
    }
    Host(buffer as *mut _).read(size)
}

/// Performs the checks that a device performs before it runs anything.
fn check_shape(call: &Call, function: &Function, config: &LaunchConfig) -> Result<(), CudaError> {
    let refuse = |what: String| Err(call.misuse(CudaError::InvalidValue, what));
    let kernel = function.kernel();
    let device = call.session.device();
    let limit = |attribute| device.attribute(attribute).unwrap_or(0) as u32;
    for axis in 0..3 {
        // Attributes 2 to 4 bound the block, 5 to 7 the grid.
        let (threads, blocks) = (config.block[axis], config.grid[axis]);
        if threads == 0 || threads > limit(2 + axis as u32) {
            return refuse(format!("invalid block dimensions {:?}", config.block));
        }
        if blocks == 0 || blocks > limit(5 + axis as u32) {
            return refuse(format!("invalid grid dimensions {:?}", config.grid));
        }
    }
    let threads: u64 = config.block.iter().map(|&threads| u64::from(threads)).product();
    if threads > u64::from(kernel.max_threads().min(limit(1))) {
        return refuse(format!(
            "{threads} threads per block, but {} allows at most {}",
            kernel.name(),
            kernel.max_threads()
        ));
    }
    let allowed = *lock(&function.dynamic_shared_limit);
    if config.dynamic_shared_bytes > allowed {
        return refuse(format!(
            "{} bytes of dynamic shared memory, but {} is limited to {allowed}; \
             CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES raises the limit",
            config.dynamic_shared_bytes,
            kernel.name()
        ));
    }
    Ok(())
}

fn launch(
    call: &Call,
    function: Handle,
    config: LaunchConfig,
    stream: Handle,
    pointers: Out<Host>,
    extra: Out<usize>,
) -> Result<(), CudaError> {
    call.context()?;
    let function = module::function(call, function)?;
    let stream = Stream::by_handle(call, stream)?;
    check_shape(call, &function, &config)?;
    let parameters = parameters(call, &function, pointers, extra)?;
    stream.submit(call, Work::Launch { function, config, parameters })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    dynamic_shared_bytes: u32,
    stream: Handle,
    parameters: Out<Host>,
    extra: Out<usize>,
) -> CUresult {
    entry("cuLaunchKernel", |call| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let config = LaunchConfig { grid, block, dynamic_shared_bytes };
        launch(call, function, config, stream, parameters, extra)
    })
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ExtendedConfig {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared_bytes: u32,
    stream: Handle,
    attributes: usize,
    attribute_count: u32,
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernelEx(
    config: Out<ExtendedConfig>,
    function: Handle,
    parameters: Out<Host>,
    extra: Out<usize>,
) -> CUresult {
    entry("cuLaunchKernelEx", |call| {
        let ExtendedConfig { grid, block, dynamic_shared_bytes, stream, attribute_count, .. } =
            config.get()?;
        if attribute_count != 0 {
            return Err(call.misuse(CudaError::NotSupported, "launch attributes are not emulated"));
        }
        let config = LaunchConfig { grid, block, dynamic_shared_bytes };
        launch(call, function, config, stream, parameters, extra)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchCooperativeKernel(
    _function: Handle,
    _grid_x: u32,
    _grid_y: u32,
    _grid_z: u32,
    _block_x: u32,
    _block_y: u32,
    _block_z: u32,
    _dynamic_shared_bytes: u32,
    _stream: Handle,
    _parameters: Out<Host>,
) -> CUresult {
    entry("cuLaunchCooperativeKernel", |call| {
        Err(call.misuse(
            CudaError::NotSupported,
            "cooperative launches are not emulated: blocks run one after another",
        ))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(stream: Handle, function: Option<HostFunction>, data: Host) -> CUresult {
    entry("cuLaunchHostFunc", |call| {
        let function = function.ok_or(CudaError::InvalidValue)?;
        Stream::by_handle(call, stream)?.submit(call, Work::Call { function, data })
    })
}
