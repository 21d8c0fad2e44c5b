//! Dynamic shared memory and steps are those of the kernels' own layouts, which the PTX exports as `<symbol>_layout`.

use crate::cuda::decoupled::attend::attend_shared;
use crate::cuda::decoupled::search::{VARIANTS as SEARCH_VARIANTS, search_shared};
use crate::cuda::din::warp_bytes;
use crate::cuda::kernels::text_of;
use crate::cuda::sdim::shares::shared_bytes;
use crate::cuda::search::rows::{all_variants, shared_bytes as row_search_shared};
use crate::cuda::selected::attend::{shared_bytes as selected_shared, sum_bytes};
use crate::cuda::selection::select_bytes;
use crate::cuda::target_attention::{backward, variants::VARIANTS};
use crate::cuda::tin;
use crate::element::{Element, bf16, f16};

/// The constant `<symbol>_layout` of a PTX file: 32-bit words, written as bytes without the zeros at the end.
fn layout(file: &str, symbol: &str) -> Vec<usize> {
    let text = text_of(file).expect("a file");
    let name = format!(" {symbol}_layout[");
    let (_, rest) = text.split_once(&name).unwrap_or_else(|| panic!("no {symbol}_layout in {file}"));
    let (length, rest) = rest.split_once("] = {").expect("values");
    let (values, _) = rest.split_once('}').expect("the end");
    let mut bytes: Vec<u8> = values.split(',').map(|byte| byte.trim().parse().expect("a byte")).collect();
    bytes.resize(length.parse().expect("a length"), 0);
    let word = |word: &[u8]| word.iter().rev().fold(0, |word, &byte| word << 8 | usize::from(byte));
    bytes.chunks(4).map(word).collect()
}

#[test]
fn target_attention() {
    for variant in VARIANTS.iter().chain(&tin::variants::VARIANTS) {
        let symbol = variant.kernel.symbol;
        let exported = layout(variant.kernel.file, symbol);
        assert_eq!(variant.step, exported[0], "step of {symbol}");
        if symbol.contains("stream") {
            assert_eq!(variant.dynamic_shared(variant.chunk, false), 0, "{symbol}");
            continue;
        }
        // Of a multiply-add kernel: with one tile of keys, and with more. On matrix units: with values, and without.
        let mma = symbol.contains("mma");
        let wider = if mma { variant.chunk } else { variant.chunk + 1 };
        let ours = [variant.dynamic_shared(variant.chunk, false), variant.dynamic_shared(wider, true)];
        assert_eq!(ours, exported[1..], "shared memory of {symbol}");
        let sizes = format!("_{}_rows_{}", variant.chunk, variant.tile_rows);
        assert!(symbol.contains(&format!("{sizes}_")) || symbol.ends_with(&sizes), "{symbol}");
    }
}

#[test]
fn target_attention_backward() {
    for variant in backward::variants::VARIANTS.iter().chain(&tin::variants::BACKWARD_VARIANTS) {
        let symbol = variant.kernel.symbol;
        let ours = [variant.step, variant.dynamic_shared(false), variant.dynamic_shared(true)];
        let sizes = symbol.trim_end_matches("_f16").trim_end_matches("_bf16");
        assert!(sizes.ends_with(&format!("_{}_rows_{}", variant.columns, variant.tile_rows)), "{symbol}");
        if symbol.contains("stream") {
            assert_eq!(ours[1..], [0; 2], "{symbol}");
            continue;
        }
        assert_eq!(ours, layout(variant.kernel.file, symbol)[..], "{symbol}");
    }
}

#[test]
fn din() {
    fn check<T: Element>(symbol: &str) {
        for sample in layout("din", symbol).chunks(6) {
            let [first, second, layers, inputs, stride, bytes] = *sample else { panic!("six numbers") };
            assert_eq!(warp_bytes::<T>(first, second, layers, inputs, stride), bytes, "{symbol}: {sample:?}");
        }
    }
    check::<f32>("din_attend_f32");
    check::<f16>("din_attend_f16");
    check::<bf16>("din_attend_bf16");
}

