//! Attention over a selection from tables, and its gradients, on every backend that has them: a grid of cases, random cases, calls that
//! are hard or refused, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::tables_hostile::*;
use super::tests::{MIXES, any_case, shape};
use super::{Choice, KeysFrom, Mix, SelectedCase, SelectedTableBackwardCase, SelectedTableCase};
use crate::case::{Rules, assert_check, check};
use crate::data::{self, Data, Ids};
use crate::device::cpu;
use crate::lookup::{Form, Storage};
use crate::mutant::{Fault, Mutant};
use crate::registry::list_tests;
use crate::target_attention::Bias;

list_tests!("selected_tables":
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_from_every_storage,
    matches_reference_with_one_to_four_features,
    matches_reference_with_every_mix,
    matches_reference_with_grouped_heads,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_with_ids_outside,
    matches_reference_on_hot_rows,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    keeps_nan_to_its_candidate,
    ignores_rows_that_belong_to_nobody,
    aggregates_as_decoupled_embeddings_do,
    ignores_rows_of_removed_behaviours,
    finds_positions_counts_and_ids_outside,
    takes_batches_of_nobody,
    refuses_what_does_not_fit,
);

pub(super) const EVERY: [KeysFrom; 3] = [KeysFrom::Rows, KeysFrom::Tables, KeysFrom::Values];

/// A case whose values are as wide as its keys.
pub(super) fn of(forward: SelectedCase, keys: KeysFrom) -> SelectedTableCase {
    let value_width = if keys == KeysFrom::Values { None } else { forward.value_width };
    SelectedTableCase { forward: SelectedCase { value_width, ..forward }, keys, ..Default::default() }
}

fn gradients(forward: SelectedTableCase) -> SelectedTableBackwardCase {
    SelectedTableBackwardCase { forward, ..Default::default() }
}

/// The forward pass and the backward pass.
#[track_caller]
pub(super) fn assert_both<B: Backend>(case: SelectedTableCase, backend: &B, rules: Rules) {
    assert_check(&case, backend, rules);
    assert_check(&gradients(case), backend, rules);
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 65, 255, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for keys in EVERY {
        for case in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
            assert_both(of(case, keys), backend, rules);
        }
    }
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for keys in EVERY {
        for (width, value_width) in [(2, 2), (3, 5), (16, 64), (33, 31), (80, 48), (300, 300)] {
            let case = SelectedCase { width, value_width: Some(value_width), ..shape(&[70, 3], &[4, 18]) };
            assert_both(of(case, keys), backend, rules);
        }
    }
}

fn matches_reference_from_every_storage<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            for keys in EVERY {
                let forward =
                    SelectedCase { dtype, heads: 2, top_k: 40, ..shape(&[300, 0, 17], &[5, 2, 20]) };
                let case = SelectedTableCase { storage, table_rows: vec![90, 30], ..of(forward, keys) };
                assert_check(&case, backend, rules);
                for narrow in [false, true] {
                    let case = SelectedTableBackwardCase { narrow, ..gradients(case.clone()) };
                    assert_check(&case, backend, rules);
                }
            }
        }
    }
}

fn matches_reference_with_one_to_four_features<B: Backend>(backend: &B, rules: Rules) {
    for features in 1..=4 {
        for keys in EVERY {
            let table_rows = vec![50, 7, 1, 300][..features].to_vec();
            let forward =
                SelectedCase { heads: 3, kv_heads: 3, width: 5, value_width: Some(4), ..shape(&[90], &[7]) };
            assert_both(SelectedTableCase { table_rows, ..of(forward, keys) }, backend, rules);
        }
    }
}

fn matches_reference_with_every_mix<B: Backend>(backend: &B, rules: Rules) {
    for mix in MIXES {
        for keys in EVERY {
            for bias in [Bias::None, Bias::Mask] {
                let shape = shape(&[40, 0, 9], &[3, 2, 17]);
                let forward = SelectedCase { mix, bias, heads: 2, some_removed: true, ..shape };
                assert_both(of(forward, keys), backend, rules);
            }
        }
    }
}

