//! Memory and batches of another handle, whose stream nothing would order with this one's: every call refuses them, whichever argument
//! they are. (Another device's are on another stream, too.)

use longseq::*;
use longseq_check::device::TestDevice;
use longseq_check::device::cuda::session;
use longseq_check::guard::with_bands;
use longseq_check::sample;
use longseq_check::support::small_cases;

/// One after the other of the buffers, jagged rows and batches of a case is another handle's: the call that it is for says so, and
/// enqueues nothing.
#[test]
fn memory_of_another_stream_is_an_error_of_every_operation() {
    let Some(emulator) = session() else { return };
    let [gpu, other] = [(); 2].map(|()| Cuda::new(0).expect("a device"));
    let (mut refused, mut taken) = (0, Vec::new());
    // Every call at least once, rows of other storage than `f32` in a sample.
    let is_run = |case: &longseq_check::AnyCase| {
        ["f32", "u32"].contains(&case.storage()) || sample::has(&("another stream", format!("{case:?}")))
    };
    for case in small_cases().into_iter().filter(is_run) {
        let expected = gpu.run_case(&case).expect("a valid case");
        for nth in 1.. {
            let gpu = gpu.elsewhere(&other, nth);
            // What a case does not ask for has no elements without bands.
            let ran = with_bands(0, || gpu.run_case(&case));
            if !gpu.is_elsewhere() {
                ran.expect("a valid case");
                break;
            }
            // What a call does not read may be anywhere.
            let is_right = ran.as_ref().is_ok_and(|output| *output == expected);
            match ran.as_ref().err().and_then(|failure| failure.error()) {
                Some(Error::Unsupported { operation, what, .. })
                    if *operation != "download" && what == "memory of another stream" =>
                {
                    refused += 1;
                }
                _ if is_right => {}
                error => taken.push(format!("number {nth} of {case:?}: {error:?}")),
            }
        }
    }
    assert!(taken.is_empty(), "taken:\n{}", taken.join("\n"));
    assert!(refused > 200, "{refused} refused");
    drop((gpu, other));
    assert_eq!(emulator.take_findings(), []);
}
