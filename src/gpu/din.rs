//! How the backward pass of DIN is cut, and where the kernels of both GPU backends keep what.
//!
//! The pairs of candidate and behaviour are computed in parts of bounded memory, one after the other. A part is made of pieces:
//! some candidates of a user against a span of up to 256 of their behaviours. A tile is one candidate against 16 behaviours of a
//! piece, a run one candidate against all behaviours of a piece, a block 16 behaviours of a piece.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::element::Element;
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::{Din, DinGradients, DinLayerGradients};

/// Behaviours of a tile.
const TILE_ROWS: usize = 16;
/// The most behaviours of a piece.
const LONGEST: usize = 256;
/// The most tiles of a part: two steps add them up, 64 at a time.
const MOST_TILES: usize = 4096;
/// Numbers that the tiles of a part keep, at most: 16 MiB.
const PART_NUMBERS: usize = 1 << 22;
/// Numbers of partial sums of a layer's weights, where one set of them does not take more.
const SUM_NUMBERS: usize = 1 << 20;
/// Units and inputs of the part of a weight's gradient that a workgroup computes.
const OUTER: usize = 32;
/// Candidates of a piece: a thread adds them up one after the other.
const MOST_TARGETS: usize = 1024;
/// Parts whose sums are added in a chain before these are added to those of all.
pub(crate) const CHAIN: usize = 64;
/// Workgroups that compute the gradient of a weight at a time, about.
const OUTER_GROUPS: usize = 512;

/// What limits a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DinLimits {
    pub(crate) tiles: usize,
    /// Behaviours that are bound at a time.
    pub(crate) rows: usize,
    /// Candidates whose rows are kept.
    pub(crate) targets: usize,
    /// Candidates of a piece.
    pub(crate) of_piece: usize,
}

/// Some candidates of a user against a span of their behaviours. Rows are counted from the first of the part.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct DinPiece {
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
    pub(crate) first_target: u32,
    pub(crate) targets: u32,
    pub(crate) first_run: u32,
    pub(crate) first_tile: u32,
    pub(crate) first_block: u32,
    /// Whether the span is the first of the user's history.
    pub(crate) starts: u32,
}

/// The pieces of a user in a part, which have the same candidates. Users without candidates have none.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct DinUser {
    pub(crate) first_piece: u32,
    pub(crate) pieces: u32,
    pub(crate) first_target: u32,
    pub(crate) targets: u32,
}

/// Pairs that are computed at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DinPart {
    /// In the lists of all.
    pub(crate) pieces: Range<usize>,
    pub(crate) users: Range<usize>,
    /// In the batch.
    pub(crate) rows: Range<usize>,
    pub(crate) targets: Range<usize>,
    pub(crate) tiles: usize,
    pub(crate) runs: usize,
    pub(crate) blocks: usize,
    /// Whether these are the first, and the last, candidates of the behaviours.
    pub(crate) first: bool,
    pub(crate) last: bool,
}

/// All parts of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DinParts {
    pub(crate) parts: Vec<DinPart>,
    pub(crate) pieces: Vec<DinPiece>,
    pub(crate) users: Vec<DinUser>,
}

impl DinParts {
    /// Cuts a batch. Every behaviour is in the rows of a part, whether its user has candidates or not.
    pub(crate) fn new(batch: &Batch, limits: &DinLimits) -> Self {
        let mut all = Self::default();
        let longest = TILE_ROWS * limits.tiles.min(LONGEST / TILE_ROWS).min(limits.rows / TILE_ROWS).max(1);
        for (history, targets) in batch.requests() {
            for start in history.clone().step_by(longest) {
                let rows = start..history.end.min(start + longest);
                let starts = start == history.start;
                let per_run = rows.len().div_ceil(TILE_ROWS);
                let most = (limits.tiles / per_run).min(limits.targets).min(limits.of_piece).max(1);
                if targets.len() <= most {
                    if !all.parts.last().is_some_and(|part| part.takes(&rows, &targets, limits)) {
                        all.open(&rows, &targets);
                    }
                    all.push(rows, targets.clone(), starts);
                    continue;
                }
                for first in targets.clone().step_by(most) {
                    let group = first..targets.end.min(first + most);
                    all.open(&rows, &group);
                    let (is_first, is_last) = (first == targets.start, group.end == targets.end);
                    all.push(rows.clone(), group, starts);
                    if let Some(part) = all.parts.last_mut() {
                        (part.first, part.last) = (is_first, is_last);
                    }
                }
                // The next behaviours start a part.
                all.close();
            }
        }
        all.close();
        all
    }

