//! Sub-ranges on every backend: cases of all operations, whose histories leave gaps, are in another order, or overlap.

use longseq::prelude::*;
use longseq::*;

use crate::case::{Calls, Case, Failure, Rules, assert_check, check};
use crate::data::{Ranges, with_ranges};
use crate::decoupled::{DecoupledBackwardCase, DecoupledCase};
use crate::device::cpu;
use crate::device::thorough;
use crate::din::{DinBackwardCase, DinCase};
use crate::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use crate::lookup::{LookupBackwardCase, LookupCase, Pool, Storage};
use crate::mutant::{Fault, Mutant};
use crate::named::AnyCase;
use crate::registry::list_tests;
use crate::sample;
use crate::sdim::{Given, SdimBackwardCase, SdimCase, Weights};
use crate::search::{Compared, NewestCase, SearchCase};
use crate::selected::{SelectedBackwardCase, SelectedCase, SelectedTableBackwardCase, SelectedTableCase};
use crate::target_attention::{AttentionBackwardCase, AttentionCase, Bias};
use crate::tin::{TinBackwardCase, TinCase};

list_tests!("sub_ranges":
    takes_histories_anywhere,
    takes_long_histories_anywhere,
    takes_histories_of_narrow_rows_anywhere,
    searches_histories_anywhere,
    takes_bags_anywhere,
    writes_gradients_of_histories_anywhere,
    writes_gradients_of_narrow_rows_anywhere,
    writes_gradients_of_long_histories_anywhere,
    refuses_gradients_of_rows_that_users_share,
    refuses_what_takes_no_sub_ranges,
    reads_the_newest_without_a_copy,
);

/// A case whose histories, or bags, are such ranges of their rows.
#[derive(Debug, Clone)]
pub struct InRanges<C> {
    /// Where they are.
    pub ranges: Ranges,
    /// The case.
    pub case: C,
}

impl<C: Case> Case for InRanges<C> {
    type Output = C::Output;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<C::Output, Failure> {
        with_ranges(self.ranges, || self.case.run_with(backend, calls))
    }

    fn compare(&self, output: &C::Output, rules: Rules) -> Result<(), Failure> {
        with_ranges(self.ranges, || self.case.compare(output, rules))
    }
}

/// Several users, of whom the first, one in the middle and the last have no behaviours, and one no candidates.
const HISTORIES: [usize; 8] = [0, 40, 9, 0, 130, 1, 70, 0];
const TARGETS: [usize; 8] = [1, 3, 20, 2, 1, 5, 0, 1];

/// Whether a failure is that of a backend without the operation at all.
fn is_missing<B: Backend>(case: &AnyCase, backend: &B, rules: Rules, failure: &Failure) -> bool {
    failure.is_unsupported() && check(case, backend, rules).is_err_and(|plain| plain.is_unsupported())
}

/// Checks a case in ranges of each kind; where only a sample of cases runs, in those of one kind.
fn assert_in_ranges<B: Backend>(case: impl Into<AnyCase>, kinds: &[Ranges], backend: &B, rules: Rules) {
    let case = case.into();
    let chosen = format!("{case:?}").len() % kinds.len();
    let is_sampled = rules.sampled || sample::is_smallest() && sample::is_best_of_cpu(rules);
    let kinds = if is_sampled && !thorough() { &kinds[chosen..=chosen] } else { kinds };
    for &ranges in kinds {
        let case = InRanges { ranges, case: case.clone() };
        if let Err(failure) = check(&case, backend, rules) {
            assert!(is_missing(&case.case, backend, rules, &failure), "{failure}");
        }
    }
}

/// The ranges that gradients by row can be written for.
const DISJOINT: [Ranges; 2] = [Ranges::Gaps, Ranges::Reversed];

