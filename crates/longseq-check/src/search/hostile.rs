//! Searches among rows that are hard to search among, and calls that are refused.

use longseq::*;

use crate::case::Rules;

/// What a search keeps: positions, scores and counts.
pub(super) type Kept = (Vec<u32>, Vec<f32>, Vec<u32>);

/// A search of one user's `f32` rows.
fn search_rows<B: Backend>(backend: &B, op: &Search, queries: &[f32], keys: &[f32]) -> Result<Kept> {
    let (q, k) = (backend.upload(queries)?, backend.upload(keys)?);
    let rows = |rows| SearchRows::F32(backend.view(rows));
    search(
        backend,
        op,
        queries.len() / op.width,
        keys.len() / op.width,
        SimilarityInputs::new(rows(&q), rows(&k)),
    )
}

/// A search for one user.
pub(super) fn search<B: Backend>(
    backend: &B,
    op: &Search,
    candidates: usize,
    behaviours: usize,
    inputs: SimilarityInputs<'_, B::Memory>,
) -> Result<Kept> {
    let [histories, targets] = [behaviours, candidates].map(|rows| Jagged::from_lengths(&[rows]));
    let kept = backend.search(op, &backend.batch(&histories?, &targets?)?, inputs)?;
    Ok((
        backend.download(backend.view(&kept.positions))?,
        backend.download(backend.view(&kept.scores))?,
        backend.download(backend.view(&kept.counts))?,
    ))
}

/// The argument that an error names.
fn argument<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    match result {
        Err(
            Error::Shape { argument, .. } | Error::Parameter { argument, .. } | Error::Limit { argument, .. },
        ) => argument,
        Err(Error::Unsupported { .. }) => "unsupported",
        other => panic!("{other:?}"),
    }
}

/// Cosines, whose lengths a device may only approximate.
#[track_caller]
fn assert_near(got: &[f32], expected: &[f32]) {
    let is_near = |(got, expected): (&f32, &f32)| got == expected || (got - expected).abs() <= 1e-6;
    assert!(
        got.len() == expected.len() && got.iter().zip(expected).all(is_near),
        "{got:?}, not {expected:?}"
    );
}

pub(super) fn sorts_nan_last<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let keys = [nan, 1.0, nan, 3.0, 2.0];
    let dot = Search::dot(1).with_top_k(5);
    let (positions, scores, counts) = search_rows(backend, &dot, &[1.0], &keys).expect("a valid call");
    assert_eq!((positions, counts), (vec![3, 4, 1, 0, 2], vec![5]));
    assert_eq!(scores[..3], [3.0, 2.0, 1.0]);
    assert!(scores[3].is_nan() && scores[4].is_nan());
    // A row that is not finite has no direction, whatever the candidate is.
    let cosine = Search::cosine(2).with_top_k(4);
    let keys = [infinity, 1.0, -1.0, 0.0, 0.0, nan, 1.0, 0.0];
    let (positions, scores, counts) =
        search_rows(backend, &cosine, &[1.0, 0.0, nan, 1.0], &keys).expect("a valid call");
    assert_eq!((positions, counts), (vec![3, 1, 0, 2, 0, 1, 2, 3], vec![4, 4]));
    assert_near(&scores[..2], &[1.0, -1.0]);
    assert!(scores[2..].iter().all(|score| score.is_nan()));
}

/// Rows whose squares leave the range of `f32`.
pub(super) fn takes_rows_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    let mut sizes = vec![1e-6, 1.0, 1e15, 1e25, 2e38];
    if rules.subnormal {
        sizes.push(1e-11);
    }
    for size in sizes {
        for width in [2, 16, 70] {
            let row = |x: f32, y: f32| {
                let mut row = vec![0.0; width];
                (row[0], row[width - 1]) = (x * size, y * size);
                row
            };
            let keys = [row(1.0, 1.0), row(0.0, 1.0), row(1.0, 0.0), row(-1.0, 0.0)].concat();
            let op = Search::cosine(width).with_top_k(4);
            for query in [row(1.0, 0.0), row(1e-3 / size, 0.0)] {
                let (positions, scores, _) = search_rows(backend, &op, &query, &keys).expect("a valid call");
                assert_eq!(positions, [2, 0, 1, 3], "{size:e}, {width}");
                let exact = [1.0, 0.5_f32.sqrt(), 0.0, -1.0];
                let are_near = scores.iter().zip(exact).all(|(score, exact)| (score - exact).abs() < 1e-6);
                assert!(are_near, "{size:e}, {width}: {scores:?}");
            }
        }
    }
}

