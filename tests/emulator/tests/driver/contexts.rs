use cudarc::driver::{CudaContext, sys};

use crate::support::emulator;

#[test]
fn cudarc_finds_the_emulator() {
    let _emulator = emulator();
    // SAFETY: looking for the library loads it at most.
    assert!(unsafe { sys::is_culib_present() });
    let context = CudaContext::new(0).unwrap();
    assert_eq!(context.compute_capability().unwrap(), (8, 0));
    assert_eq!(context.name().unwrap(), "CUDA emulator, sm_80 (as A100-SXM4-80GB)");
}