/// Histories and candidates of a case.
macro_rules! users {
    ($case:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {
        $case {
            histories: HISTORIES.to_vec(),
            targets: TARGETS.to_vec(),
            $($field $(: $value)?,)*
            ..Default::default()
        }
    };
}

fn takes_histories_anywhere<B: Backend>(backend: &B, rules: Rules) {
    let all = &Ranges::ALL;
    assert_in_ranges(
        &users!(AttentionCase { heads: 4, kv_heads: 2, bias: Bias::Normal, tail: 3 }),
        all,
        backend,
        rules,
    );
    assert_in_ranges(&users!(AttentionCase { value_width: None }), all, backend, rules);
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        assert_in_ranges(&users!(DinCase { pooling, tail: 3 }), all, backend, rules);
    }
    for (groups, bits, weights) in
        [(4, 3, Weights::None), (4, 3, Weights::Signed), (2, 7, Weights::Signed), (1, 12, Weights::None)]
    {
        assert_in_ranges(&users!(SdimCase { groups, bits, weights, tail: 3 }), all, backend, rules);
    }
    for bits in [3, 7] {
        assert_in_ranges(&users!(SdimCase { bits, slots: true, tail: 3 }), all, backend, rules);
    }
    for (bits, given) in [(3, Given::Items8(20)), (7, Given::Items16(3))] {
        assert_in_ranges(&users!(SdimCase { bits, given, tail: 3 }), all, backend, rules);
    }
    for multiply_target in [false, true] {
        assert_in_ranges(&users!(DecoupledCase { multiply_target, tail: 3 }), all, backend, rules);
    }
    for bias in [Bias::None, Bias::Normal] {
        let forward = users!(SelectedCase { heads: 2, bias, tail: 3 });
        assert_in_ranges(&forward, all, backend, rules);
        assert_in_ranges(&SelectedTableCase { forward, ..Default::default() }, all, backend, rules);
    }
    for given in [[false; 2], [true; 2]] {
        assert_in_ranges(&users!(TinCase { given, tail: 3 }), all, backend, rules);
    }
    assert_in_ranges(&users!(ChannelsCase { tail: 3 }), all, backend, rules);
}

/// Histories that are cut into pieces, and others.
macro_rules! long {
    ($case:ident, $rules:ident) => {
        $case {
            histories: vec![20, if $rules.slow { 3000 } else { 20_000 }, 700],
            targets: vec![2, 3, 18],
            ..Default::default()
        }
    };
}

fn takes_long_histories_anywhere<B: Backend>(backend: &B, rules: Rules) {
    let all = &Ranges::ALL;
    assert_in_ranges(&long!(AttentionCase, rules), all, backend, rules);
    assert_in_ranges(&long!(DinCase, rules), all, backend, rules);
    assert_in_ranges(&long!(SdimCase, rules), all, backend, rules);
    assert_in_ranges(&long!(DecoupledCase, rules), all, backend, rules);
    assert_in_ranges(&long!(SearchCase, rules), all, backend, rules);
    assert_in_ranges(&long!(TinCase, rules), all, backend, rules);
}

fn takes_histories_of_narrow_rows_anywhere<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for width in [5, 64] {
            let kinds = &[Ranges::Reversed, Ranges::Shared];
            assert_in_ranges(&users!(AttentionCase { dtype, width }), kinds, backend, rules);
            assert_in_ranges(&users!(DinCase { dtype, width }), kinds, backend, rules);
            assert_in_ranges(&users!(SdimCase { dtype, width }), kinds, backend, rules);
            assert_in_ranges(
                &users!(SelectedCase { dtype, width, value_width: None }),
                kinds,
                backend,
                rules,
            );
            assert_in_ranges(&users!(TinCase { dtype, width }), kinds, backend, rules);
        }
    }
}

fn searches_histories_anywhere<B: Backend>(backend: &B, rules: Rules) {
    let scores =
        [SearchScore::Dot { scale: 0.5 }, SearchScore::Cosine, SearchScore::Hamming, SearchScore::Match];
    for score in scores {
        let bias = matches!(score, SearchScore::Dot { .. });
        assert_in_ranges(&users!(SearchCase { score, bias, tail: 3 }), &Ranges::ALL, backend, rules);
    }
    for stored in [Compared::Bf16, Compared::Int8] {
        let score = SearchScore::Dot { scale: 0.5 };
        assert_in_ranges(&users!(SearchCase { score, stored }), &Ranges::ALL, backend, rules);
    }
    for top_k in [1, 7, 1000] {
        let search = users!(SearchCase { top_k });
        assert_in_ranges(&NewestCase { search, ..Default::default() }, &Ranges::ALL, backend, rules);
    }
}

/// A backend that takes no such bags says so.
fn takes_bags_anywhere<B: Backend>(backend: &B, rules: Rules) {
    let bags = vec![3, 0, 7, 40, 1, 3000, 2];
    let plain = LookupCase { bags, second_widths: vec![5], tail: 3, ..Default::default() };
    let weighted = LookupCase { weights: Some(crate::data::Data::Normal), pool: Pool::Sum, ..plain.clone() };
    let skipping = LookupCase { policy: IdPolicy::Skip, pool: Pool::Mean, ..plain.clone() };
    let int8 = LookupCase { storage: Storage::Int8, pool: Pool::Mean, ..plain.clone() };
    for case in [LookupCase { pool: Pool::Sum, ..plain }, weighted, skipping, int8] {
        for ranges in Ranges::ALL {
            let case = InRanges { ranges, case: case.clone() };
            if let Err(failure) = check(&case, backend, rules) {
                let text = failure.to_string();
                assert!(
                    failure.is_unsupported() && text.contains("bags or histories that are sub-ranges"),
                    "{text}"
                );
            }
        }
    }
}

