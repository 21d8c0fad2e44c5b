//! Search on the emulated CUDA device: every kernel in every mode of the emulator, in any order of blocks and warps, and kernels that
//! are wrong on purpose.

use cuda_emulator::Device;
use longseq::*;
use longseq_check::Case;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::search::{Compared, SearchCase, adds_up_a_wide_row};

use super::wrong_kernels::{Check, Mutant, assert_caught, assert_caught_in, checked, everywhere};

const DOT: SearchScore = SearchScore::Dot { scale: 0.3 };

/// More than a block takes at a time, and more than a tile of candidates.
fn rows(score: SearchScore, stored: Compared) -> SearchCase {
    SearchCase {
        score,
        stored,
        histories: vec![700, 0, 40],
        targets: vec![18, 1, 3],
        width: 24,
        ..Default::default()
    }
}

/// K for which a tile has one candidate, which the larger selection serves; entries of several spans.
fn many_kept() -> SearchCase {
    SearchCase { histories: vec![6000], targets: vec![2], top_k: 2500, width: 4, ..rows(DOT, Compared::F32) }
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let cases = [
        SearchCase { bias: true, ..rows(DOT, Compared::F32) },
        rows(SearchScore::Cosine, Compared::Codes),
        rows(SearchScore::Hamming, Compared::F16),
        SearchCase { width: 80, targets: vec![3, 1, 2], ..rows(SearchScore::Cosine, Compared::Bf16) },
        SearchCase { bias: true, ..rows(DOT, Compared::Int8) },
        SearchCase {
            histories: vec![5000, 3],
            targets: vec![2, 2],
            top_k: 40,
            ..rows(SearchScore::Match, Compared::F32)
        },
        SearchCase { width: 33, ..rows(SearchScore::Cosine, Compared::F16) },
        SearchCase { width: 130, ..rows(DOT, Compared::Codes) },
        many_kept(),
    ];
    for (index, case) in cases.iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

/// A search keeps the same behaviours, with the same bits, whatever the order of blocks and warps.
#[test]
fn selections_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    for case in [rows(SearchScore::Cosine, Compared::F32), many_kept()] {
        let run = |seed| {
            emulator.set_schedule_seed(seed);
            let gpu = Cuda::new(0).expect("a device");
            case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"))
        };
        let first = run(None);
        assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
    }
}

/// Pieces that are longer than lists, on a device with few processors: floors reject entries, and lists are cut while they fill.
#[test]
fn lists_are_cut_in_long_pieces() {
    let Some(emulator) = session() else { return };
    emulator.set_device(Device { multiprocessors: 4, ..Device::sm_80() });
    let gpu = Cuda::new(0).expect("a device");
    let case = long_pieces();
    // Nothing but empty places, and too few entries for K, in full lists.
    let empty = SearchCase { width: 1, zeros: true, ..rows(SearchScore::Cosine, Compared::Codes) };
    for case in [
        case.clone(),
        SearchCase { top_k: 600, ..case.clone() },
        SearchCase { top_k: 3000, histories: vec![40_000], targets: vec![2], width: 2, ..case },
        SearchCase { histories: vec![9000], targets: vec![16], top_k: 20, ..empty },
    ] {
        assert_check(&case, &gpu);
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

fn long_pieces() -> SearchCase {
    SearchCase {
        histories: vec![9000],
        targets: vec![16],
        top_k: 50,
        width: 4,
        ..rows(SearchScore::Cosine, Compared::F32)
    }
}

#[test]
fn wrong_searches_are_caught() {
    assert_caught(wrong());
    wrong_in_wide_rows().into_iter().for_each(|twin| assert_caught(vec![twin]));
    let Some(emulator) = session() else { return };
    emulator.set_device(Device { multiprocessors: 8, ..Device::sm_80() });
    assert_caught_in(&emulator, wrong_in_long_pieces());
}

/// Rows of several blocks of columns, whose sums are left out, or not made.
fn wrong_in_wide_rows() -> Vec<(Mutant, Check)> {
    let mutant = |kernel, fault, edit| Mutant { stem: "search_f32", kernel, fault, edit, everywhere: false };
    let wide = SearchCase {
        histories: vec![9],
        targets: vec![1],
        width: 9000,
        top_k: 4,
        ..rows(DOT, Compared::F32)
    };
    let chain = Check::new("wide rows", |gpu: &Cuda| adds_up_a_wide_row(gpu, 40_001, 1));
    vec![
        (
            everywhere(mutant("search_f32_wide_4", "blocks subtracted", ("add.rn.f32", "sub.rn.f32"))),
            checked(&wide),
        ),
        (mutant("search_f32_wide_4", "one block", (", 1020;", ", 1048572;")), chain),
    ]
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let shared = |kernel, fault, edit| everywhere(mutant("search", kernel, fault, edit));
    let dot = SearchCase { bias: true, ..rows(DOT, Compared::F32) };
    let cosine = rows(SearchScore::Cosine, Compared::F32);
    let narrow = SearchCase { bias: true, ..rows(DOT, Compared::Bf16) };
    let scaled = SearchCase { bias: true, width: 32, ..rows(DOT, Compared::Int8) };
    let codes = rows(SearchScore::Cosine, Compared::Codes);
    let signs = SearchCase { width: 72, ..rows(SearchScore::Hamming, Compared::F32) };
    let newest = SearchCase {
        histories: vec![5000, 3],
        targets: vec![2, 2],
        top_k: 40,
        ..rows(SearchScore::Match, Compared::F32)
    };
    let many = many_kept();
    let waited = ("cp.async.wait_group 0", "cp.async.wait_group 1");
    let late = ("bar.sync \t0;", "");
    let twins = [
        (mutant("search_f32", "search_f32_16", "rows not waited for", waited), &dot),
        (
            everywhere(mutant(
                "search_f32",
                "search_f32_16",
                "multiplied by lengths",
                ("rsqrt.approx.f32", "sqrt.approx.f32"),
            )),
            &cosine,
        ),
        (everywhere(mutant("search_bf16", "search_bf16_16", "rows read too early", late)), &narrow),
        (mutant("search_int8", "search_int8_16", "rows not waited for", waited), &scaled),
        (
            everywhere(mutant(
                "search_codes",
                "search_codes_16",
                "codes without signs",
                ("dp4a.s32.s32", "dp4a.u32.u32"),
            )),
            &codes,
        ),
        (
            everywhere(mutant(
                "search_signs",
                "search_signs_16",
                "zeros before bits counted",
                ("popc.b32", "clz.b32"),
            )),
            &signs,
        ),
        (shared("search_select", "entries exchanged one way", ("shfl.sync.bfly", "shfl.sync.down")), &codes),
        (shared("search_select_many", "counted before all are there", late), &many),
        (shared("search_newest", "one too many", ("setp.ge.u32", "setp.gt.u32")), &newest),
        (shared("search_newest", "counted before all are there", late), &newest),
        (shared("pack_signs_f32", "read too early", late), &signs),
    ];
    twins.into_iter().map(|(mutant, case)| (mutant, checked(case))).collect()
}

/// Longer pieces than a list has places.
pub(super) fn wrong_in_long_pieces() -> Vec<(Mutant, Check)> {
    let (stem, kernel, everywhere) = ("search_f32", "search_f32_16", false);
    let mutant = |fault, edit| Mutant { stem, kernel, fault, edit, everywhere };
    let twins = [mutant("bits below the floor counted", ("redux.sync.add", "redux.sync.max"))];
    twins.map(|mutant| (mutant, checked(&long_pieces()))).into()
}
