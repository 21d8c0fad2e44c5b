//! The reference of search. Formulas: [`Search`], [`Signs`].

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::arithmetic::dot;
use crate::reference::decoupled::{SelectionReference, ranked};
use crate::reference::sdim::{Projection, sdim_projections};

/// The best behaviours of each candidate.
///
/// # Errors
/// Those of [`Search::check`].
pub fn search(op: &Search, batch: &Batch, inputs: &SimilarityInputs<'_, Host>) -> Result<SelectionReference> {
    const NAME: &str = "search";
    op.check(batch, inputs)?;
    let (slots, top_k) = (op.selection_length(batch)?, op.top_k);
    let mut kept = SelectionReference {
        positions: filled(NAME, slots, EMPTY_SLOT)?,
        scores: filled(NAME, slots, f64::NEG_INFINITY)?,
        counts: filled(NAME, batch.targets().rows(), 0)?,
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let scores = search_scores(op, inputs, history.clone(), m).into_iter();
            // (position, score) of those that may be kept, oldest first.
            let mut scored: Vec<(usize, f64)> =
                scores.enumerate().filter_map(|(position, score)| Some((position, score?))).collect();
            if op.score == SearchScore::Match {
                scored.reverse();
            }
            let order: Vec<f64> = scored.iter().map(|&(_, score)| score).collect();
            let best = ranked(&order, top_k);
            kept.counts[m] = best.len() as u32;
            for (slot, (place, score)) in best.into_iter().enumerate() {
                kept.positions[m * top_k + slot] = scored[place].0 as u32;
                kept.scores[m * top_k + slot] = score;
            }
        }
    }
    Ok(kept)
}

/// The scores of candidate `m` with the behaviours in these rows, whose inputs [`Search::check`] accepts; `None` where a behaviour is
/// never kept.
pub fn search_scores(
    op: &Search,
    inputs: &SimilarityInputs<'_, Host>,
    history: Range<usize>,
    m: usize,
) -> Vec<Option<f64>> {
    history.map(|l| similarity(op, inputs, m, l)).collect()
}

/// The score of candidate `m` and behaviour `l`; `None` if the behaviour is never kept.
fn similarity(op: &Search, inputs: &SimilarityInputs<'_, Host>, m: usize, l: usize) -> Option<f64> {
    match (op.score, &inputs.queries, &inputs.keys) {
        (SearchScore::Match, SearchRows::Keys(queries), SearchRows::Keys(keys)) => {
            (queries[m] == keys[l]).then_some(1.0)
        }
        (SearchScore::Hamming, SearchRows::Signs(queries), SearchRows::Signs(keys)) => {
            let bit = |signs: &[u32], row: usize, i: usize| signs[row * op.words() + i / 32] >> (i % 32) & 1;
            let equal = (0..op.width).filter(|&i| bit(queries, m, i) == bit(keys, l, i));
            Some(equal.count() as f64)
        }
        (score, queries, keys) => {
            let (q, k) = (numbers(queries, m, op.width), numbers(keys, l, op.width));
            match score {
                SearchScore::Dot { scale } => {
                    let bias = inputs.bias.map_or(0.0, |bias| f64::from(bias[l]));
                    Some(f64::from(scale) * dot(&q, &k) + bias)
                }
                _ if k.iter().all(|&x| x == 0.0) => None,
                _ => {
                    let length = |x: &[f64]| dot(x, x).sqrt().max(Search::MIN_NORM.into());
                    Some(dot(&q, &k) / (length(&q) * length(&k)))
                }
            }
        }
    }
}

/// A row of numbers.
fn numbers(rows: &SearchRows<'_, Host>, row: usize, width: usize) -> Vec<f64> {
    fn wide<T: Element>(numbers: &[T]) -> Vec<f64> {
        numbers.iter().map(|x| x.to_f32().into()).collect()
    }
    let range = row * width..(row + 1) * width;
    match rows {
        SearchRows::F32(numbers) => wide(&numbers[range]),
        SearchRows::F16(numbers) => wide(&numbers[range]),
        SearchRows::Bf16(numbers) => wide(&numbers[range]),
        SearchRows::Codes(codes) => codes[range].iter().map(|&code| code.into()).collect(),
        SearchRows::Int8 { codes, scale, offset } => {
            let decode = |&code: &i8| f64::from(scale[row]) * f64::from(code) + f64::from(offset[row]);
            codes[range].iter().map(decode).collect()
        }
        SearchRows::Signs(_) | SearchRows::Keys(_) => Vec::new(),
    }
}

/// The projections whose signs are packed: `[rows, bits]`.
///
/// # Errors
/// Those of [`Signs::check`].
pub fn sign_projections<T: Element>(op: &Signs, rows: &[T], rotations: &[f32]) -> Result<Vec<Projection>> {
    op.check(rows.len(), rotations.len())?;
    sdim_projections(&Sdim::new(op.width).with_groups(op.bits, 1), rows, rotations)
}

/// The packed signs of rows `[rows, d]`: `[rows, ⌈bits/32⌉]`.
///
/// # Errors
/// Those of [`Signs::check`].
pub fn pack_signs<T: Element>(op: &Signs, rows: &[T], rotations: &[f32]) -> Result<Vec<u32>> {
    let projections = sign_projections(op, rows, rotations)?;
    let word =
        |bits: &[Projection]| bits.iter().enumerate().map(|(t, p)| u32::from(p.value > 0.0) << t).sum();
    Ok(projections.chunks(op.bits).flat_map(|row| row.chunks(32).map(word).collect::<Vec<u32>>()).collect())
}
