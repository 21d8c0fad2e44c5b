//! Orders of scores that are hard for a search, and numbers at the limits.

use longseq::prelude::*;
use longseq::{Decoupled, Error, Jagged, Result, Search, SearchInputs};

use super::{DecoupledCase, Scores};
use crate::case::{Rules, assert_check};
use crate::data::Data;
use crate::lookup::{Owned, Stored, upload_all, views};

fn given(scores: Scores, length: usize, top_k: usize) -> DecoupledCase {
    let (histories, targets) = (vec![length, length / 3], vec![2, 1]);
    let (representation_widths, attention_widths, table_rows) = (vec![4], vec![1], vec![length + 1]);
    let scores = Some(scores);
    DecoupledCase {
        scores,
        top_k,
        histories,
        targets,
        table_rows,
        attention_widths,
        representation_widths,
        ..Default::default()
    }
}

/// A `K` beyond a backend's limit is an error that says so, not one of the memory for the result.
pub(super) fn names_the_limit_before_it_allocates<B: Backend>(backend: &B, _: Rules) {
    let owned = [Owned { rows: 2, width: 1, data: Stored::F32(vec![1.0; 2].into()) }];
    let tables = upload_all(backend, &owned).expect("an upload");
    let tables = views(backend, &tables);
    let ids = backend.upload(&[0u32, 1]).expect("an upload");
    let lengths = |length| Jagged::from_lengths(&[length]).expect("a length");
    let batch = backend.batch(&lengths(2), &lengths(2)).expect("a batch");
    let search = |top_k: usize| {
        let op = Decoupled::new([1.0]).with_top_k(Some(top_k));
        let inputs = SearchInputs::new(&tables, backend.view(&ids), backend.view(&ids));
        backend.decoupled_search(&op, &batch, inputs).map(|_| ())
    };
    let is_limit = |result: &Result<()>| matches!(result, Err(Error::Limit { argument: "top_k", .. }));
    let all = search(1 << 40);
    assert!(all.is_err(), "8 TiB");
    assert_eq!(is_limit(&search(Search::MAX_TOP_K + 1)), is_limit(&all), "{all:?}");
    search(Search::MAX_TOP_K).expect("a valid call");
}

/// Scores that replace the worst kept one at every step, never, or in runs.
pub(super) fn finds_the_best_in_any_order<B: Backend>(backend: &B, rules: Rules) {
    let orders = [
        Scores::Falling,
        Scores::Blocks,
        Scores::OrganPipe,
        Scores::Rising,
        Scores::All(0.5),
        Scores::Alternate(1.0),
    ];
    for (length, top_k) in [(70, 10), (769, 577), (1100, 1024), (2600, 2000)] {
        for scores in orders {
            assert_check(&given(scores, length, top_k), backend, rules);
        }
    }
    let large = [(3000, 64), (10_000, 577), (10_000, 1024), (20_000, Search::MAX_TOP_K)];
    for (length, top_k) in large.into_iter().filter(|_| !rules.slow) {
        for scores in &orders[..2] {
            assert_check(&given(*scores, length, top_k), backend, rules);
        }
    }
}

/// Only `-∞` removes: a finite score counts, whatever it is. Where all are `-∞`, the result is zeros.
pub(super) fn takes_scores_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    let length = if rules.slow { 700 } else { 2000 };
    for (length, top_k) in [(7, 3), (40, 64), (300, 20), (length, 500)] {
        for scores in [
            Scores::All(f32::MIN),
            Scores::All(-3e38),
            Scores::All(3e38),
            Scores::All(f32::MAX),
            Scores::All(f32::NEG_INFINITY),
            Scores::All(f32::NAN),
            Scores::Some(f32::MIN),
            Scores::Some(f32::NEG_INFINITY),
            Scores::Some(f32::NAN),
            Scores::Alternate(3e38),
        ] {
            assert_check(&given(scores, length, top_k), backend, rules);
        }
    }
    for scores in [Scores::All(f32::MIN), Scores::All(f32::NEG_INFINITY), Scores::Some(f32::NEG_INFINITY)] {
        let (multiply_target, targets) = (true, vec![20, 1]);
        assert_check(&DecoupledCase { multiply_target, targets, ..given(scores, 300, 20) }, backend, rules);
    }
}

/// The result is at most the largest number of a representation, however large that is.
pub(super) fn weighs_rows_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    let length = if rules.slow { 700 } else { 2000 };
    for (length, top_k) in [(7, 3), (300, 20), (length, 500)] {
        for representation_data in [Data::Huge, Data::Same(f32::MAX), Data::Same(f32::MIN)] {
            for (scores, width) in
                [(Scores::All(0.5), 4), (Scores::Falling, 64), (Scores::Some(f32::MIN), 20)]
            {
                let representation_data = Some(representation_data);
                let representation_widths = vec![width];
                let case = DecoupledCase {
                    representation_data,
                    representation_widths,
                    ..given(scores, length, top_k)
                };
                assert_check(&case, backend, rules);
            }
        }
    }
}

/// A row that is not finite counts wherever its score is not `-∞`: with a weight of 0 too.
pub(super) fn counts_rows_without_weight<B: Backend>(backend: &B, rules: Rules) {
    let length = if rules.slow { 700 } else { 2000 };
    for (length, top_k) in [(7, 7), (40, 64), (length, 1000)] {
        for scores in
            [Scores::Some(-1e4), Scores::Some(f32::MIN), Scores::Some(f32::NEG_INFINITY), Scores::Falling]
        {
            for held in [f32::NAN, f32::INFINITY] {
                // The rows of the behaviours at 0, 5, 7, 12, …
                let case = DecoupledCase { held: Some(held), ..given(scores, length, top_k) };
                assert_check(&case, backend, rules);
            }
        }
    }
}