/// 8-bit rows whose scales and offsets are 0, negative, infinite or NaN: the scores and the order of the reference.
pub(super) fn takes_int8_rows_with_any_scale<B: Backend>(backend: &B, rules: Rules) {
    const KINDS: [(f32, f32); 9] = [
        (1.0, 0.0),
        (0.0, 3.0),
        (-1.5, 0.5),
        (f32::INFINITY, 0.0),
        (f32::NAN, 0.0),
        (1.0, f32::NEG_INFINITY),
        (1.0, f32::NAN),
        (-0.0, 0.0),
        (0.5, -2.0),
    ];
    let side = |rows: usize, kind: &dyn Fn(usize) -> usize| {
        let codes: Vec<i8> = (0..3 * rows).map(|i| [-128, 0, 127, 5, -7][i * 3 % 5]).collect();
        let (scale, offset): (Vec<f32>, Vec<f32>) = (0..rows).map(|row| KINDS[kind(row)]).unzip();
        (codes, scale, offset)
    };
    // Candidates of each kind but those that make every score NaN; one history within a block, and one of several.
    let candidates = [0, 1, 2, 7, 8];
    for (length, top_k) in [(KINDS.len(), KINDS.len()), (700, 700)] {
        let op = Search::dot(3).with_top_k(top_k).with_scale(1.0);
        let (queries, keys) = (side(5, &|row| candidates[row]), side(length, &|row| row % KINDS.len()));
        let on_host = |(codes, scale, offset)| {
            let (codes, scale): (&Vec<i8>, &Vec<f32>) = (codes, scale);
            let offset: &Vec<f32> = offset;
            SearchRows::Int8 {
                codes: Host::view(codes),
                scale: Host::view(scale),
                offset: Host::view(offset),
            }
        };
        let [histories, targets] = [length, 5].map(|rows| Jagged::from_lengths(&[rows]).expect("one user"));
        let inputs = SimilarityInputs::new(
            on_host((&queries.0, &queries.1, &queries.2)),
            on_host((&keys.0, &keys.1, &keys.2)),
        );
        let exact = reference::search(&op, &Batch::new(histories, targets).expect("one user"), &inputs);
        let exact = exact.expect("a valid call");
        let run = || -> Result<Kept> {
            let up = |(codes, scale, offset): &(Vec<i8>, Vec<f32>, Vec<f32>)| {
                Ok((backend.upload(codes)?, backend.upload(scale)?, backend.upload(offset)?))
            };
            let (queries, keys) = (up(&queries)?, up(&keys)?);
            let rows = |(codes, scale, offset)| {
                let codes: &Buffer<B, i8> = codes;
                let (scale, offset): (&Buffer<B, f32>, &Buffer<B, f32>) = (scale, offset);
                let (codes, scale) = (backend.view(codes), backend.view(scale));
                SearchRows::Int8 { codes, scale, offset: backend.view(offset) }
            };
            let inputs = SimilarityInputs::new(
                rows((&queries.0, &queries.1, &queries.2)),
                rows((&keys.0, &keys.1, &keys.2)),
            );
            search(backend, &op, 5, length, inputs)
        };
        let (positions, scores, counts) = run().expect("a valid call");
        if !rules.nan {
            continue;
        }
        assert_eq!((&positions, &counts), (&exact.positions, &exact.counts), "{length} behaviours");
        for (slot, (&got, &exact)) in scores.iter().zip(&exact.scores).enumerate() {
            let is_same = f64::from(got) == exact || got.is_nan() && exact.is_nan();
            assert!(is_same, "{length} behaviours, slot {slot}: {got}, expected {exact}");
        }
    }
}

pub(super) fn keeps_no_rows_of_zeros<B: Backend>(backend: &B, _: Rules) {
    let op = Search::cosine(2).with_top_k(3);
    let keys = [0.0, -0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0];
    let (positions, scores, counts) = search_rows(backend, &op, &[1.0, 0.0], &keys).expect("a valid call");
    let infinity = f32::NEG_INFINITY;
    assert_eq!((positions, counts), (vec![2, EMPTY_SLOT, EMPTY_SLOT], vec![1]));
    assert_near(&scores, &[-1.0, infinity, infinity]);
    // A candidate of zeros is as near to one as to the other.
    let kept = search_rows(backend, &op, &[0.0, 0.0], &[1.0, 0.0, 0.0, 0.0, 2.0, 2.0]).expect("a valid call");
    assert_eq!(kept, (vec![0, 2, EMPTY_SLOT], vec![0.0, 0.0, infinity], vec![2]));
    // None at all, over many blocks.
    let (positions, _, counts) =
        search_rows(backend, &op, &[1.0, 0.0], &vec![0.0; 2000]).expect("a valid call");
    assert_eq!((positions, counts), (vec![EMPTY_SLOT; 3], vec![0]));
}

