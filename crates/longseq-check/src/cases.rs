//! The tables of named cases, for tests and benchmarks: typical shapes, each of one operation.
//!
//! The benchmarks time `benchmarks()`; `small()` are the same kinds of work on shapes small enough for a test, an
//! emulator or an instruction counter.

use longseq::*;

use crate::data::{Data, Ids};
use crate::decoupled::{DecoupledBackwardCase, DecoupledCase};
use crate::din::{DinBackwardCase, DinCase, Kind};
use crate::lookup::{LookupBackwardCase, LookupCase, Pool, Storage, UpdateRowsCase};
use crate::named::{AnyCase, Named};
use crate::sdim::{SdimBackwardCase, SdimCase};
use crate::target_attention::{AttentionBackwardCase, AttentionCase, MergeCase};

/// Lengths of the histories of `users`: the quantiles of a Pareto distribution of index 1.05 from 120 on, between 10
/// and 20,000, the first of them 20,000.
pub fn skewed_lengths(users: usize) -> Vec<usize> {
    let quantile = |i: usize| 1.0 - (i as f64 + 0.5) / users as f64;
    let length = |i| (120.0 * f64::powf(quantile(i), -1.0 / 1.05)).clamp(10.0, 20_000.0) as usize;
    let mut lengths: Vec<usize> = (0..users).map(length).collect();
    lengths[0] = 20_000;
    lengths
}

fn attention(name: &'static str, case: AttentionCase) -> Named {
    Named { name, operation: "target_attention", case: AnyCase::Attention(case) }
}

/// All gradients, stored as the inputs are.
fn attention_backward(name: &'static str, forward: AttentionCase) -> Named {
    let case = AttentionBackwardCase { forward, narrow: true, ..Default::default() };
    Named { name, operation: "target_attention_backward", case: AnyCase::AttentionBackward(case) }
}

fn din(name: &'static str, case: DinCase) -> Named {
    Named { name, operation: "din", case: AnyCase::Din(case) }
}

/// All gradients, stored as what they belong to.
fn din_backward(name: &'static str, forward: DinCase) -> Named {
    let case = DinBackwardCase { forward, narrow: true, ..Default::default() };
    Named { name, operation: "din_backward", case: AnyCase::DinBackward(case) }
}

fn sdim(name: &'static str, operation: &'static str, length: usize, candidates: usize, bits: usize) -> Named {
    let (histories, targets) = (vec![length], vec![candidates]);
    let case = SdimCase { histories, targets, width: 64, groups: 16, bits, ..Default::default() };
    Named { name, operation, case: AnyCase::Sdim(case) }
}

/// From rotations, gradients stored as behaviours are.
fn sdim_backward(
    name: &'static str,
    operation: &'static str,
    length: usize,
    candidates: usize,
    bits: usize,
) -> Named {
    Named { name, operation, case: AnyCase::SdimBackward(sdim_backward_case(length, candidates, bits)) }
}

fn sdim_backward_case(length: usize, candidates: usize, bits: usize) -> SdimBackwardCase {
    let (histories, targets) = (vec![length], vec![candidates]);
    let forward = SdimCase { histories, targets, width: 64, groups: 16, bits, ..Default::default() };
    SdimBackwardCase { forward, narrow: true, hashed: true, bytes: false, nan: None }
}

/// A gradient of SDIM from the signatures of the forward pass, which a framework's graph keeps too.
fn sdim_given(name: &'static str, operation: &'static str, length: usize, candidates: usize) -> Named {
    let case = SdimBackwardCase { hashed: false, ..sdim_backward_case(length, candidates, 3) };
    Named { name, operation, case: AnyCase::SdimBackward(case) }
}

fn decoupled(name: &'static str, operation: &'static str, case: DecoupledCase) -> Named {
    Named { name, operation, case: AnyCase::Decoupled(case) }
}

/// From the selection, all gradients, sparse.
fn decoupled_backward(name: &'static str, operation: &'static str, forward: DecoupledCase) -> Named {
    let case = DecoupledBackwardCase { forward, ..Default::default() };
    Named { name, operation, case: AnyCase::DecoupledBackward(case) }
}

