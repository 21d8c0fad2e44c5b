//! Look-ups on every backend: a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::{LookupCase, Pool, Storage};
use crate::case::{Rules, assert_check, check};
use crate::data::{self, Data, Ids};
use crate::device::cpu;
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("lookup":
    looks_rows_up_from_every_storage,
    looks_rows_up_in_bags,
    looks_up_random_bags,
    matches_reference_on_the_small_named_cases,
    adds_up_long_bags,
    finds_an_id_outside_at_the_end_of_a_long_bag,
    averages_rows_near_the_limits,
    weighs_rows_in_bags,
    skips_ids_outside,
    keeps_a_nan_weight_to_its_bag,
);

/// The error of a sum does not grow with the number of equal terms, and no row of a long bag is left out.
fn adds_up_long_bags<B: Backend>(backend: &B, rules: Rules) {
    let sums = [(Data::Same(0.1), Pool::Sum), (Data::Same(1.0), Pool::Sum), (Data::Same(0.1), Pool::Mean)];
    let (longest, long) = if rules.slow { (70_000, 10_000) } else { (1_000_000, 100_000) };
    for ((data, pool), length) in sums.into_iter().zip([longest, long, 10_000]) {
        let case = LookupCase {
            data,
            pool,
            ids: Ids::Last,
            bags: vec![2, length, 0, 5],
            table_rows: vec![3],
            widths: vec![1],
            ..Default::default()
        };
        assert_check(&case, backend, rules);
    }
    let long = if rules.slow { 5000 } else { 20_000 };
    let (bags, widths, second_widths) = (vec![long, 3, 2500], vec![20], vec![4]);
    for storage in Storage::ALL {
        let bags = bags.clone();
        let (widths, second_widths) = (widths.clone(), second_widths.clone());
        let case = LookupCase { storage, pool: Pool::Sum, bags, widths, second_widths, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

fn finds_an_id_outside_at_the_end_of_a_long_bag<B: Backend>(backend: &B, rules: Rules) {
    let length = if rules.slow { 70_000 } else { 1_000_000 };
    for pool in [Pool::Sum, Pool::Mean, Pool::Each] {
        let run = || -> Result<Vec<f32>> {
            let mut ids = vec![0u32; length];
            ids[length - 1] = 3;
            let (ids, table) = (backend.upload(&ids)?, backend.upload(&[1.0f32, 2.0, 3.0])?);
            let tables = [Table::new(3, 1, TableData::F32(backend.view(&table)))];
            let bags = backend.jagged(&Jagged::from_lengths(&[length])?)?;
            let bags = match pool {
                Pool::Sum => Bags::Sum(&bags),
                Pool::Mean => Bags::Mean(&bags),
                Pool::Each => Bags::Each,
            };
            let (out, _) =
                backend.lookup(&Lookup::default(), bags, LookupInputs::new(backend.view(&ids), &tables))?;
            backend.download(backend.view(&out))
        };
        let position = length as u64 - 1;
        match run() {
            Err(Error::IndexOutOfRange { position: found, id: 3, bound: 3, .. }) => {
                assert_eq!(found, position)
            }
            other => panic!("{pool:?}: {:?}", other.map(|out| out.len())),
        }
        backend.synchronize().expect("the error was reported");
    }
}

/// The mean is at most the largest number, however large that is.
fn averages_rows_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.slow { 3000 } else { 20_000 };
    for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
        let largest = crate::data::largest_of(match storage {
            Storage::F16 => DType::F16,
            Storage::Bf16 => DType::Bf16,
            _ => DType::F32,
        });
        for data in [Data::Huge, Data::Same(largest)] {
            for policy in [IdPolicy::Error, IdPolicy::Skip] {
                let (bags, widths, second_widths) = (vec![4, 0, 1, 3, 50, long], vec![20], vec![3]);
                let bags = LookupCase { pool: Pool::Mean, bags, widths, second_widths, ..Default::default() };
                assert_check(&LookupCase { storage, data, policy, ..bags }, backend, rules);
            }
        }
    }
}

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

const POLICIES: [IdPolicy; 3] = [IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip];

/// Bags of two features, short and cut, and ids at the end that belong to nobody.
fn bags_of_two(pool: Pool, policy: IdPolicy) -> LookupCase {
    let (table_rows, widths, second_widths) = (vec![50, 7], vec![8, 5], vec![20, 3]);
    let bags = vec![0, 1, 2, 33, 3000, 0];
    LookupCase { pool, policy, table_rows, widths, second_widths, bags, tail: 2, ..Default::default() }
}

fn weighs_rows_in_bags<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for policy in POLICIES {
            for weights in [Data::Normal, Data::Same(0.1)] {
                let weights = Some(weights);
                let case = LookupCase { storage, weights, ..bags_of_two(Pool::Sum, policy) };
                assert_check(&case, backend, rules);
            }
        }
    }
    // One feature of whole vec4s, one of a single column; no ids at all.
    for (widths, bags) in
        [(vec![64], vec![40, 0, 7]), (vec![1], vec![5]), (vec![4], vec![]), (vec![4], vec![0])]
    {
        let weights = Some(Data::Normal);
        let case = LookupCase { pool: Pool::Sum, weights, widths, bags, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

fn skips_ids_outside<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for pool in [Pool::Each, Pool::Sum, Pool::Mean] {
            assert_check(&LookupCase { storage, ..bags_of_two(pool, IdPolicy::Skip) }, backend, rules);
        }
    }
    // Bags of one id, every fifth of which is outside: nothing is left of those.
    let bags = vec![1; 12];
    assert_check(&LookupCase { bags, ..bags_of_two(Pool::Mean, IdPolicy::Skip) }, backend, rules);
}

/// A weight that is no number spoils its bag, and none at all where its id is outside.
fn keeps_a_nan_weight_to_its_bag<B: Backend>(backend: &B, rules: Rules) {
    for policy in POLICIES {
        // The first and every fifth id is outside, where that is allowed.
        for place in [0, 1, 3, 45, 70, 4001] {
            let (weights, nan_weight) = (Some(Data::Normal), Some(place));
            let case = LookupCase { weights, nan_weight, ..bags_of_two(Pool::Sum, policy) };
            assert_check(&case, backend, rules);
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
        policy in prop::sample::select(POLICIES.to_vec()),
        weighted in any::<bool>(),
    ) -> LookupCase {
        let table_rows = tables.iter().map(|table| table.0).collect();
        let widths = tables.iter().map(|table| table.1).collect();
        let second_widths = tables.iter().filter(|_| second).map(|table| table.2).collect();
        let weights = (weighted && pool == Pool::Sum).then_some(Data::Normal);
        LookupCase {
            seed, storage, table_rows, widths, second_widths, bags, tail, pool, policy, weights, ..Default::default()
        }
    }
}

fn looks_up_random_bags<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(48), |(case in any_lookup())| {
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
    let skipped = LookupCase { policy: IdPolicy::Skip, ..bags.clone() };
    let weighted = LookupCase { pool: Pool::Sum, weights: Some(Data::Normal), ..bags.clone() };
    let long = LookupCase { bags: vec![70_000], widths: vec![1], ..bags.clone() };
    for (fault, case) in [
        (Fault::MeanIsSum, &bags),
        (Fault::HistoryShifted, &bags),
        (Fault::IdsClamped, &outside),
        (Fault::IdsClamped, &skipped),
        (Fault::SkippedCounted, &skipped),
        (Fault::WeightsIgnored, &weighted),
        (Fault::WeightOfNeighbour, &weighted),
        (Fault::LongBagsCut, &long),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("lookup", backend, rules);
}
