//! Look-ups on every backend: a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::{LookupCase, Pool, Storage};
use crate::case::{Rules, assert_check, check};
use crate::data::Ids;
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("lookup":
    looks_rows_up_from_every_storage,
    looks_rows_up_in_bags,
    looks_up_random_bags,
    matches_reference_on_the_small_named_cases,
);

fn looks_rows_up_from_every_storage<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for (widths, second_widths) in [(vec![1], vec![]), (vec![16], vec![64]), (vec![3, 8], vec![5, 1])] {
            let table_rows = vec![50, 7][..widths.len()].to_vec();
            let case = LookupCase { storage, table_rows, widths, second_widths, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
    assert_check(&LookupCase { bags: vec![], ..Default::default() }, backend, rules);
}

fn looks_rows_up_in_bags<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for pool in [Pool::Sum, Pool::Mean] {
            for policy in [IdPolicy::Error, IdPolicy::Zero] {
                let bags = vec![0, 1, 2, 33, 1000, 0];
                let (widths, second_widths) = (vec![8], vec![20]);
                let case = LookupCase {
                    storage,
                    pool,
                    policy,
                    bags,
                    widths,
                    second_widths,
                    tail: 2,
                    ..Default::default()
                };
                assert_check(&case, backend, rules);
            }
        }
    }
}

prop_compose! {
    /// Any look-up whose sizes a test has time for.
    fn any_lookup()(
        seed in any::<u64>(),
        storage in prop::sample::select(Storage::ALL.to_vec()),
        tables in prop::collection::vec((1usize..100, 1usize..40, 1usize..40), 1..4),
        second in any::<bool>(),
        bags in prop::collection::vec(0usize..50, 0..10),
        tail in 0usize..3,
        pool in prop::sample::select(vec![Pool::Each, Pool::Sum, Pool::Mean]),
        policy in prop::sample::select(vec![IdPolicy::Error, IdPolicy::Zero]),
    ) -> LookupCase {
        let table_rows = tables.iter().map(|table| table.0).collect();
        let widths = tables.iter().map(|table| table.1).collect();
        let second_widths = tables.iter().filter(|_| second).map(|table| table.2).collect();
        let ids = Ids::Skewed;
        LookupCase { seed, storage, table_rows, widths, second_widths, bags, tail, pool, ids, policy }
    }
}

fn looks_up_random_bags<B: Backend>(backend: &B, rules: Rules) {
    proptest!(ProptestConfig::with_cases(48), |(case in any_lookup())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let bags = LookupCase { pool: Pool::Mean, bags: vec![4, 2, 7], ..Default::default() };
    let outside = LookupCase { policy: IdPolicy::Zero, ..bags.clone() };
    for (fault, case) in
        [(Fault::MeanIsSum, &bags), (Fault::HistoryShifted, &bags), (Fault::IdsClamped, &outside)]
    {
        assert_check(case, &Cpu::new(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("lookup", backend, rules);
}
