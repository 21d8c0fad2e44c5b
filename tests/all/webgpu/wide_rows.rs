//! Rows of so many numbers that a thread's loops over them would end early on some devices: right, or refused with the limit.

use longseq::*;
use longseq_check::case::check;
use longseq_check::decoupled::{DecoupledBackwardCase, DecoupledCase};
use longseq_check::device::thorough;
use longseq_check::device::webgpu::{device, rules};
use longseq_check::din::{DinBackwardCase, DinCase};
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use longseq_check::lookup::{LookupBackwardCase, LookupCase, UpdateRowsCase};
use longseq_check::named::AnyCase;
use longseq_check::sample;
use longseq_check::sdim::{Given, SdimBackwardCase, SdimCase};
use longseq_check::search::{Compared, SearchCase};
use longseq_check::selected::{SelectedBackwardCase, SelectedCase, SelectedTableCase};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase, MergeBackwardCase, MergeCase};
use longseq_check::tin::{TinBackwardCase, TinCase};

/// Three behaviours and two candidates.
fn people() -> (Vec<usize>, Vec<usize>) {
    (vec![3], vec![2])
}

fn attention(width: usize) -> Vec<AnyCase> {
    let (histories, targets) = people();
    let case = AttentionCase { histories, targets, width: 2, value_width: Some(2), ..Default::default() };
    let wide = [
        AttentionCase { width, ..case.clone() },
        AttentionCase { value_width: Some(width), ..case.clone() },
        // A thread goes over the keys again for each part of the values.
        AttentionCase { dtype: DType::Bf16, width: width.min(10_001), value_width: None, ..case },
    ];
    let backward = |forward: &AttentionCase| {
        AnyCase::from(&AttentionBackwardCase { forward: forward.clone(), ..Default::default() })
    };
    let merge = MergeCase { seed: 1, dtype: DType::F32, rows: 2, value_width: width, dead_parts: false };
    let merge_backward = MergeBackwardCase {
        seed: 1,
        dtype: DType::F32,
        rows: 2,
        value_width: width,
        dead_parts: false,
        asked: [true; 4],
    };
    let mut cases: Vec<AnyCase> = wide.iter().map(AnyCase::from).collect();
    cases.extend(wide.iter().map(backward));
    cases.extend([AnyCase::from(&merge), AnyCase::from(&merge_backward)]);
    cases
}

fn din(width: usize) -> Vec<AnyCase> {
    let (histories, targets) = people();
    let narrow = DinCase { histories, targets, width, hidden: vec![2], ..Default::default() };
    let many_units = DinCase { width: width.min(12_001), hidden: vec![256], ..narrow.clone() };
    let backward = |forward: &DinCase| {
        AnyCase::from(&DinBackwardCase { forward: forward.clone(), ..Default::default() })
    };
    vec![AnyCase::from(&narrow), AnyCase::from(&many_units), backward(&narrow), backward(&many_units)]
}

fn sdim(width: usize) -> Vec<AnyCase> {
    let (histories, targets) = people();
    let wide = SdimCase { histories, targets, width, groups: 2, bits: 2, ..Default::default() };
    let grouped = SdimCase { width: 2, groups: width, bits: 1, ..wide.clone() };
    let given = SdimCase { given: Given::Rows, ..wide.clone() };
    let both = SdimCase { width: 4000, groups: 600, ..given.clone() };
    let backward = |forward: &SdimCase, hashed| {
        let forward = SdimCase { given: Given::Rows, ..forward.clone() };
        AnyCase::from(&SdimBackwardCase { forward, narrow: false, hashed, bytes: true, nan: None })
    };
    let mut cases: Vec<AnyCase> = [&wide, &given, &grouped, &both].map(AnyCase::from).into();
    let crowd = SdimCase { targets: vec![60_001], width: 1, groups: 1, ..wide.clone() };
    cases.extend([
        backward(&wide, true),
        backward(&wide, false),
        backward(&grouped, false),
        backward(&crowd, false),
    ]);
    cases
}

