//! Numbers at the limits: scores near the limits of `f32`, NaN and infinity, behaviours near the limits.

use longseq::prelude::*;
use longseq::{DType, DinPooling};

use super::{DinCase, Kind, Place};
use crate::case::{Rules, assert_check};
use crate::data::Data;

/// Scores that are all the output's bias.
fn equal_scores(output_bias: f32) -> DinCase {
    DinCase {
        weights: 0.0,
        output_bias: Some(output_bias),
        pooling: DinPooling::Softmax,
        ..Default::default()
    }
}

/// Only `-∞` removes: equal scores give equal weights, whatever they are.
pub(super) fn takes_scores_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    for output_bias in [f32::MIN, -3e38, -2.5e38, 3e38, f32::MAX, f32::NEG_INFINITY] {
        let (histories, targets, hidden) = (vec![0, 40, 130], vec![2, 3, 9], vec![8]);
        assert_check(&DinCase { histories, targets, hidden, ..equal_scores(output_bias) }, backend, rules);
        let (histories, targets, hidden) = (vec![3, 1100], vec![1, 2], vec![5, 3]);
        let (dtype, width) = (DType::F16, 8);
        let case = DinCase { dtype, width, hidden, histories, targets, ..equal_scores(output_bias) };
        assert_check(&case, backend, rules);
    }
}

/// A number that is not finite reaches every candidate that it concerns, and no other.
pub(super) fn keeps_nan_to_its_candidates<B: Backend>(backend: &B, rules: Rules) {
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        for activation in [Kind::Relu, Kind::Sigmoid, Kind::Prelu, Kind::Dice] {
            for place in [Place::Target, Place::History, Place::Weight, Place::Bias] {
                for hidden in [vec![12], vec![20, 12]] {
                    let puts = vec![(place, 4, f32::NAN)];
                    let (histories, targets) = (vec![3, 40, 9], vec![3, 4, 1]);
                    let case = DinCase {
                        puts,
                        pooling,
                        activation,
                        hidden,
                        histories,
                        targets,
                        ..Default::default()
                    };
                    assert_check(&case, backend, rules);
                }
            }
        }
    }
    // A history of several pieces, each with a NaN, and only one of them.
    let length = if rules.slow { 700 } else { 3000 };
    for (place, pooling) in [Place::Target, Place::History].into_iter().zip([DinPooling::Softmax; 2]) {
        let (puts, histories, targets) = (vec![(place, 4, f32::NAN)], vec![3, length], vec![3, 4]);
        let case = DinCase { puts, pooling, hidden: vec![12], histories, targets, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

/// With softmax, the result is at most the largest number of the history, however large that is. Candidates are small, as a
/// product of a candidate's and a behaviour's numbers may not exceed `f32`.
pub(super) fn weighs_behaviours_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    let length = if rules.slow { 700 } else { 2000 };
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for history_data in [Data::Huge, Data::Same(crate::data::largest_of(dtype))] {
            for (histories, targets) in [(vec![1, 40, 2], vec![2, 3, 9]), (vec![3, length], vec![1, 2])] {
                let (data, history_data, hidden, width) = (Data::Zeros, Some(history_data), vec![8], 8);
                let case = DinCase {
                    dtype,
                    data,
                    history_data,
                    hidden,
                    width,
                    histories,
                    targets,
                    ..equal_scores(0.5)
                };
                assert_check(&case, backend, rules);
            }
        }
    }
}
