//! Attention over a selection from tables in several groups: more rows than are gathered at a time.

use longseq_check::device::assert_check;
use longseq_check::device::webgpu::device;
use longseq_check::sample;
use longseq_check::selected::{Choice, KeysFrom, SelectedCase, SelectedTableBackwardCase, SelectedTableCase};
use longseq_check::target_attention::Bias;

#[test]
fn candidates_are_computed_in_groups() {
    let Some(gpu) = device() else { return };
    for keys in [KeysFrom::Tables, KeysFrom::Rows].into_iter().take(if sample::is_small() { 1 } else { 2 }) {
        let forward = SelectedCase {
            width: 64,
            value_width: Some(64),
            histories: vec![9, 2100, 300, 2100, 1500],
            targets: vec![3, 70, 0, 60, 10],
            top_k: 2048,
            choice: Choice::Oldest,
            bias: Bias::Normal,
            ..Default::default()
        };
        let case = SelectedTableCase { forward, keys, ..Default::default() };
        assert_check(&case, &gpu);
        assert_check(&SelectedTableBackwardCase { forward: case, ..Default::default() }, &gpu);
    }
}
