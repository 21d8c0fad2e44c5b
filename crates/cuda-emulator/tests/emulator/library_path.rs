//! Programs that know nothing of the emulator find it as `libcuda.so` through `LD_LIBRARY_PATH`. The test binary runs
//! itself again as such a program.

use std::path::{Path, PathBuf};
use std::process::Command;

use cuda_emulator::functions::functions;
use cuda_emulator::{Device, Emulator};
use cudarc::driver::{CudaContext, sys};

#[path = "../../src/loader/elf.rs"]
#[allow(dead_code, reason = "the test reads names only")]
mod elf;

use elf::dynamic_symbols;

/// A directory for one test.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("library_path_{name}"));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Set in the environment of the program that the test starts.
const AS_PROGRAM: &str = "LIBRARY_PATH_TEST_AS_PROGRAM";

/// The program that finds the emulator through `LD_LIBRARY_PATH`; as a test it does nothing.
#[test]
fn program() {
    if std::env::var_os(AS_PROGRAM).is_none() {
        return;
    }
    let context = CudaContext::new(0).unwrap();
    let mut version = 0;
    // SAFETY: the output pointer is valid.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
    println!("device: {}, driver {version}", context.name().unwrap());

    // Whether work is done when the call that submits it returns.
    let stream = context.new_stream().unwrap();
    let zeros = stream.alloc_zeros::<u8>(8).unwrap();
    let zeros = (zeros, stream.alloc_zeros::<u8>(8).unwrap());
    println!("done at once: {}", stream.record_event(None).unwrap().is_complete());
    drop(zeros);

    // The handle is available in such a program as well: it uses the library that is already loaded.
    let emulator = Emulator::install(Device::sm_90());
    println!("handle: {:?}", emulator.map(|_| ()));
}

#[test]
fn programs_find_the_library_by_ld_library_path() {
    let directory = directory("programs");
    Emulator::installer(Device::sm_80()).write_library(&directory).unwrap();
    let run = |variables: &[(&str, &str)]| {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["library_path::program", "--exact", "--nocapture"]).envs(variables.iter().copied());
        program.env("LD_LIBRARY_PATH", &directory).env(AS_PROGRAM, "1");
        let output = program.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("handle: Ok(())"), "{text}");
        text
    };
    let text = run(&[]);
    assert!(text.contains("device: CUDA emulator, sm_80 (as A100-SXM4-80GB), driver 12040"), "{text}");
    let text = run(&[("CUDA_EMULATOR_DEVICE", "sm_75"), ("CUDA_EMULATOR_DRIVER", "11.8")]);
    assert!(text.contains("device: CUDA emulator, sm_75 (as T4), driver 11080"), "{text}");
    assert!(text.contains("done at once: true"), "{text}");
    let text = run(&[("CUDA_EMULATOR_MODE", "streams-late,pageable-late")]);
    assert!(text.contains("done at once: false"), "{text}");
}

#[test]
fn the_library_exports_the_listed_functions_and_no_more() {
    let path = Emulator::installer(Device::sm_80()).write_library(&directory("exports")).unwrap();
    let library = std::fs::read(path).unwrap();
    let mut exported: Vec<&str> = dynamic_symbols(&library)
        .unwrap()
        .into_iter()
        .filter(|symbol| symbol.defined)
        .map(|symbol| symbol.name)
        .filter(|name| name.starts_with("cu") && !name.starts_with("cuda_emulator_"))
        .collect();
    let mut listed: Vec<&str> = functions().map(|(name, _)| name).collect();
    exported.sort_unstable();
    listed.sort_unstable();
    assert_eq!(exported, listed);
}
