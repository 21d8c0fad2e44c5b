//! Search.

use longseq::*;

use super::{assert_error, batch};

/// Three behaviours and two candidates of width 3.
const KEYS: [f32; 9] = [1.0; 9];
const QUERIES: [f32; 6] = [1.0; 6];
const CODES: [i8; 9] = [1; 9];
const WORDS: [u32; 6] = [1; 6];

fn floats(rows: &[f32]) -> SearchRows<'_, Host> {
    SearchRows::F32(Host::view(rows))
}

fn search(op: &Search, inputs: SimilarityInputs<'_, Host>, slots: usize) -> Result<()> {
    let (mut positions, mut scores, mut counts) = (vec![0; slots], vec![0.0; slots], [0; 2]);
    let out = SelectionMut::new(
        Host::view_mut(&mut positions),
        Host::view_mut(&mut scores),
        Host::view_mut(&mut counts),
    );
    let batch = batch(&[3], &[2]);
    let exact = reference::search(op, &batch, &inputs);
    let result = Cpu::new().search_into(op, &batch, inputs, out);
    if let Err(error) = exact {
        assert_eq!(result, Err(error));
    }
    result
}

#[test]
fn search_checks_its_parameters() {
    let inputs = SimilarityInputs::new(floats(&QUERIES), floats(&KEYS));
    let dot = Search::dot(3).with_top_k(2);
    search(&dot, inputs, 4).expect("a valid call");
    for (op, expected) in [
        (dot.with_top_k(0), "top_k: expected at least 1, got 0"),
        (dot.with_top_k(4097), "top_k needs 4097, above the limit of 4096"),
        (dot.with_scale(f32::NAN), "scale: expected a finite number, got NaN"),
        (Search::cosine(0), "width: expected at least 1, got 0"),
        (Search::hamming(16_777_217), "width needs 16777217, above the limit of 16777216"),
    ] {
        assert_error(search(&op, inputs, 4), &format!("search: {expected}"));
    }
    assert_error(
        search(&dot, inputs, 3),
        "search: positions: expected [M, K] = [2, 2], 4 elements, got 3 elements",
    );
}

#[test]
fn search_checks_its_inputs() {
    let (dot, cosine) = (Search::dot(3).with_top_k(2), Search::cosine(3).with_top_k(2));
    let keys = SearchRows::Keys(Host::view(&WORDS[..2]));
    let codes = SearchRows::Codes(Host::view(&CODES));
    let short = SearchRows::Int8 {
        codes: Host::view(&CODES[..6]),
        scale: Host::view(&KEYS[..1]),
        offset: Host::view(&KEYS[..2]),
    };
    let signs = |count| SearchRows::Signs(Host::view(&WORDS[..count]));
    for (op, queries, keys, expected) in [
        (
            cosine,
            keys,
            keys,
            "queries of keys is not supported; supported: rows of f32, f16 or bf16, and int8 codes",
        ),
        (
            dot,
            floats(&QUERIES),
            codes,
            "a search among int8 codes for f32 rows is not supported; supported: candidates and behaviours that are stored alike",
        ),
        (
            dot,
            floats(&QUERIES[1..]),
            floats(&KEYS),
            "queries: expected [M, a] = [2, 3], 6 elements, got 5 elements",
        ),
        (dot, short, short, "scale: expected [M] = [2], 2 elements, got 1 elements"),
        (
            Search::hamming(33),
            signs(4),
            signs(3),
            "keys: expected [N, ⌈bits/32⌉] = [3, 2], 6 elements, got 3 elements",
        ),
    ] {
        let inputs = SimilarityInputs::new(queries, keys);
        assert_error(search(&op, inputs, 4), &format!("search: {expected}"));
    }
    let inputs = SimilarityInputs::new(floats(&QUERIES), floats(&KEYS)).with_bias(Host::view(&KEYS[..3]));
    search(&dot, inputs, 4).expect("a valid call");
    assert_error(
        search(&cosine, inputs, 4),
        "search: bias: expected none, except for dot products, got a bias",
    );
}

#[test]
fn packing_of_signs_checks_its_buffers() {
    let pack = |op: Signs, rows: usize, rotations: usize, words: usize| {
        let mut out = vec![0; words];
        let (rows, rotations) = (&KEYS[..rows], &KEYS[..rotations]);
        Cpu::new().pack_signs_into(&op, Host::view(rows), Host::view(rotations), Host::view_mut(&mut out))
    };
    pack(Signs::new(3, 2), 9, 6, 3).expect("a valid call");
    for (result, expected) in [
        (pack(Signs::new(3, 0), 9, 6, 3), "bits: expected at least 1, got 0"),
        (pack(Signs::new(3, 2), 8, 6, 3), "rows: expected [rows, d] = [2, 3], 6 elements, got 8 elements"),
        (
            pack(Signs::new(3, 2), 9, 5, 3),
            "rotations: expected [d, bits] = [3, 2], 6 elements, got 5 elements",
        ),
        (
            pack(Signs::new(3, 2), 9, 6, 4),
            "out: expected [rows, ⌈bits/32⌉] = [3, 1], 3 elements, got 4 elements",
        ),
    ] {
        assert_error(result, &format!("pack_signs: {expected}"));
    }
}