pub(super) fn keeps_the_newest_of_a_key<B: Backend>(backend: &B, _: Rules) {
    // The candidate's key at every 100th place, and the largest key everywhere else.
    let keys: Vec<u32> = (0..1050).map(|l| if l % 100 == 0 { 0 } else { u32::MAX }).collect();
    let run = |top_k: usize| -> Result<Kept> {
        let (queries, keys) = (backend.upload(&[0u32, 7])?, backend.upload(&keys)?);
        let inputs = SimilarityInputs::new(
            SearchRows::Keys(backend.view(&queries)),
            SearchRows::Keys(backend.view(&keys)),
        );
        search(backend, &Search::matching().with_top_k(top_k), 2, 1050, inputs)
    };
    let (positions, scores, counts) = run(3).expect("a valid call");
    assert_eq!((&positions[..3], &scores[..3], counts), (&[1000, 900, 800][..], &[1.0; 3][..], vec![3, 0]));
    assert_eq!(positions[3..], [EMPTY_SLOT; 3]);
    let (positions, _, counts) = run(12).expect("a valid call");
    assert_eq!((&positions[9..12], counts), (&[100, 0, EMPTY_SLOT][..], vec![11, 0]));
}

pub(super) fn ignores_bits_past_the_width<B: Backend>(backend: &B, _: Rules) {
    let run = |bits: usize, query: u32| -> Result<Kept> {
        let (queries, keys) = (backend.upload(&[query])?, backend.upload(&[0u32, u32::MAX, 0b101])?);
        let inputs = SimilarityInputs::new(
            SearchRows::Signs(backend.view(&queries)),
            SearchRows::Signs(backend.view(&keys)),
        );
        search(backend, &Search::hamming(bits).with_top_k(3), 1, 3, inputs)
    };
    for high in [0, u32::MAX << 3] {
        let kept = run(3, 0b111 | high).expect("a valid call");
        assert_eq!(kept, (vec![1, 2, 0], vec![3.0, 2.0, 0.0], vec![3]));
    }
    assert_eq!(run(32, 0).expect("a valid call").1, [32.0, 30.0, 0.0]);
}

/// A projection of exactly 0 gives 0, and so does one of NaN.
pub(super) fn packs_exact_zeros_to_zero<B: Backend>(backend: &B, rules: Rules) {
    let pack = |op: &Signs, rows: &[f32], rotations: &[f32]| -> Result<Vec<u32>> {
        let (rows, rotations) = (backend.upload(rows)?, backend.upload(rotations)?);
        let signs = backend.pack_signs(op, backend.view(&rows), backend.view(&rotations))?;
        backend.download(backend.view(&signs))
    };
    // Bits 0, 2, 4, … of the first row are 1, the others of the second row.
    let rotations: Vec<f32> = (0..2 * 35).map(|i| [1.0, -1.0, 0.0, 0.0][i % 2 + i / 35 * 2]).collect();
    let op = Signs::new(2, 35);
    let packed = pack(&op, &[1.0, 5.0, -1.0, 5.0, 0.0, -0.0], &rotations).expect("a valid call");
    let bits = |first: usize| {
        let ones = (0..32).filter(|t| rotations.get(first + t).is_some_and(|r| first + t < 35 && *r > 0.0));
        ones.fold(0u32, |word, t| word | 1 << t)
    };
    let (low, high) = (bits(0), bits(32));
    assert_eq!((low, high), (0x5555_5555, 0b101));
    assert_eq!(packed, [low, high, !low, !high & 0b111, 0, 0]);
    if rules.nan {
        assert_eq!(pack(&op, &[f32::NAN, 1.0], &rotations).expect("a valid call"), [0, 0]);
    }
    assert_eq!(argument(pack(&op, &[1.0], &rotations)), "rows");
    assert_eq!(argument(pack(&op, &[1.0, 2.0], &rotations[1..])), "rotations");
    assert_eq!(argument(pack(&Signs::new(0, 35), &[], &[])), "width");
    assert_eq!(argument(pack(&Signs::new(2, 0), &[], &[])), "bits");
}

pub(super) fn names_limits_before_it_allocates<B: Backend>(backend: &B, _: Rules) {
    let run = |op: Search| search_rows(backend, &op.with_scale(1.0), &[1.0], &[1.0]);
    assert_eq!(argument(run(Search::dot(1).with_top_k(Search::MAX_TOP_K + 1))), "top_k");
    assert_eq!(argument(run(Search::dot(1).with_top_k(usize::MAX))), "top_k");
    assert_eq!(argument(run(Search::dot(1).with_top_k(0))), "top_k");
    run(Search::dot(1).with_top_k(Search::MAX_TOP_K)).expect("a valid call");
    for scale in [f32::NAN, f32::INFINITY] {
        assert_eq!(
            argument(search_rows(backend, &Search::dot(1).with_scale(scale), &[1.0], &[1.0])),
            "scale"
        );
    }
    let signs = |bits: usize, words: usize| -> Result<Kept> {
        let words = backend.zeros::<u32>(words)?;
        let rows = || SearchRows::Signs(backend.view(&words));
        search(backend, &Search::hamming(bits), 1, 1, SimilarityInputs::new(rows(), rows()))
    };
    assert_eq!(argument(signs(0, 1)), "width");
    assert_eq!(argument(signs(Search::MAX_BITS + 1, 1)), "width");
    assert_eq!(argument(signs(33, 1)), "queries");
    assert_eq!(argument(signs(usize::MAX / 2, 1)), "width");
}

