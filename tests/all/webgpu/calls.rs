//! Buffers, uploads, dispatches and submissions of each call, as the backend counts them.

use longseq::prelude::*;
use longseq::{AnyBackend, Wgpu};
use longseq_check::device::webgpu::{device, options};

use crate::calls::assert_calls;

/// In the order of `Wgpu::take_tally`.
const COLUMNS: [&str; 6] = ["buffers", "uploads", "dispatches", "copies", "clears", "submissions"];

#[test]
fn ask_for_as_much_as_is_recorded() {
    let Some(gpu) = device() else { return };
    if !gpu.device().contains("llvmpipe") || !gpu.uses_subgroups() {
        return eprintln!("skipped: what is recorded are counts on llvmpipe with subgroups");
    }
    // A device of its own: others count there, too.
    let gpu = Wgpu::with_options(&options()).expect("the same adapter");
    assert_calls(&AnyBackend::from(gpu.clone()), "calls-wgpu.md", &COLUMNS, &mut || {
        gpu.flush();
        gpu.take_tally().map(|count| count as usize).to_vec()
    });
}
