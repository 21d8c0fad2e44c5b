//! The search: a block of behaviours is scored along the axes of all candidates of a tile, which sit in the lanes; then the scores are
//! transposed, so that lanes are behaviours and the choice of a channel compares vectors.

use crate::cpu::interest_channels::axes::Axes;
use crate::cpu::selection::{BLOCK, Best, Floor, Part, Queries, blocks};
use crate::cpu::vector::{Kernel, LANES, Lanes, Row, WideRows, transpose};
use crate::ops::{InterestChannels, KeptAmong};

/// The vectors of a block's behaviours.
const VECTORS: usize = BLOCK / LANES;

/// The lists of a candidate: what each channel keeps, then, if that is to be among the best of all, the best of all along each axis.
pub(super) fn lists(op: &InterestChannels) -> usize {
    match op.among {
        KeptAmong::All => 2 * op.channels,
        KeptAmong::Routed => op.channels,
    }
}

/// One part of the search.
pub(super) struct Route<'a> {
    pub(super) op: &'a InterestChannels,
    pub(super) axes: &'a Axes,
    pub(super) history: WideRows<'a>,
    pub(super) part: Part<'a>,
    /// The user's first behaviour.
    pub(super) first: usize,
}

impl Kernel for Route<'_> {
    type Output = Vec<Best>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<Best> {
        let Self { op, axes, history, part, first } = self;
        let (width, channels, targets) = (op.width, op.channels, part.targets);
        let rows = targets.start * channels..targets.end * channels;
        let queries = Queries::new(rows, width, |row, query| {
            query.copy_from_slice(&axes.rows[row * width..(row + 1) * width]);
        });
        let mut found = Found::new(op, targets.len(), part.floors);
        let mut scratch = Vec::new();
        let mut scores = [[0.0; LANES]; BLOCK];
        // `[VECTORS, rows]`, where rows are filled up to whole groups: lanes are behaviours.
        let filled = queries.groups() * LANES;
        let mut by_row = vec![[0.0; LANES]; VECTORS * filled];
        for (behaviours, _) in blocks(&part.history) {
            let count = behaviours.len();
            let keys = history.widen(l, behaviours.start * width..behaviours.end * width, &mut scratch);
            for group in 0..queries.groups() {
                let scores = &mut scores[..count];
                queries.products(l, group, keys, scores);
                for (scores, by_row) in scores.chunks(LANES).zip(by_row.chunks_exact_mut(filled)) {
                    let out = &mut by_row[group * LANES..(group + 1) * LANES];
                    transpose(scores.as_flattened(), LANES, scores.len(), out);
                }
            }
            for (candidate, m) in targets.clone().enumerate() {
                let exists = &axes.exists[m * channels..(m + 1) * channels];
                for (vector, by_row) in by_row.chunks_exact(filled).take(count.div_ceil(LANES)).enumerate() {
                    let scores = &by_row[candidate * channels..(candidate + 1) * channels];
                    let position = (behaviours.start - first + vector * LANES) as u32;
                    let count = LANES.min(count - vector * LANES);
                    found.add(l, candidate, (scores, exists), (position, count));
                }
            }
        }
        found.best
    }
}

/// What was found for some candidates.
struct Found<'a> {
    channels: usize,
    /// The lists of a candidate.
    lists: usize,
    best: Vec<Best>,
    /// The score that a behaviour must reach to be added to a list. (NaN: any will do. Positions ascend, so a tie with the worst is lost.)
    own: Vec<f32>,
    /// What must be reached according to other parts, which may cover later positions.
    floors: &'a [Floor],
}

impl<'a> Found<'a> {
    fn new(op: &InterestChannels, targets: usize, floors: &'a [Floor]) -> Self {
        let lists = lists(op);
        let best = (0..targets * lists).map(|_| Best::new(op.top_k)).collect();
        Self { channels: op.channels, lists, best, own: vec![f32::NAN; targets * lists], floors }
    }

    /// The score that a behaviour must reach to be added to a list.
    #[inline(always)]
    fn bar(&self, list: usize) -> f32 {
        self.own[list].max(self.floors[list].get())
    }

    #[inline(always)]
    fn push(&mut self, list: usize, score: f32, position: u32) {
        if self.best[list].push(score, position) {
            self.own[list] = self.best[list].worst().next_up();
        }
    }

    /// Sends the first `count` behaviours of a vector to the channels of a candidate: `scores` are those along each axis.
    #[inline(always)]
    fn add<L: Lanes>(
        &mut self,
        l: L,
        candidate: usize,
        (scores, exists): (&[Row], &[bool]),
        (position, count): (u32, usize),
    ) {
        let Some(start) = exists.iter().position(|&exists| exists) else { return };
        let first = candidate * self.lists;
        let lowest = l.splat(f32::NEG_INFINITY);
        // A behaviour with scores of NaN, none of which is larger than another, stays in the first channel.
        let (mut best, mut channel) = (lowest, l.splat(start as f32));
        let mut bar = l.splat(self.bar(first + start));
        for i in (start..self.channels).filter(|&i| exists[i]) {
            let score = l.load(&scores[i]);
            // NaN unless it is finite.
            let score = l.add(score, l.sub(score, score));
            let mut own = self.bar(first + i);
            if self.lists > self.channels {
                let all = first + self.channels + i;
                self.add_to_all(l, all, score, (position, count));
                // What a channel keeps is among the best of all: it reaches the worst of those.
                own = own.max(self.best[all].worst()).max(self.floors[all].get());
            }
            channel = l.if_less(best, score, l.splat(i as f32), channel);
            bar = l.if_less(best, score, l.splat(own), bar);
            best = l.if_less(best, score, score, best);
        }
        let best = l.if_less(lowest, best, best, l.splat(f32::NAN));
        if !any_reaches(l, best, bar) {
            return;
        }
        let [mut scores, mut bars, mut channels] = [[0.0; LANES]; 3];
        l.store(&mut scores, best);
        l.store(&mut bars, bar);
        l.store(&mut channels, channel);
        for lane in 0..count {
            let is_below = scores[lane] < bars[lane];
            if !is_below {
                self.push(first + channels[lane] as usize, scores[lane], position + lane as u32);
            }
        }
    }

    /// Adds behaviours to the best of all along an axis.
    #[inline(always)]
    fn add_to_all<L: Lanes>(&mut self, l: L, list: usize, score: L::V, (position, count): (u32, usize)) {
        let bar = self.bar(list);
        if !any_reaches(l, score, l.splat(bar)) {
            return;
        }
        let mut scores = [0.0; LANES];
        l.store(&mut scores, score);
        for (lane, &score) in scores[..count].iter().enumerate() {
            let is_below = score < bar;
            if !is_below {
                self.push(list, score, position + lane as u32);
            }
        }
    }
}

/// Whether any score reaches its bar: is not below it, so that NaN on either side counts.
#[inline(always)]
fn any_reaches<L: Lanes>(l: L, scores: L::V, bars: L::V) -> bool {
    l.sum(l.if_less(scores, bars, l.splat(0.0), l.splat(1.0))) != 0.0
}