/// A search alone: representations are small, since only the check reads them.
fn search(name: &'static str, case: DecoupledCase) -> Named {
    decoupled(name, "decoupled_search", DecoupledCase { representation_widths: vec![4], ..case })
}

fn lookup(name: &'static str, case: LookupCase) -> Named {
    Named { name, operation: "lookup", case: AnyCase::Lookup(case) }
}

fn lookup_backward(name: &'static str, operation: &'static str, forward: LookupCase, sorted: bool) -> Named {
    let case = LookupBackwardCase { forward, sorted, ..Default::default() };
    Named { name, operation, case: AnyCase::LookupBackward(case) }
}

fn update_rows(name: &'static str, case: UpdateRowsCase) -> Named {
    Named { name, operation: "update_rows", case: AnyCase::UpdateRows(case) }
}

/// One user with `candidates` candidates and `length` behaviours of width 64.
fn one_user(length: usize, candidates: usize) -> AttentionCase {
    let (histories, targets) = (vec![length], vec![candidates]);
    AttentionCase { histories, targets, width: 64, value_width: Some(64), ..Default::default() }
}

/// One user with ids in one large table.
fn one_feature(length: usize, candidates: usize, rows: usize, attention: usize, k: usize) -> DecoupledCase {
    DecoupledCase {
        histories: vec![length],
        targets: vec![candidates],
        table_rows: vec![rows],
        attention_widths: vec![attention],
        representation_widths: vec![64],
        top_k: k,
        ids: Ids::Uniform,
        ..Default::default()
    }
}

/// The cases that the benchmarks time.
pub fn benchmarks() -> Vec<Named> {
    let mut cases = large_attention();
    cases.extend(large_attention_backward());
    cases.extend(large_din());
    cases.extend(large_sdim());
    cases.extend(large_decoupled());
    cases.extend(large_decoupled_backward());
    cases.extend(large_lookups());
    cases.extend(large_table_gradients());
    cases.extend(crate::search::cases::benchmarks());
    cases.extend(crate::selected::cases::benchmarks());
    cases.extend(crate::tin::cases::benchmarks());
    cases.extend(crate::interest_channels::cases::benchmarks());
    cases
}

fn large_attention() -> Vec<Named> {
    let dtype = DType::Bf16;
    vec![
        attention("target_attention_c16_l10000_d64_f32", one_user(10_000, 16)),
        attention("target_attention_c16_l10000_d64_bf16", AttentionCase { dtype, ..one_user(10_000, 16) }),
        attention("target_attention_jagged_64_users_20_candidates", jagged_64_users()),
        attention("target_attention_c1_l100000_d64_f32", one_user(100_000, 1)),
        attention("target_attention_c100_l10000_d64_f32", one_user(10_000, 100)),
        attention(
            "target_attention_b8_c32_l4096_d64_f32",
            AttentionCase { histories: vec![4096; 8], targets: vec![32; 8], ..one_user(0, 0) },
        ),
        attention(
            "target_attention_8_heads_2_kv_c16_l4096_d32_f16",
            AttentionCase {
                dtype: DType::F16,
                heads: 8,
                kv_heads: 2,
                width: 32,
                value_width: Some(32),
                ..one_user(4096, 16)
            },
        ),
        Named {
            name: "merge_attention_10000_rows_d64",
            operation: "merge_attention",
            case: AnyCase::Merge(MergeCase { rows: 10_000, value_width: 64, ..Default::default() }),
        },
    ]
}

fn large_attention_backward() -> Vec<Named> {
    let dtype = DType::Bf16;
    vec![
        attention_backward("target_attention_backward_c16_l10000_d64_f32", one_user(10_000, 16)),
        attention_backward(
            "target_attention_backward_c16_l10000_d64_bf16",
            AttentionCase { dtype, ..one_user(10_000, 16) },
        ),
        attention_backward("target_attention_backward_jagged_64_users_20_candidates", jagged_64_users()),
        attention_backward("target_attention_backward_c1_l100000_d64_f32", one_user(100_000, 1)),
        attention_backward("target_attention_backward_c100_l10000_d64_f32", one_user(10_000, 100)),
    ]
}