    fn open(&mut self, rows: &Range<usize>, targets: &Range<usize>) {
        self.close();
        self.parts.push(DinPart {
            pieces: self.pieces.len()..self.pieces.len(),
            users: self.users.len()..self.users.len(),
            rows: rows.start..rows.start,
            targets: targets.start..targets.start,
            tiles: 0,
            runs: 0,
            blocks: 0,
            first: true,
            last: true,
        });
    }

    /// Nothing is added to the last part any more.
    fn close(&mut self) {
        if let Some(part) = self.parts.last_mut() {
            part.pieces.end = self.pieces.len();
            part.users.end = self.users.len();
        }
    }

    /// Adds a piece to the last part.
    fn push(&mut self, rows: Range<usize>, targets: Range<usize>, starts: bool) {
        let Some(part) = self.parts.last_mut() else { return };
        let per_run = rows.len().div_ceil(TILE_ROWS);
        let piece = DinPiece {
            first_row: (rows.start - part.rows.start) as u32,
            rows: rows.len() as u32,
            first_target: (targets.start - part.targets.start) as u32,
            targets: targets.len() as u32,
            first_run: part.runs as u32,
            first_tile: part.tiles as u32,
            first_block: part.blocks as u32,
            starts: starts.into(),
        };
        let own = (self.pieces.len() - part.pieces.start) as u32;
        let same = |user: &&mut DinUser| {
            !starts && user.first_target == piece.first_target && user.targets == piece.targets
        };
        let has_user = self.users.len() > part.users.start;
        match self.users.last_mut().filter(|_| has_user).filter(same) {
            _ if targets.is_empty() => {}
            Some(user) => user.pieces += 1,
            None => self.users.push(DinUser {
                first_piece: own,
                pieces: 1,
                first_target: piece.first_target,
                targets: piece.targets,
            }),
        }
        self.pieces.push(piece);
        part.rows.end = rows.end;
        part.targets.end = part.targets.end.max(targets.end);
        part.tiles += per_run * targets.len();
        part.runs += targets.len();
        part.blocks += per_run;
        part.pieces.end = self.pieces.len();
        part.users.end = self.users.len();
    }

    /// The pairs of a part.
    pub(crate) fn pairs(&self, part: &DinPart) -> f64 {
        let pieces = self.pieces[part.pieces.clone()].iter();
        pieces.map(|piece| f64::from(piece.rows) * f64::from(piece.targets)).sum()
    }

    /// The largest of something among all parts.
    pub(crate) fn most(&self, of: impl Fn(&DinPart) -> usize) -> usize {
        self.parts.iter().map(of).max().unwrap_or(0)
    }
}

impl DinPart {
    /// Whether another piece fits.
    fn takes(&self, rows: &Range<usize>, targets: &Range<usize>, limits: &DinLimits) -> bool {
        let tiles = rows.len().div_ceil(TILE_ROWS) * targets.len();
        self.first
            && self.last
            && self.rows.end == rows.start
            && self.tiles + tiles <= limits.tiles
            && rows.end - self.rows.start <= limits.rows
            && targets.end.max(self.targets.end) - self.targets.start <= limits.targets
    }
}

/// Which gradients a call asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DinWanted {
    pub(crate) targets: bool,
    pub(crate) history: bool,
    /// The weight of each hidden layer.
    pub(crate) weights: [bool; Din::MAX_HIDDEN],
    /// Any of a vector or of the output layer.
    pub(crate) vectors: bool,
    /// The first layer whose numbers before the activation need a gradient; the number of layers if none does.
    pub(crate) deepest: usize,
}

impl DinWanted {
    /// Nothing, of a network with so many hidden layers.
    pub(crate) fn none(layers: usize) -> Self {
        let weights = [false; Din::MAX_HIDDEN];
        Self { targets: false, history: false, weights, vectors: false, deepest: layers }
    }

    /// What is asked for; `None` if nothing is.
    pub(crate) fn new<S: Memory, G: Element>(grads: &DinGradients<'_, S, G>, layers: usize) -> Option<Self> {
        let vectors = |layer: &DinLayerGradients<'_, S, G>| {
            [&layer.bias, &layer.alpha, &layer.gain, &layer.shift].iter().any(|vector| vector.is_some())
        };
        let mut wanted = Self::none(layers);
        (wanted.targets, wanted.history) = (grads.targets.is_some(), grads.history.is_some());
        let output = grads.output_weight.is_some() || grads.output_bias.is_some();
        wanted.vectors = output || grads.hidden.iter().any(vectors);
        for (asked, layer) in wanted.weights.iter_mut().zip(grads.hidden.iter()) {
            *asked = layer.weight.is_some();
        }
        let first = grads.hidden.iter().position(|layer| layer.weight.is_some() || vectors(layer));
        wanted.deepest = if wanted.targets || wanted.history { 0 } else { first.unwrap_or(layers) };
        (output || wanted.deepest < layers).then_some(wanted)
    }

    /// Whether the sums of a layer's weight are computed: the gradients of candidates come with those of the first.
    pub(crate) fn sums(&self, layer: usize) -> bool {
        self.weights[layer] || layer == 0 && self.targets
    }
}

