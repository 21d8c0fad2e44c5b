//! Gradients of DIN for users with many candidates, and of batches of many parts.

use longseq::DinPooling;
use longseq::prelude::*;

use super::statistics::StatisticsCase;
use super::{DinBackwardCase, DinCase};
use crate::case::{Rules, assert_check};

/// GPU backends give a piece 1024 candidates at most, and a part about 200 times 16 behaviours of rows of 1200 numbers: here are more
/// candidates than a piece takes, with narrow rows, and six parts.
pub(super) fn matches_reference_with_many_pieces_and_parts<B: Backend>(backend: &B, rules: Rules) {
    // Not the CPU backend: emulated, it would take minutes for nothing.
    if rules == Rules::CPU && rules.slow {
        return;
    }
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        let (histories, targets) = (vec![3, 20], vec![1100, 1]);
        let forward =
            DinCase { pooling, width: 4, hidden: vec![3], histories, targets, ..Default::default() };
        assert_check(&DinBackwardCase { forward, ..Default::default() }, backend, rules);
    }
    let (histories, targets) = (vec![2, 5], vec![1, 1030]);
    let (pooling, hidden) = (DinPooling::Softmax, vec![2]);
    let forward = DinCase { pooling, width: 1200, hidden, histories, targets, ..Default::default() };
    assert_check(&DinBackwardCase { forward, ..Default::default() }, backend, rules);
    if rules.slow {
        return;
    }
    // Statistics of more parts than are merged in a chain.
    let (histories, targets) = (vec![1, 2], vec![12_000, 3000]);
    let forward = DinCase { width: 1200, hidden: vec![2], histories, targets, ..Default::default() };
    assert_check(&StatisticsCase { forward }, backend, rules);
}