fn matches_reference_with_grouped_heads<B: Backend>(backend: &B, rules: Rules) {
    for (heads, kv_heads) in [(2, 1), (2, 2), (4, 2), (6, 3), (8, 1)] {
        for keys in EVERY {
            let case =
                SelectedCase { heads, kv_heads, value_width: Some(12), ..shape(&[50, 0, 33], &[3, 1, 9]) };
            let case = SelectedTableBackwardCase { with_grad_lse: true, ..gradients(of(case, keys)) };
            assert_check(&case.forward, backend, rules);
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        for mix in MIXES {
            let case = SelectedCase { data, mix, ..shape(&[90, 2], &[3, 4]) };
            assert_both(of(case, KeysFrom::Tables), backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 16, 17, 64, 257, 1000] {
        for choice in [Choice::Some, Choice::Oldest, Choice::Same] {
            let shape = shape(&[300, 0, 1500], &[3, 1, 2]);
            let case = SelectedCase { top_k, choice, width: 8, value_width: Some(8), ..shape };
            assert_both(of(case, KeysFrom::Values), backend, rules);
        }
    }
}

fn matches_reference_with_ids_outside<B: Backend>(backend: &B, rules: Rules) {
    for keys in EVERY {
        let case = of(SelectedCase { heads: 2, ..shape(&[100, 0, 17], &[5, 2, 20]) }, keys);
        assert_both(SelectedTableCase { policy: IdPolicy::Zero, ..case }, backend, rules);
    }
}

/// Rows whose gradients come from hundreds of behaviours and thousands of candidates.
fn matches_reference_on_hot_rows<B: Backend>(backend: &B, rules: Rules) {
    for (length, candidates) in [(3, 700), (900, 300)] {
        for ids in [Ids::Hot, Ids::Last] {
            let forward = SelectedCase {
                top_k: 20,
                width: 8,
                value_width: Some(8),
                ..shape(&[9, length], &[2, candidates])
            };
            assert_both(SelectedTableCase { ids, ..of(forward, KeysFrom::Tables) }, backend, rules);
        }
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 100_000 };
    let forward = SelectedCase { top_k: 50, ..shape(&[20, long, 0, 5], &[2, 40, 1, 3]) };
    let table_rows = vec![100_000, 50];
    assert_both(SelectedTableCase { table_rows, ..of(forward, KeysFrom::Tables) }, backend, rules);
}

prop_compose! {
    fn any_table_case()(
        forward in any_case(),
        keys in prop::sample::select(EVERY.to_vec()),
        storage in prop::sample::select(Storage::ALL.to_vec()),
        table_rows in prop::collection::vec(1usize..90, 1..4),
        ids in prop::sample::select(vec![Ids::Skewed, Ids::Uniform, Ids::Last, Ids::Hot]),
        policy in prop::sample::select(vec![IdPolicy::Error, IdPolicy::Zero]),
    ) -> SelectedTableCase {
        let op = forward.op();
        // A table for each number, at most.
        let most = op.kv_heads * op.width.min(op.value_width);
        let table_rows = table_rows.into_iter().take(most).collect();
        let keys = if keys == KeysFrom::Values && op.width != op.value_width { KeysFrom::Tables } else { keys };
        SelectedTableCase { forward, keys, storage, table_rows, ids, policy }
    }
}

prop_compose! {
    fn any_backward_case()(
        forward in any_table_case(),
        asked in any::<[bool; 5]>(),
        forms in prop::sample::select(vec![
            [Form::Sparse; 2], [Form::Dense; 2], [Form::None, Form::Sparse], [Form::Dense, Form::None],
        ]),
        spare in 0usize..3,
        (narrow, with_grad_lse) in any::<(bool, bool)>(),
    ) -> SelectedTableBackwardCase {
        SelectedTableBackwardCase { forward, asked, forms, spare, narrow, with_grad_lse, nan: None }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_table_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
    proptest!(data::random_cases(64), |(case in any_backward_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Every subset of the gradients that are not tables', and every form of those.
fn writes_what_is_asked_for<B: Backend>(backend: &B, rules: Rules) {
    for keys in EVERY {
        let forward = of(SelectedCase { bias: Bias::Normal, ..shape(&[30, 9], &[3, 17]) }, keys);
        for subset in 0..32 {
            let asked = std::array::from_fn(|i| subset >> i & 1 == 1);
            let form = [Form::None, Form::Sparse][subset % 2];
            let case = SelectedTableBackwardCase { asked, forms: [form; 2], ..gradients(forward.clone()) };
            assert_check(&case, backend, rules);
        }
        for key_form in [Form::None, Form::Sparse, Form::Dense] {
            for value_form in [Form::None, Form::Sparse, Form::Dense] {
                let (asked, forms) = ([false; 5], [key_form, value_form]);
                let case = SelectedTableBackwardCase { asked, forms, spare: 3, ..gradients(forward.clone()) };
                assert_check(&case, backend, rules);
            }
        }
    }
}

fn keeps_nan_to_its_candidate<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for mix in MIXES {
        let plain = SelectedCase { mix, heads: 2, ..shape(&[40, 9, 30], &[3, 20, 2]) };
        let query = SelectedCase { nan: Some(4), ..plain.clone() };
        assert_check(&of(query, KeysFrom::Tables), backend, rules);
        let case = SelectedTableBackwardCase { nan: Some(4), ..gradients(of(plain, KeysFrom::Tables)) };
        assert_check(&case, backend, rules);
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let forward = SelectedCase { tail: 5, bias: Bias::Normal, heads: 2, ..shape(&[40, 9], &[3, 20]) };
    for keys in EVERY {
        assert_both(of(forward.clone(), keys), backend, rules);
    }
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let forward = SelectedCase {
        heads: 4,
        kv_heads: 2,
        bias: Bias::Normal,
        mix: Mix::All([0.5, 1.0, 1.0]),
        ..shape(&[60, 40], &[3, 4])
    };
    let plain = of(forward.clone(), KeysFrom::Tables);
    let aliased = of(forward, KeysFrom::Values);
    let outside = SelectedTableCase { policy: IdPolicy::Zero, ..plain.clone() };
    let cases = [
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::BiasIgnored, &plain),
        (Fault::SimilaritiesIgnored, &plain),
        (Fault::ProductDropped, &plain),
        (Fault::IdsClamped, &outside),
    ];
    for (fault, case) in cases {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed {case:?}");
    }
    let with_lse = SelectedTableBackwardCase { with_grad_lse: true, ..gradients(plain.clone()) };
    let (plain, aliased, outside) = (gradients(plain), gradients(aliased), gradients(outside));
    // No gradients but those of tables.
    let alone = SelectedTableBackwardCase { asked: [false; 5], ..plain.clone() };
    let cases = [
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::AliasedValuesForgotten, &aliased),
        (Fault::OneReaderOnly, &alone),
        (Fault::LseGradientIgnored, &with_lse),
        (Fault::IdsClamped, &outside),
    ];
    for (fault, case) in cases {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}