#[test]
fn sdim_encode() {
    fn check<T: Element>(file: &str, symbol: &str) {
        for sample in layout(file, symbol).chunks(5) {
            let [columns, groups, bits, stages, bytes] = *sample else { panic!("five numbers") };
            let ours = shared_bytes::<T>(columns, groups, bits, stages, true);
            // The host assumes the largest padding between bits.
            let padding = 2 * bits * 31 * 4;
            assert!((bytes..=bytes + padding).contains(&ours), "{symbol}: {ours} of {sample:?}");
        }
    }
    check::<f32>("sdim_encode", "sdim_encode_f32");
    check::<f32>("sdim_gather", "sdim_gather_f32");
    check::<f16>("sdim_encode", "sdim_encode_f16");
    check::<f16>("sdim_gather", "sdim_gather_f16");
    check::<bf16>("sdim_encode", "sdim_encode_bf16");
    check::<bf16>("sdim_gather", "sdim_gather_bf16");
}

/// The numbers of vec4s per row for which the kernels export their stages.
const VEC4S: [usize; 3] = [1, 3, 40];
/// What the host may assume too much: two vec4s of padding per staged column, twice four columns.
const PADDING: usize = 2 * 2 * 4 * 16;

#[test]
fn decoupled_search() {
    for variant in &SEARCH_VARIANTS {
        let symbol = variant.kernel.symbol;
        let exported = layout(variant.kernel.file, symbol);
        assert!(symbol.ends_with(&format!("_{}", variant.candidates)), "{symbol}");
        for (vec4s, stage) in VEC4S.into_iter().zip(&exported[1..]) {
            let (ours, kernel) = (search_shared(vec4s, variant), exported[0] + stage);
            assert!(ours <= 99 << 10, "{symbol}");
            assert!(
                (kernel..=kernel + PADDING).contains(&ours),
                "{symbol}, {vec4s} vec4s: {ours} for {kernel}"
            );
        }
    }
}

#[test]
fn search() {
    for (variant, quads) in all_variants() {
        let symbol = variant.kernel.symbol;
        let exported = layout(variant.kernel.file, symbol);
        for (vectors, stage) in VEC4S.into_iter().zip(&exported[1..]) {
            let ours = row_search_shared(vectors, vectors * quads, variant);
            assert_eq!(ours, exported[0] + stage, "{symbol}, {vectors} vectors");
            assert!(ours <= 99 << 10, "{symbol}");
        }
        assert!(symbol.ends_with(&format!("_{}", variant.candidates)), "{symbol}");
    }
    assert_eq!(layout("search", "search_select_many"), [select_bytes()]);
}

#[test]
fn selected() {
    fn check<T: Element>(of_type: &str) {
        let exported = layout("selected", &format!("selected_attention_{of_type}"));
        assert_eq!(exported, [selected_shared::<T>(32, 0), selected_shared::<T>(256, 100)], "{of_type}");
        for (file, kernel) in [
            ("selected_backward", "selected_gradients"),
            ("interest_channels", "channels_pool"),
            ("interest_channels_backward", "channels_gradients"),
        ] {
            let exported = layout(file, &format!("{kernel}_{of_type}"));
            assert_eq!(exported, [sum_bytes::<T>(32), sum_bytes::<T>(256)], "{kernel}_{of_type}");
        }
    }
    check::<f32>("f32");
    check::<f16>("f16");
    check::<bf16>("bf16");
}

#[test]
fn decoupled_attend() {
    let exported = layout("decoupled_attend", "decoupled_attend");
    for (vec4s, stage) in VEC4S.into_iter().zip(&exported[1..]) {
        let (ours, kernel) = (attend_shared(vec4s), exported[0] + stage);
        assert!((kernel..=kernel + PADDING).contains(&ours), "{vec4s} vec4s: {ours} for {kernel}");
    }
}