fn tables(width: usize) -> Vec<AnyCase> {
    let (histories, targets) = people();
    let forward = LookupCase { table_rows: vec![3], widths: vec![width], ..Default::default() };
    let backward = LookupBackwardCase { forward: forward.clone(), ..Default::default() };
    let update = UpdateRowsCase { rows: 3, ids: 2, width, ..Default::default() };
    let decoupled = |attention, representation| DecoupledCase {
        histories: histories.clone(),
        targets: targets.clone(),
        table_rows: vec![3],
        attention_widths: vec![attention],
        representation_widths: vec![representation],
        top_k: 2,
        ..Default::default()
    };
    let wide = [decoupled(width, 2), decoupled(2, width)];
    let decoupled_backward = |forward: &DecoupledCase| {
        AnyCase::from(&DecoupledBackwardCase { forward: forward.clone(), ..Default::default() })
    };
    let mut cases = vec![AnyCase::from(&forward), AnyCase::from(&backward), AnyCase::from(&update)];
    cases.extend(wide.iter().map(AnyCase::from));
    cases.extend(wide.iter().map(decoupled_backward));
    cases
}

fn selections(width: usize) -> Vec<AnyCase> {
    let (histories, targets) = people();
    let search = |score, stored| {
        let (histories, targets) = people();
        AnyCase::from(&SearchCase {
            histories,
            targets,
            width,
            top_k: 2,
            score,
            stored,
            ..Default::default()
        })
    };
    let case =
        SelectedCase { histories, targets, width: 2, value_width: Some(2), top_k: 2, ..Default::default() };
    let wide =
        [SelectedCase { width, ..case.clone() }, SelectedCase { value_width: Some(width), ..case.clone() }];
    let backward = |forward: &SelectedCase| {
        AnyCase::from(&SelectedBackwardCase { forward: forward.clone(), ..Default::default() })
    };
    let tables = |forward: &SelectedCase| {
        AnyCase::from(&SelectedTableCase { forward: forward.clone(), ..Default::default() })
    };
    let mut cases: Vec<AnyCase> = wide.iter().map(AnyCase::from).collect();
    cases.extend(wide.iter().map(backward));
    cases.extend(wide.iter().map(tables));
    cases.extend([
        search(SearchScore::Dot { scale: 0.01 }, Compared::F32),
        search(SearchScore::Dot { scale: 0.01 }, Compared::Codes),
        search(SearchScore::Cosine, Compared::Bf16),
        search(SearchScore::Hamming, Compared::F32),
    ]);
    cases
}

fn others(width: usize) -> Vec<AnyCase> {
    let (histories, targets) = people();
    let tin = TinCase {
        histories: histories.clone(),
        targets: targets.clone(),
        // As attention.
        width: if width > 200_000 { width } else { width.min(10_001) },
        positions: 3,
        ..Default::default()
    };
    let channels = ChannelsCase { histories, targets, width, channels: 2, top_k: 2, ..Default::default() };
    vec![
        AnyCase::from(&tin),
        AnyCase::from(&TinBackwardCase { forward: tin, ..Default::default() }),
        AnyCase::from(&channels),
        AnyCase::from(&ChannelsBackwardCase { forward: channels, asked: [true; 2], narrow: false }),
    ]
}

#[test]
fn wide_rows_are_right_or_refused() {
    let Some(gpu) = device() else { return };
    let mut wrong = vec![];
    let widths: &[usize] = if thorough() { &[20_001, 50_000, 103_616, 300_001] } else { &[20_001, 300_001] };
    for &width in widths {
        let cases =
            [attention(width), din(width), sdim(width), tables(width), selections(width), others(width)];
        for (index, case) in cases.concat().into_iter().enumerate() {
            if !sample::has(&(width, index)) {
                continue;
            }
            let Err(failure) = check(&case, &gpu, rules()) else { continue };
            if !matches!(failure.error(), Some(Error::Limit { .. })) {
                wrong.push(format!("width {width}: {failure}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
