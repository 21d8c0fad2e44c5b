//! Memory beyond inputs and outputs stays small, however long a history is.

use longseq::Cpu;
use longseq_check::device::TestDevice;
use longseq_check::named::Named;
use longseq_check::target_attention::AttentionCase;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The only test of this binary: others would allocate at the same time.
#[test]
fn a_million_behaviours_need_less_than_64_mib() {
    const MIB: usize = 1 << 20;
    let case = AttentionCase {
        histories: vec![1_000_000],
        targets: vec![100],
        width: 64,
        value_width: None,
        ..Default::default()
    };
    let named = Named { name: "memory", operation: "target_attention", case: (&case).into() };
    let mut beyond = None;
    Cpu::new()
        .measure_case(&named, &mut |call| {
            let before = ALLOCATOR.current_usage();
            ALLOCATOR.reset_peak_usage();
            call()?;
            beyond = Some(ALLOCATOR.peak_usage() - before);
            Ok(())
        })
        .expect("a valid call");
    let beyond = beyond.expect("the call was made");
    assert!(beyond <= 64 * MIB, "{beyond} bytes beyond inputs and outputs");
}