/// 64 users with histories of very different lengths, 20 candidates each; the keys are the values.
fn jagged_64_users() -> AttentionCase {
    AttentionCase {
        histories: skewed_lengths(64),
        targets: vec![20; 64],
        value_width: None,
        ..one_user(0, 0)
    }
}

fn large_din() -> Vec<Named> {
    vec![
        din("din_80_40_c16_l1000_d64", din_80_40(1000, 16)),
        din("din_200_80_dice_softmax_c50_l1000_d32_bf16", din_200_80()),
        din_backward("din_backward_80_40_c16_l1000_d64", din_80_40(1000, 16)),
        din_backward("din_backward_200_80_dice_softmax_c50_l1000_d32_bf16", din_200_80()),
        din_backward(
            "din_backward_80_40_64_users_c1_l50_d64",
            DinCase { histories: vec![50; 64], targets: vec![1; 64], ..din_80_40(0, 0) },
        ),
    ]
}

fn din_200_80() -> DinCase {
    DinCase {
        dtype: DType::Bf16,
        width: 32,
        hidden: vec![200, 80],
        activation: Kind::Dice,
        pooling: DinPooling::Softmax,
        ..din_80_40(1000, 50)
    }
}

fn large_sdim() -> Vec<Named> {
    vec![
        sdim("sdim_signatures_l10000_d64_g16_t3", "sdim_signatures", 10_000, 1, 3),
        sdim("sdim_encode_l10000_d64_g16_t3", "sdim_encode", 10_000, 1, 3),
        sdim("sdim_append_l100_d64_g16_t3", "sdim_append", 100, 1, 3),
        sdim("sdim_query_c100_d64_g16_t3", "sdim_query", 1000, 100, 3),
        sdim("sdim_attend_c100_l1000_d64_g16_t10", "sdim_attend", 1000, 100, 10),
        sdim_backward("sdim_encode_backward_l10000_d64_g16_t3", "sdim_encode_backward", 10_000, 1, 3),
        sdim_backward("sdim_query_backward_c100_d64_g16_t3", "sdim_query_backward", 1000, 100, 3),
        sdim_backward("sdim_attend_backward_c100_l10000_d64_g16_t3", "sdim_attend_backward", 10_000, 100, 3),
        sdim_given("sdim_encode_backward_l10000_d64_g16_t3_given", "sdim_encode_backward", 10_000, 1),
        sdim_given("sdim_query_backward_c100_d64_g16_t3_given", "sdim_query_backward", 1000, 100),
        sdim_given("sdim_attend_backward_c100_l10000_d64_g16_t3_given", "sdim_attend_backward", 10_000, 100),
    ]
}

fn large_decoupled() -> Vec<Named> {
    let mut cases = vec![search("search_k64_l100000_a16_c16", one_feature(100_000, 16, 1_000_000, 16, 64))];
    for (name, width) in [
        ("search_k20_l10000_a128_c16", 128),
        ("search_k20_l10000_a64_c16", 64),
        ("search_k20_l10000_a32_c16", 32),
    ] {
        cases.push(search(name, one_feature(10_000, 16, 100_000, width, 20)));
    }
    let three_features = DecoupledCase {
        table_rows: vec![100_000, 1000, 100],
        attention_widths: vec![32, 16, 8],
        representation_widths: vec![64, 32, 16],
        storage: Storage::Int8,
        ids: Ids::Skewed,
        ..one_feature(2000, 50, 0, 0, 50)
    };
    cases.extend([
        decoupled(
            "aggregate_k64_c100_l10000_r64",
            "decoupled_aggregate",
            one_feature(10_000, 100, 100_000, 16, 64),
        ),
        decoupled("attend_k50_c50_l2000_3_features_int8", "decoupled_attend", three_features),
        decoupled(
            "attend_all_c16_l10000_a16_r64",
            "decoupled_attend to all",
            one_feature(10_000, 16, 100_000, 16, 64),
        ),
    ]);
    cases
}

