//! Searches whose every argument comes from the bytes.

use arbitrary::{Result, Unstructured};
use longseq::*;

use super::bytes::*;
use super::raw::both;

/// Rows of either side of a search.
enum Rows {
    Floats(Vec<f32>),
    Codes(Vec<i8>),
    Int8(Vec<i8>, Vec<f32>, Vec<f32>),
    Signs(Vec<u32>),
    Keys(Vec<u32>),
}

impl Rows {
    /// `kind` is mostly one that the score takes.
    fn new(
        bytes: &mut Unstructured<'_>,
        numeric: Numbers,
        kind: u8,
        rows: usize,
        op: &Search,
    ) -> Result<Self> {
        let area = product(&[rows, op.width]);
        let codes = |bytes: &mut Unstructured<'_>| -> Result<Vec<i8>> {
            let length = length(bytes, area)?;
            (0..length).map(|_| bytes.arbitrary()).collect()
        };
        let words = |bytes: &mut Unstructured<'_>, right: usize| -> Result<Vec<u32>> {
            let length = length(bytes, right)?;
            (0..length).map(|_| bytes.arbitrary()).collect()
        };
        Ok(match kind % 5 {
            0 => Self::Floats(numbers(bytes, numeric, area)?),
            1 => Self::Codes(codes(bytes)?),
            2 => Self::Int8(codes(bytes)?, numbers(bytes, numeric, rows)?, numbers(bytes, numeric, rows)?),
            3 => Self::Signs(words(bytes, product(&[rows, op.words()]))?),
            _ => Self::Keys(ids(bytes, rows, 4)?),
        })
    }

    fn view(&self) -> SearchRows<'_, Host> {
        match self {
            Self::Floats(rows) => SearchRows::F32(Host::view(rows)),
            Self::Codes(codes) => SearchRows::Codes(Host::view(codes)),
            Self::Int8(codes, scale, offset) => SearchRows::Int8 {
                codes: Host::view(codes),
                scale: Host::view(scale),
                offset: Host::view(offset),
            },
            Self::Signs(words) => SearchRows::Signs(Host::view(words)),
            Self::Keys(keys) => SearchRows::Keys(Host::view(keys)),
        }
    }
}

pub(super) fn search(bytes: &mut Unstructured<'_>) -> Result<()> {
    let numeric = Numbers::new(bytes)?;
    let Some(batch) = batch(bytes)? else { return Ok(()) };
    let width = size(bytes)?;
    let kind = bytes.arbitrary::<u8>()? % 5;
    let score = if bytes.ratio(1, 8)? { bytes.arbitrary::<u8>()? % 5 } else { kind };
    let op = match score {
        0 | 2 => Search::dot(width).with_scale(number(bytes, numeric)?),
        1 => Search::cosine(width),
        3 => Search::hamming(width),
        _ => Search::matching(),
    };
    let op = op.with_top_k(size(bytes)?);
    let queries = Rows::new(bytes, numeric, kind, batch.targets().rows(), &op)?;
    let kind = if bytes.ratio(1, 16)? { bytes.arbitrary()? } else { kind };
    let keys = Rows::new(bytes, numeric, kind, batch.histories().rows(), &op)?;
    let bias = numbers(bytes, numeric, batch.histories().rows())?;
    let mut inputs = SimilarityInputs::new(queries.view(), keys.view());
    inputs.bias = bytes.ratio(1, 4)?.then(|| Host::view(&bias));
    let (exact, got) = (reference::search(&op, &batch, &inputs), Cpu::new().search(&op, &batch, inputs));
    let Some((exact, got)) = both(exact, got) else { return Ok(()) };
    let used = batch.targets().total();
    // What a score of a few dozen terms, of up to 9000 each where they are decoded, may lose where it is small; the exact bounds are
    // those of the cases.
    let least = if matches!(keys, Rows::Int8(..)) { 1e5 } else { 10.0 };
    assert_eq!(got.counts[..used], exact.counts[..used]);
    for (m, &count) in exact.counts[..used].iter().enumerate() {
        for slot in m * op.top_k..m * op.top_k + count as usize {
            let (score, exact) = (f64::from(got.scores[slot]), exact.scores[slot]);
            if numeric == Numbers::Mild {
                assert!((score - exact).abs() <= 1e-3 * exact.abs().max(least), "{score} instead of {exact}");
            } else if numeric == Numbers::NotFinite {
                assert_eq!(score.is_nan(), exact.is_nan(), "{score} instead of {exact}");
            }
        }
    }
    Ok(())
}
