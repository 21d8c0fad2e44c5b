//! Gradients of decoupled embeddings beyond what a search keeps, and of batches that are computed in several chunks.

use longseq::Error;
use longseq::prelude::*;

use super::{DecoupledBackwardCase, DecoupledCase, Scores};
use crate::case::{Case, Rules, assert_check};
use crate::data::Data;
use crate::lookup::Form;
use crate::sample;

/// A selection may hold more than a search finds on a GPU ([`Search::MAX_TOP_K`]): it is the caller's.
pub(super) fn takes_more_kept_than_a_search_finds<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets, table_rows) = (vec![1300, 20], vec![1, 2], vec![1301]);
    let (attention_widths, representation_widths) = (vec![1], vec![6]);
    let forward = DecoupledCase {
        histories,
        targets,
        table_rows,
        attention_widths,
        representation_widths,
        top_k: 1200,
        multiply_target: true,
        ..Default::default()
    };
    assert_check(&DecoupledBackwardCase { forward, given: true, ..Default::default() }, backend, rules);
}

/// Behaviours that candidates keep or not, where GPU backends hold 512 rows of 8192 numbers at a time.
pub(super) fn ignores_removed_behaviours_in_several_chunks<B: Backend>(backend: &B, rules: Rules) {
    if rules.slow || sample::is_small() && rules.sampled {
        return;
    }
    let (length, small) = (700, sample::is_small());
    let scores = [Scores::Some(f32::NEG_INFINITY), Scores::All(f32::NEG_INFINITY)];
    for scores in scores.into_iter().take(if small { 1 } else { 2 }) {
        let forward = DecoupledCase {
            scores: Some(scores),
            histories: vec![length, 400],
            targets: vec![2, 1],
            table_rows: vec![length + 1],
            attention_widths: vec![1],
            representation_widths: vec![8191],
            top_k: 2 * length,
            ..Default::default()
        };
        assert_check(&DecoupledBackwardCase { forward, given: false, ..Default::default() }, backend, rules);
    }
}

/// Means of rows near the largest numbers are in range, and so are the candidates' own gradients.
pub(super) fn weighs_rows_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    for case in rows_near_the_limits() {
        if case.forward.histories[0] < 1000 || !rules.slow {
            assert_check(&case, backend, rules);
        }
    }
}

/// Short and long histories of rows near the largest numbers, searched and whole.
pub fn rows_near_the_limits() -> Vec<DecoupledBackwardCase> {
    let mut cases = Vec::new();
    for (length, top_k) in [(7, 3), (300, 20), (700, 500), (2000, 1000)] {
        for data in [Data::Huge, Data::Same(f32::MAX), Data::Same(f32::MIN)] {
            let forward = DecoupledCase {
                scores: Some(if length == 300 { Scores::Falling } else { Scores::All(0.5) }),
                representation_data: Some(data),
                histories: vec![length, length / 3],
                targets: vec![2, 1],
                table_rows: vec![length + 1],
                attention_widths: vec![1],
                representation_widths: vec![20],
                top_k,
                multiply_target: true,
                ..Default::default()
            };
            // Gradients of scores would be sums of products of two such numbers.
            let forms = vec![Form::None, Form::Sparse];
            let grad = Data::Flat(1e-36);
            cases.push(DecoupledBackwardCase { forward, grad, forms, scores: false, ..Default::default() });
        }
    }
    cases
}

/// `Wgpu` computes scores of rows of up to 9000 numbers over a whole history: it says so for wider ones, others are right.
pub(super) fn names_the_widest_rows<B: Backend>(backend: &B, rules: Rules) {
    let forward = DecoupledCase {
        histories: vec![3],
        targets: vec![1],
        table_rows: vec![4],
        attention_widths: vec![9100],
        representation_widths: vec![2],
        top_k: 3,
        ..Default::default()
    };
    let case = DecoupledBackwardCase { forward, given: false, ..Default::default() };
    match case.run(backend).map_err(|failure| failure.error().cloned()) {
        Err(Some(Error::Limit { operation: "decoupled_attend_backward", argument: "tables", .. })) => {}
        Err(error) => panic!("{error:?}"),
        Ok(_) => assert_check(&case, backend, rules),
    }
}