/// The network of a call, and where kernels keep its numbers, in vec4s.
///
/// A matrix of `n` rows of `m` vec4s has `n·m` of them. Everything is padded with zeros to whole vec4s, or more of them. `Cuda` keeps
/// the network and tiles in another order (`src/cuda/din/layout.rs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DinLayout {
    pub(crate) width: usize,
    pub(crate) width4: usize,
    pub(crate) units: Vec<usize>,
    /// 0 for layers that the network does not have.
    pub(crate) units4: [usize; Din::MAX_HIDDEN],
    /// Of the network, each layer's weights: of the first `W_k − W_d`, `W_p` and `W_q + W_d` with a row for each input, then the same
    /// with a row for each unit; of the others the weight in both ways.
    pub(crate) weights: [usize; Din::MAX_HIDDEN],
    /// The vectors of each layer: bias, gain, shift, alpha, output weight.
    pub(crate) vectors: [usize; Din::MAX_HIDDEN],
    pub(crate) output_bias: usize,
    pub(crate) network: usize,
    /// Of a tile: the numbers before the activation of each layer, whose place their gradients take, and those after it. A row for
    /// each unit. The behaviours come first.
    pub(crate) before: [usize; Din::MAX_HIDDEN],
    pub(crate) after: [usize; Din::MAX_HIDDEN],
    pub(crate) tile: usize,
    /// Of the sums of a tile: the gradients of each layer's bias, alpha, gain and shift, then those of the output layer.
    pub(crate) sums: [usize; Din::MAX_HIDDEN],
    pub(crate) output_sums: usize,
    pub(crate) tile_sums: usize,
    /// Of a candidate: its row, the gradient of its output, its term of the first layer.
    pub(crate) candidate: usize,
}

impl DinLayout {
    /// Of a network whose units and rows are padded to a multiple of `padding`, itself one of 4.
    pub(crate) fn new(width: usize, units: &[usize], padding: usize) -> Self {
        let width4 = width.next_multiple_of(padding) / 4;
        let zeros = [0; Din::MAX_HIDDEN];
        let mut layout = Self {
            width,
            width4,
            units: units.to_vec(),
            units4: zeros,
            weights: zeros,
            vectors: zeros,
            output_bias: 0,
            network: 0,
            before: zeros,
            after: zeros,
            tile: TILE_ROWS * width4,
            sums: zeros,
            output_sums: 0,
            tile_sums: 0,
            candidate: 0,
        };
        let mut inputs4 = width4;
        for (i, &units) in units.iter().enumerate() {
            let units4 = units.next_multiple_of(padding) / 4;
            layout.units4[i] = units4;
            layout.weights[i] = layout.network;
            layout.network += if i == 0 { 6 } else { 2 } * 4 * inputs4 * units4;
            layout.vectors[i] = layout.network;
            layout.network += 5 * units4;
            layout.before[i] = layout.tile;
            layout.after[i] = layout.tile + TILE_ROWS * units4;
            layout.tile += 2 * TILE_ROWS * units4;
            layout.sums[i] = layout.tile_sums;
            layout.tile_sums += 4 * units4;
            inputs4 = units4;
        }
        layout.output_bias = layout.network;
        layout.network += 1;
        layout.output_sums = layout.tile_sums;
        layout.tile_sums += inputs4 + 1;
        layout.candidate = 2 * width4 + layout.units4[0];
        layout
    }

    /// vec4s of inputs of a layer.
    pub(crate) fn inputs4(&self, layer: usize) -> usize {
        if layer == 0 { self.width4 } else { self.units4[layer - 1] }
    }

    /// Numbers of the sums of a layer's weight: of the first, those of `W_q + W_d`, `W_k − W_d` and `W_p`.
    pub(crate) fn weight_numbers(&self, layer: usize) -> usize {
        16 * self.inputs4(layer) * self.units4[layer] * if layer == 0 { 3 } else { 1 }
    }

    /// Where the sums of a layer's weight are among those of all, in numbers; those of vectors come first.
    pub(crate) fn first_weight(&self, layer: usize) -> usize {
        4 * self.tile_sums + (0..layer).map(|layer| self.weight_numbers(layer)).sum::<usize>()
    }