/// The gradients of rows, of all operations that have some.
fn gradients(narrow: bool, dtype: DType, width: usize) -> Vec<AnyCase> {
    let attention =
        users!(AttentionCase { dtype, width, value_width: Some(24), heads: 2, bias: Bias::Normal, tail: 3 });
    let aliased = users!(AttentionCase { dtype, width, value_width: None });
    let mut cases: Vec<AnyCase> = [attention, aliased]
        .map(|forward| AnyCase::from(&AttentionBackwardCase { forward, narrow, ..Default::default() }))
        .to_vec();
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        let forward = users!(DinCase { dtype, width, pooling, tail: 3 });
        cases.push((&DinBackwardCase { forward, narrow, ..Default::default() }).into());
    }
    for (bits, hashed, weights, given) in [
        (3, false, Weights::None, Given::Rows),
        (3, true, Weights::Signed, Given::Rows),
        (3, false, Weights::Signed, Given::Items8(30)),
        (10, false, Weights::Signed, Given::Rows),
        (10, false, Weights::None, Given::Items16(30)),
    ] {
        let forward = users!(SdimCase { dtype, width, bits, weights, given, tail: 3 });
        cases.push((&SdimBackwardCase { forward, narrow, hashed, bytes: false, nan: None }).into());
    }
    let forward =
        users!(SelectedCase { dtype, width, value_width: Some(24), heads: 2, bias: Bias::Normal, tail: 3 });
    let of_tables = SelectedTableCase { forward: forward.clone(), ..Default::default() };
    cases.push((&SelectedBackwardCase { forward, narrow, ..Default::default() }).into());
    cases.push((&SelectedTableBackwardCase { forward: of_tables, narrow, ..Default::default() }).into());
    for given in [[false; 2], [true; 2]] {
        let forward = users!(TinCase { dtype, width, given, tail: 3 });
        cases.push((&TinBackwardCase { forward, narrow, ..Default::default() }).into());
    }
    let forward = users!(ChannelsCase { dtype, width, tail: 3 });
    cases.push((&ChannelsBackwardCase { forward, narrow, ..Default::default() }).into());
    cases
}

fn decoupled_gradients() -> [DecoupledBackwardCase; 2] {
    [false, true].map(|multiply_target| {
        let forward = users!(DecoupledCase { multiply_target, tail: 3 });
        DecoupledBackwardCase { forward, ..Default::default() }
    })
}

fn writes_gradients_of_histories_anywhere<B: Backend>(backend: &B, rules: Rules) {
    for case in gradients(false, DType::F32, 16) {
        assert_in_ranges(case, &DISJOINT, backend, rules);
    }
    for case in decoupled_gradients() {
        assert_in_ranges(&case, &DISJOINT, backend, rules);
    }
}

fn writes_gradients_of_narrow_rows_anywhere<B: Backend>(backend: &B, rules: Rules) {
    for (dtype, width) in [(DType::F16, 16), (DType::Bf16, 5)] {
        for case in gradients(true, dtype, width) {
            assert_in_ranges(case, &DISJOINT, backend, rules);
        }
    }
}

/// Histories that are cut into spans, of which some rows are computed at a time.
fn writes_gradients_of_long_histories_anywhere<B: Backend>(backend: &B, rules: Rules) {
    let forward = long!(AttentionCase, rules);
    assert_in_ranges(&AttentionBackwardCase { forward, ..Default::default() }, &DISJOINT, backend, rules);
    let forward = long!(TinCase, rules);
    assert_in_ranges(&TinBackwardCase { forward, ..Default::default() }, &DISJOINT, backend, rules);
    let forward = long!(DecoupledCase, rules);
    assert_in_ranges(&DecoupledBackwardCase { forward, ..Default::default() }, &DISJOINT, backend, rules);
    let forward = long!(SdimCase, rules);
    let case = SdimBackwardCase { forward, narrow: false, hashed: false, bytes: false, nan: None };
    assert_in_ranges(&case, &DISJOINT, backend, rules);
}

fn refuses_gradients_of_rows_that_users_share<B: Backend>(backend: &B, rules: Rules) {
    let cases = gradients(false, DType::F32, 16).into_iter();
    for case in cases.chain(decoupled_gradients().iter().map(AnyCase::from)) {
        let shared = InRanges { ranges: Ranges::Shared, case };
        let failure = shared.run(backend).expect_err("gradients of rows that users share");
        let is_refused = matches!(failure.error(), Some(Error::Shape { argument: "histories", .. }));
        assert!(is_refused || is_missing(&shared.case, backend, rules, &failure), "{failure} in {shared:?}");
    }
}