fn large_decoupled_backward() -> Vec<Named> {
    let one = || one_feature(10_000, 16, 100_000, 16, 64);
    let multiplied = DecoupledCase {
        table_rows: vec![100_000, 1000, 100],
        attention_widths: vec![32, 16, 8],
        representation_widths: vec![64, 32, 16],
        ids: Ids::Skewed,
        multiply_target: true,
        ..one_feature(2000, 50, 0, 0, 50)
    };
    vec![
        decoupled_backward(
            "decoupled_backward_top64_of_10000_c16_a16_r64",
            "decoupled_attend_backward",
            one(),
        ),
        decoupled_backward(
            "decoupled_backward_aggregate_k64_c100_l10000_r64",
            "decoupled_aggregate_backward",
            one_feature(10_000, 100, 100_000, 16, 64),
        ),
        decoupled_backward(
            "decoupled_backward_search_k64_c100_l10000_a16",
            "decoupled_search_backward",
            one_feature(10_000, 100, 100_000, 16, 64),
        ),
        decoupled_backward(
            "decoupled_backward_k50_c50_l2000_3_features_times_target",
            "decoupled_attend_backward",
            multiplied,
        ),
        decoupled_backward(
            "decoupled_backward_all_c16_l10000_a16_r64",
            "decoupled_attend_backward to all",
            one(),
        ),
    ]
}

fn large_lookups() -> Vec<Named> {
    vec![
        lookup("lookup_sum_l100000_r64", sum_of_50(2000, 1_000_000)),
        lookup("lookup_weighted_sum_l100000_r64", weighted(sum_of_50(2000, 1_000_000))),
        lookup(
            "lookup_each_l20000_3_features_f16",
            LookupCase {
                storage: Storage::F16,
                table_rows: vec![100_000, 1000, 100],
                widths: vec![64, 32, 16],
                bags: vec![20_000],
                ..Default::default()
            },
        ),
    ]
}

fn large_table_gradients() -> Vec<Named> {
    let bags = sum_of_50(2000, 1_000_000);
    let each = |ids: Ids| LookupCase { pool: Pool::Each, bags: vec![100_000], ids, ..bags.clone() };
    let update = |draw: Ids, optimiser: Optimiser| UpdateRowsCase {
        rows: 1_000_000,
        width: 64,
        ids: 100_000,
        draw,
        optimiser,
        ..Default::default()
    };
    let adagrad = Optimiser::adagrad(0.01);
    vec![
        lookup_backward("lookup_backward_sum_l100000_r64", "lookup_backward", bags.clone(), false),
        lookup_backward(
            "lookup_backward_weighted_sum_l100000_r64",
            "lookup_backward",
            weighted(bags.clone()),
            false,
        ),
        lookup_backward("lookup_backward_sum_l100000_r64_sorted", "lookup_backward", bags.clone(), true),
        lookup_backward("sort_100000_ids", "sort_ids", bags.clone(), true),
        // As many as 100 candidates keep of 64 behaviours each.
        lookup_backward("sort_6400_ids", "sort_ids", sum_of_50(128, 100_000), true),
        lookup_backward("lookup_backward_each_l100000_r64", "lookup_backward", each(Ids::Uniform), false),
        lookup_backward("lookup_backward_each_l100000_r64_hot_row", "lookup_backward", each(Ids::Hot), false),
        update_rows("update_rows_adagrad_100000_of_1000000_r64", update(Ids::Hot, adagrad)),
        update_rows("update_rows_adagrad_uniform_of_1000000_r64", update(Ids::Uniform, adagrad)),
        update_rows(
            "update_rows_adam_uniform_of_1000000_r64",
            update(Ids::Uniform, Optimiser::adam(0.01, 10)),
        ),
    ]
}