pub(super) fn takes_batches_of_nobody<B: Backend>(backend: &B, _: Rules) {
    let run = |histories: &[usize], targets: &[usize]| -> Result<(Vec<u32>, Vec<u32>)> {
        let [histories, targets] = [histories, targets].map(Jagged::from_lengths);
        let (histories, targets) = (histories?, targets?);
        let batch = backend.batch(&histories, &targets)?;
        let (queries, keys) =
            (backend.zeros::<f32>(targets.rows() * 3)?, backend.zeros::<f32>(histories.rows() * 3)?);
        let inputs = SimilarityInputs::new(
            SearchRows::F32(backend.view(&queries)),
            SearchRows::F32(backend.view(&keys)),
        );
        let kept = backend.search(&Search::dot(3).with_top_k(2), &batch, inputs)?;
        Ok((backend.download(backend.view(&kept.positions))?, backend.download(backend.view(&kept.counts))?))
    };
    assert_eq!(run(&[], &[]), Ok((vec![], vec![])));
    assert_eq!(run(&[5], &[0]), Ok((vec![], vec![])));
    assert_eq!(
        run(&[0, 1], &[2, 1]),
        Ok((vec![EMPTY_SLOT, EMPTY_SLOT, EMPTY_SLOT, EMPTY_SLOT, 0, EMPTY_SLOT], vec![0, 0, 1]))
    );
}

pub(super) fn refuses_what_a_score_does_not_take<B: Backend>(backend: &B, _: Rules) {
    let floats = backend.upload(&[1.0f32; 4]).expect("memory");
    let codes = backend.upload(&[1i8; 4]).expect("memory");
    let words = backend.upload(&[1u32; 4]).expect("memory");
    let rows = |kind: usize| match kind {
        0 => SearchRows::F32(backend.view(&floats)),
        1 => SearchRows::Codes(backend.view(&codes)),
        2 => SearchRows::Int8 {
            codes: backend.view(&codes),
            scale: backend.view(&floats),
            offset: backend.view(&floats),
        },
        3 => SearchRows::Signs(backend.view(&words)),
        _ => SearchRows::Keys(backend.view(&words)),
    };
    let ops = [Search::dot(1), Search::cosine(1), Search::hamming(20), Search::matching()];
    let taken = [
        [true, true, true, false, false],
        [true, true, false, false, false],
        [false, false, false, true, false],
        [false, false, false, false, true],
    ];
    for (op, taken) in ops.iter().zip(taken) {
        for (queries, is_taken) in taken.into_iter().enumerate() {
            for keys in 0..5 {
                let kept = search(backend, op, 4, 4, SimilarityInputs::new(rows(queries), rows(keys)));
                assert_eq!(kept.is_ok(), is_taken && queries == keys, "{op:?}: {queries} and {keys}");
                if kept.is_err() {
                    assert_eq!(argument(kept), "unsupported");
                }
            }
        }
    }
    let biased = |op: &Search, kind: usize, length: usize| -> Result<Kept> {
        let bias = backend.view(&floats).slice(0, length)?;
        search(backend, op, 4, 4, SimilarityInputs::new(rows(kind), rows(kind)).with_bias(bias))
    };
    assert_eq!(argument(biased(&ops[1], 0, 4)), "bias");
    assert_eq!(argument(biased(&ops[2], 3, 4)), "bias");
    assert_eq!(argument(biased(&ops[0], 0, 3)), "bias");
    biased(&ops[0], 1, 4).expect("a valid call");
    let short = SearchRows::Int8 {
        codes: backend.view(&codes),
        scale: backend.view(&floats).slice(0, 3).expect("a part"),
        offset: backend.view(&floats),
    };
    assert_eq!(argument(search(backend, &ops[0], 4, 4, SimilarityInputs::new(short, rows(2)))), "scale");
    assert_eq!(argument(search(backend, &ops[0], 3, 4, SimilarityInputs::new(rows(0), rows(0)))), "queries");
    assert_eq!(argument(search(backend, &ops[0], 4, 5, SimilarityInputs::new(rows(0), rows(0)))), "keys");
}