/// Candidates, and bags whose gradients are asked for, are one user after the other.
fn refuses_what_takes_no_sub_ranges<B: Backend>(backend: &B, _: Rules) {
    for pool in [Pool::Sum, Pool::Mean] {
        let forward = LookupCase { pool, ..Default::default() };
        for ranges in Ranges::ALL {
            let case = InRanges {
                ranges,
                case: LookupBackwardCase { forward: forward.clone(), ..Default::default() },
            };
            let failure = case.run(backend).expect_err("gradients of bags anywhere");
            let is_refused = matches!(failure.error(), Some(Error::Shape { argument: "bags", .. }));
            assert!(is_refused, "{failure} in {case:?}");
        }
    }
    let refused = || -> Result<()> {
        let targets = Jagged::from_starts(&[3, 0], &[1, 2], 4)?;
        let error = backend.batch(&Jagged::from_lengths(&[1, 1])?, &targets).err();
        assert!(matches!(error, Some(Error::Shape { argument: "targets", .. })), "{error:?}");
        let (op, targets) = (Sdim::new(2).with_groups(1, 1), backend.jagged(&targets)?);
        let table = backend.zeros::<f32>(op.table_length(2)?)?;
        let signatures = backend.zeros::<u8>(4)?;
        let inputs = SdimQueryInputs::new(backend.view(&table), Hash::Signatures8(backend.view(&signatures)));
        let error = backend.sdim_query::<f32>(&op, &targets, inputs).err();
        assert!(matches!(error, Some(Error::Shape { argument: "targets", .. })), "{error:?}");
        Ok(())
    };
    refused().expect("memory");
}

/// The newest behaviours of each user give what a copy of them gives.
fn reads_the_newest_without_a_copy<B: Backend>(backend: &B, _: Rules) {
    const WIDTH: usize = 4;
    let (lengths, count) = ([30, 2, 0, 9], 5);
    let mean = |histories: &Jagged, rows: &[f32]| -> Result<Vec<f32>> {
        let batch = backend.batch(histories, &Jagged::from_lengths(&[1; 4])?)?;
        let (rows, queries) = (backend.upload(rows)?, backend.upload(&[0.5_f32; 4 * WIDTH])?);
        let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&rows));
        let out = backend.target_attention(&TargetAttention::new(WIDTH), &batch, inputs)?;
        backend.download(backend.view(&out))
    };
    let rows: Vec<f32> = (0..41 * WIDTH).map(|i| (i as f32).sin()).collect();
    let both = || -> Result<[Vec<f32>; 2]> {
        let newest = Jagged::from_lengths(&lengths)?.newest(count);
        let copied: Vec<f32> =
            newest.ranges().flatten().flat_map(|l| rows[l * WIDTH..(l + 1) * WIDTH].to_vec()).collect();
        let lengths: Vec<usize> = newest.ranges().map(|rows| rows.len()).collect();
        Ok([mean(&newest, &rows)?, mean(&Jagged::from_lengths(&lengths)?, &copied)?])
    };
    let [newest, copied] = both().expect("a valid call");
    for (newest, copied) in newest.iter().zip(&copied) {
        assert!((newest - copied).abs() < 1e-5, "{newest} and {copied}");
    }
}

/// A backend that reads sub-ranges as if they were one after the other is caught, by every stem.
///
/// # Panics
/// Where the fault passes.
pub fn every_fault_is_caught() {
    let mut cases = gradients(false, DType::F32, 16);
    cases.extend(decoupled_gradients().iter().map(AnyCase::from));
    cases.push((&users!(AttentionCase {})).into());
    cases.push((&users!(DinCase {})).into());
    cases.push((&users!(SdimCase {})).into());
    cases.push((&users!(DecoupledCase {})).into());
    cases.push((&users!(SearchCase {})).into());
    cases.push((&users!(SelectedCase {})).into());
    cases.push((&users!(TinCase {})).into());
    cases.push((&users!(ChannelsCase {})).into());
    cases.push((&LookupCase { pool: Pool::Sum, ..Default::default() }).into());
    for case in cases {
        let case = InRanges { ranges: Ranges::Gaps, case };
        assert_check(&case, &cpu(), Rules::IEEE);
        let mutant = Mutant(Fault::GapsClosed);
        assert!(check(&case, &mutant, Rules::IEEE).is_err(), "closed gaps passed {case:?}");
    }
}
