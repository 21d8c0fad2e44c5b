//! Launches, copies, allocations and waits of each call, counted by the emulator.

use longseq::{AnyBackend, Cuda};
use longseq_check::device::cuda::session;

use crate::calls::assert_calls;

/// Columns, and the driver's functions that count there, by what their names begin with. Memory of the host is none of `allocations`.
const COLUMNS: [(&str, &[&str]); 8] = [
    ("launches", &["cuLaunchKernel"]),
    ("to device", &["cuMemcpyHtoD"]),
    ("to host", &["cuMemcpyDtoH"]),
    ("on device", &["cuMemcpyDtoD"]),
    ("fills", &["cuMemset"]),
    ("allocations", &["cuMemAlloc_", "cuMemAllocAsync", "cuMemAllocFromPoolAsync"]),
    ("page-locked", &["cuMemAllocHost", "cuMemHostAlloc"]),
    ("waits", &["cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize"]),
];

#[test]
fn ask_for_as_much_as_is_recorded() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let gpu = Cuda::new(0).expect("a device");
    let columns = COLUMNS.map(|(name, _)| name);
    assert_calls(&AnyBackend::from(gpu), "calls-cuda.md", &columns, &mut || {
        let calls = emulator.take_calls();
        let counted = |functions: &[&str]| {
            calls.iter().filter(|name| functions.iter().any(|function| name.starts_with(function))).count()
        };
        COLUMNS.map(|(_, functions)| counted(functions)).to_vec()
    });
}
