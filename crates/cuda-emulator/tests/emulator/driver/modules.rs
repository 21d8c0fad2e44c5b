use std::ffi::{CString, c_void};

use cuda_emulator::{CudaVersion, Device, Emulator};
use cudarc::driver::{CudaContext, sys};
use cudarc::nvrtc::Ptx;

use super::support::{CUresult, PTX, emulator, kernel, stream};

fn load_error(ptx: &str) -> CUresult {
    CudaContext::new(0).unwrap().load_module(Ptx::from_src(ptx)).unwrap_err().0
}

#[test]
fn functions_are_found_by_name() {
    let (emulator, context, _stream) = stream();
    let module = context.load_module(Ptx::from_src(PTX)).unwrap();
    let (first, again) = (module.load_function("saxpy").unwrap(), module.load_function("saxpy").unwrap());
    assert_eq!(first.cu_function(), again.cu_function());
    let error = module.load_function("daxpy").unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_NOT_FOUND);
    assert_eq!(emulator.misuses()[0].message, "the module has no kernel daxpy");
    assert_eq!(emulator.live().modules, 1);
    drop((first, again, module));
    assert_eq!(emulator.live().modules, 0);
}

#[test]
fn variables_are_found_by_name_and_initialised() {
    let (emulator, context, stream) = stream();
    let module = context.load_module(Ptx::from_src(PTX)).unwrap();
    let table = module.get_global("table", &stream).unwrap();
    assert_eq!(stream.clone_dtoh(&table).unwrap(), [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(module.get_global("chair", &stream).unwrap_err().0, CUresult::CUDA_ERROR_NOT_FOUND);
    // They belong to the module, not to the program: they are not leaks and must not be freed.
    assert_eq!(emulator.live_allocations(), []);
}

#[test]
fn attributes_reflect_the_declarations() {
    let (emulator, context, _stream) = stream();
    let function = kernel(&context, "shared_memory");
    assert_eq!(function.shared_size_bytes().unwrap(), 1024);
    assert_eq!(function.max_threads_per_block().unwrap(), 128);
    assert_eq!(function.ptx_version().unwrap(), 70);
    assert_eq!(function.binary_version().unwrap(), 80);
    assert_eq!(function.local_size_bytes().unwrap(), 0);
    emulator.set_registers("shared_memory", 77);
    assert_eq!(function.num_regs().unwrap(), 77);
    let (mut offset, mut bytes) = (0, 0);
    let status = unsafe { sys::cuFuncGetParamInfo(function.cu_function(), 1, &mut offset, &mut bytes) };
    assert_eq!((status, offset, bytes), (CUresult::CUDA_SUCCESS, 24, 1));
}

#[test]
fn occupancy_follows_registers_and_shared_memory() {
    let (emulator, context, _stream) = stream();
    let function = kernel(&context, "saxpy");
    let blocks = |threads, shared| {
        function.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None).unwrap()
    };
    assert_eq!(blocks(256, 0), 8);
    assert_eq!(blocks(256, 46 * 1024), 3);
    emulator.set_registers("saxpy", 128);
    assert_eq!(blocks(256, 0), 2);
    extern "C" fn no_shared(_threads: i32) -> usize {
        0
    }
    assert_eq!(function.occupancy_max_potential_block_size(no_shared, 0, 0, None).unwrap(), (108, 512));
    assert_eq!(function.occupancy_available_dynamic_smem_per_block(2, 256).unwrap(), 81 * 1024);
}

#[test]
fn dynamic_shared_memory_above_48_kib_requires_opting_in() {
    let (_emulator, context, _stream) = stream();
    let function = kernel(&context, "shared_memory");
    use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as LIMIT;
    assert_eq!(function.get_attribute(LIMIT).unwrap(), 47 * 1024);
    function.set_attribute(LIMIT, 162 * 1024).unwrap();
    assert_eq!(function.get_attribute(LIMIT).unwrap(), 162 * 1024);
    let error = function.set_attribute(LIMIT, 162 * 1024 + 1).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn unknown_instructions_are_load_errors_with_their_line() {
    let emulator = emulator();
    let ptx = PTX.replace("mul.wide.u32 %rd5", "frobnicate.u32 %rd5");
    assert_eq!(load_error(&ptx), CUresult::CUDA_ERROR_INVALID_PTX);
    let line = 1 + ptx.lines().position(|line| line.contains("frobnicate")).unwrap();
    let message = &emulator.misuses()[0].message;
    assert!(message.contains(&format!("line {line}")) && message.contains("frobnicate"), "{message}");
}

#[test]
fn text_for_newer_drivers_or_devices_does_not_load() {
    let _emulator = Emulator::install(Device::sm_80().with_driver_version(CudaVersion::new(11, 4))).unwrap();
    let newer = PTX.replace(".version 7.0", ".version 8.0");
    assert_eq!(load_error(&newer), CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    let target = PTX.replace("sm_80", "sm_90");
    assert_eq!(load_error(&target), CUresult::CUDA_ERROR_INVALID_PTX);
    // Text for older devices does load.
    CudaContext::new(0).unwrap().load_module(Ptx::from_src(PTX.replace("sm_80", "sm_75"))).unwrap();
}

#[test]
fn compiled_code_is_distinguished_from_text() {
    let _emulator = emulator();
    let _context = CudaContext::new(0).unwrap();
    let mut module = std::ptr::null_mut();
    let elf = c"\x7fELF\x02\x01\x01";
    let loaded = unsafe { sys::cuModuleLoadData(&mut module, elf.as_ptr().cast()) };
    assert_eq!(loaded, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(load_error("this is prose"), CUresult::CUDA_ERROR_INVALID_PTX);
}

#[test]
fn files_load_too() {
    let (_emulator, context, _stream) = stream();
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join("kernels.ptx");
    std::fs::write(&path, PTX).unwrap();
    context.load_module(Ptx::from_file(&path)).unwrap().load_function("saxpy").unwrap();
    let error = context.load_module(Ptx::from_file(directory.join("none.ptx"))).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_FILE_NOT_FOUND);
}

/// Calls `cuModuleLoadDataEx` with a buffer for the error log; returns the result and the log.
fn load_with_log(ptx: &str, room: usize) -> (CUresult, String) {
    let text = CString::new(ptx).unwrap();
    let mut log = vec![b'?'; room];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        sys::CUjit_option::CU_JIT_OPTIMIZATION_LEVEL,
    ];
    let mut values: [*mut c_void; 3] = [
        log.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(room),
        std::ptr::without_provenance_mut(4),
    ];
    let mut module = std::ptr::null_mut();
    let image = text.as_ptr().cast();
    let answer =
        unsafe { sys::cuModuleLoadDataEx(&mut module, image, 3, options.as_mut_ptr(), values.as_mut_ptr()) };
    if answer == CUresult::CUDA_SUCCESS {
        unsafe { sys::cuModuleUnload(module) }.result().unwrap();
    }
    log.truncate(values[1].addr());
    (answer, String::from_utf8(log).unwrap())
}

#[test]
fn the_error_log_of_the_compiler_names_the_line() {
    let _emulator = emulator();
    let _context = CudaContext::new(0).unwrap();
    assert_eq!(load_with_log(PTX, 1000), (CUresult::CUDA_SUCCESS, String::new()));
    let wrong = PTX.replace("fma.rn.f32", "fma.zz.f32");
    let (answer, log) = load_with_log(&wrong, 1000);
    assert_eq!(answer, CUresult::CUDA_ERROR_INVALID_PTX);
    let line = 1 + wrong.lines().position(|line| line.contains("fma.zz")).unwrap();
    assert!(log.contains(&format!("line {line}")) && log.ends_with('\0'), "{log}");
    // The log is truncated to a small buffer.
    let (_, short) = load_with_log(&wrong, 8);
    assert_eq!(short, format!("{}\0", &log[..7]));
}

#[test]
fn a_function_of_an_unloaded_module_is_an_invalid_handle() {
    let (_emulator, context, _stream) = stream();
    let module = context.load_module(Ptx::from_src(PTX)).unwrap();
    let function = module.load_function("saxpy").unwrap().cu_function();
    drop(module);
    let mut value = 0;
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS;
    let status = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, function) };
    assert_eq!(status, CUresult::CUDA_ERROR_INVALID_HANDLE);
}