    /// Numbers of all sums.
    pub(crate) fn total_numbers(&self) -> usize {
        self.first_weight(self.units.len())
    }

    /// Workgroups of one set of sums of a layer's weight: by units, by inputs.
    pub(crate) fn outer_groups(&self, layer: usize) -> [usize; 2] {
        [self.units4[layer], self.inputs4(layer)].map(|vec4s| (4 * vec4s).div_ceil(OUTER))
    }

    /// How many of `items` (runs or tiles) a workgroup takes that computes sums of a layer's weight.
    fn per_split(&self, layer: usize, items: usize) -> usize {
        let [units, inputs] = self.outer_groups(layer);
        let most = (SUM_NUMBERS / self.weight_numbers(layer)).clamp(1, 64);
        items.div_ceil((OUTER_GROUPS / (units * inputs)).clamp(1, most)).max(1)
    }

    /// Sets of sums of a layer's weight over a part, and what a workgroup takes of its runs (first layer) or tiles.
    pub(crate) fn splits(&self, layer: usize, part: &DinPart) -> (usize, usize) {
        let items = if layer == 0 { part.runs } else { part.tiles };
        let per_split = self.per_split(layer, items);
        (items.div_ceil(per_split), per_split)
    }

    /// Numbers of the sums of a layer's weight over a part, before they are added up.
    pub(crate) fn part_numbers(&self, wanted: &DinWanted, parts: &DinParts) -> usize {
        let layers = (0..self.units.len()).filter(|&layer| wanted.sums(layer));
        let of_layer = |layer| parts.most(|part| self.splits(layer, part).0) * self.weight_numbers(layer);
        layers.map(of_layer).max().unwrap_or(0)
    }

    /// Limits of parts whose tiles keep so many vec4s each, besides those of the device.
    pub(crate) fn limits(&self, tile: usize) -> DinLimits {
        let targets = (PART_NUMBERS / (4 * self.candidate)).max(1);
        DinLimits {
            tiles: (PART_NUMBERS / tile.saturating_mul(4)).clamp(1, MOST_TILES),
            rows: (PART_NUMBERS / (4 * self.width4)).max(TILE_ROWS),
            targets,
            of_piece: targets.min(MOST_TARGETS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    fn batch(histories: &[usize], targets: &[usize]) -> Batch {
        Batch::new(Jagged::from_lengths(histories).unwrap(), Jagged::from_lengths(targets).unwrap()).unwrap()
    }

    #[test]
    fn parts_cover_every_pair_once() {
        let batch = batch(&[300, 0, 5, 40, 700, 0, 3], &[3, 2, 0, 50, 7, 9, 1]);
        for (tiles, rows, targets, of_piece) in [
            (4096, 4096, 4096, 4096),
            (40, 4096, 4096, 4096),
            (7, 64, 10, 4),
            (1, 16, 1, 1),
            (4096, 4096, 20, 9),
        ] {
            let all = DinParts::new(&batch, &DinLimits { tiles, rows, targets, of_piece });
            let mut seen = std::collections::HashMap::new();
            let mut row = 0;
            for part in &all.parts {
                assert!(part.tiles <= tiles && part.rows.len() <= rows && part.targets.len() <= targets);
                assert!(part.rows.start == row || !part.first, "{part:?}");
                row = part.rows.end;
                let mut counts = [0; 3];
                for piece in &all.pieces[part.pieces.clone()] {
                    assert_eq!([piece.first_run, piece.first_tile, piece.first_block], counts);
                    let per_run = piece.rows.div_ceil(16);
                    counts =
                        [counts[0] + piece.targets, counts[1] + piece.targets * per_run, counts[2] + per_run];
                    for m in piece.first_target..piece.first_target + piece.targets {
                        for l in piece.first_row..piece.first_row + piece.rows {
                            let pair = (part.targets.start + m as usize, part.rows.start + l as usize);
                            *seen.entry(pair).or_insert(0) += 1;
                        }
                    }
                }
                assert_eq!(counts.map(|count| count as usize), [part.runs, part.tiles, part.blocks]);
                let users = &all.users[part.users.clone()];
                let pieces: u32 = users.iter().map(|user| user.pieces).sum();
                let with_targets = all.pieces[part.pieces.clone()].iter().filter(|piece| piece.targets > 0);
                assert_eq!(pieces as usize, with_targets.count());
            }
            assert_eq!(row, 1048);
            let pairs = batch.requests().flat_map(|(history, targets)| {
                targets.flat_map(move |m| history.clone().map(move |l| (m, l)))
            });
            let pairs: Vec<_> = pairs.collect();
            assert!(pairs.iter().all(|pair| seen.get(pair) == Some(&1)) && seen.len() == pairs.len());
        }
    }
}