/// The same kinds of work, small.
pub fn small() -> Vec<Named> {
    let dtype = DType::Bf16;
    let mut cases = vec![
        attention("target_attention_c16_l1000_d64_f32", one_user(1000, 16)),
        attention("target_attention_c16_l1000_d64_bf16", AttentionCase { dtype, ..one_user(1000, 16) }),
        attention(
            "target_attention_jagged_8_users_4_candidates",
            AttentionCase {
                histories: skewed_lengths(8).into_iter().map(|length| length.min(2000)).collect(),
                targets: vec![4; 8],
                value_width: None,
                ..one_user(0, 0)
            },
        ),
        Named {
            name: "merge_attention_500_rows_d64",
            operation: "merge_attention",
            case: AnyCase::Merge(MergeCase { rows: 500, value_width: 64, ..Default::default() }),
        },
        attention_backward("target_attention_backward_c16_l1000_d64_f32", one_user(1000, 16)),
        attention_backward("target_attention_backward_c2_l1000_d64_f32", one_user(1000, 2)),
        din("din_80_40_c16_l100_d64", din_80_40(100, 16)),
        din_backward("din_backward_80_40_c16_l100_d64", din_80_40(100, 16)),
        sdim("sdim_signatures_l1000_d64_g16_t3", "sdim_signatures", 1000, 1, 3),
        sdim("sdim_encode_l1000_d64_g16_t3", "sdim_encode", 1000, 1, 3),
        sdim("sdim_query_c100_l50_d64_g16_t3", "sdim_query", 50, 100, 3),
        sdim("sdim_attend_c10_l200_d64_g16_t8", "sdim_attend", 200, 10, 8),
        sdim_backward("sdim_encode_backward_l1000_d64_g16_t3", "sdim_encode_backward", 1000, 1, 3),
        sdim_backward("sdim_attend_backward_c100_l1000_d64_g16_t3", "sdim_attend_backward", 1000, 100, 3),
        decoupled("search_k64_l2000_a16_c16", "decoupled_search", one_feature(2000, 16, 10_000, 16, 64)),
        decoupled(
            "aggregate_k64_c16_l1000_r64",
            "decoupled_aggregate",
            one_feature(1000, 16, 10_000, 16, 64),
        ),
        decoupled("attend_k20_c16_l1000_a16_r64", "decoupled_attend", one_feature(1000, 16, 10_000, 16, 20)),
        decoupled(
            "attend_all_c8_l500_a16_r64",
            "decoupled_attend to all",
            one_feature(500, 8, 10_000, 16, 20),
        ),
        decoupled_backward(
            "decoupled_backward_top64_of_1000_c16_a16_r64",
            "decoupled_attend_backward",
            one_feature(1000, 16, 10_000, 16, 64),
        ),
        lookup("lookup_sum_l2000_r64", sum_of_50(40, 10_000)),
        lookup("lookup_weighted_sum_l2000_r64", weighted(sum_of_50(40, 10_000))),
        lookup_backward("lookup_backward_sum_l2000_r64", "lookup_backward", sum_of_50(40, 10_000), false),
        lookup_backward(
            "lookup_backward_weighted_sum_l2000_r64",
            "lookup_backward",
            weighted(sum_of_50(40, 10_000)),
            false,
        ),
        update_rows(
            "update_rows_adagrad_2000_of_10000_r64",
            UpdateRowsCase { rows: 10_000, width: 64, ids: 2000, draw: Ids::Uniform, ..Default::default() },
        ),
    ];
    cases.extend(crate::search::cases::small());
    cases.extend(crate::selected::cases::small());
    cases.extend(crate::tin::cases::small());
    cases.extend(crate::interest_channels::cases::small());
    cases
}

fn din_80_40(length: usize, candidates: usize) -> DinCase {
    let (histories, targets) = (vec![length], vec![candidates]);
    DinCase { histories, targets, width: 64, hidden: vec![80, 40], ..Default::default() }
}

fn weighted(case: LookupCase) -> LookupCase {
    LookupCase { weights: Some(Data::Normal), ..case }
}

fn sum_of_50(bags: usize, rows: usize) -> LookupCase {
    let (table_rows, widths) = (vec![rows], vec![64]);
    LookupCase {
        table_rows,
        widths,
        bags: vec![50; bags],
        pool: Pool::Sum,
        ids: Ids::Uniform,
        ..Default::default()
    }
}
