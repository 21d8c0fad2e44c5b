//! How long the spans of a plan are, from what pieces cost and how many a device runs at a time.
//!
//! A single request is cut until it fills the device, or until starting more pieces and combining their results would
//! cost more than it gains. A batch that fills the device anyway is cut only where one history would keep it waiting.

/// What pieces cost, in clock cycles, and how many run at a time. The costs are estimates, which only decide between
/// ways to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pace {
    /// Pieces that the device runs at a time.
    pub(crate) resident: usize,
    /// A step of a piece, whatever its rows.
    pub(crate) step: usize,
    /// What each row of the piece's tile adds to a step.
    pub(crate) row: usize,
    /// Starting and ending a piece.
    pub(crate) piece: usize,
    /// Combining partial results at all.
    pub(crate) combine: usize,
    /// Each partial result of a tile, which are read one after the other.
    pub(crate) slot: usize,
    /// The shortest piece, in steps.
    pub(crate) fewest_steps: usize,
    /// Whether tiles may be smaller than the largest, where more of them would fill the device.
    pub(crate) shrinks: bool,
}

/// A user's share of a plan: the steps of the history, and output rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) steps: usize,
    pub(super) rows: usize,
}

/// The size of tiles and the longest span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) tile_rows: usize,
    /// In steps.
    pub(super) longest: usize,
}

/// How often the device is filled with pieces, at most, before longer histories are left whole.
const MOST_WAVES: usize = 4;

impl Pace {
    /// One piece at a time, so that nothing is cut that need not be.
    #[cfg(any(test, feature = "cuda", feature = "wgpu"))]
    pub(crate) const WHOLE: Self =
        Self { resident: 1, step: 1, row: 0, piece: 1, combine: 1, slot: 1, fewest_steps: 1, shrinks: false };

    /// The same for so many pieces at a time.
    #[cfg(any(test, feature = "cuda", feature = "wgpu"))]
    pub(crate) fn on(self, resident: usize) -> Self {
        Self { resident: resident.max(1), ..self }
    }

    /// The same, for no more than `most` partial results besides those that the longest span asks for.
    #[cfg(any(test, feature = "cuda", feature = "wgpu"))]
    pub(crate) fn within(self, resident: usize, most: usize) -> Self {
        self.on(resident.min(most / MOST_WAVES))
    }

    /// The cheapest way to cut, of tiles of up to `tile_rows` rows and of spans of up to `most` steps. Besides a piece for
    /// each tile and those that `most` asks for, there are at most [`MOST_WAVES`] times as many pieces as run at a time.
    pub(super) fn choose(&self, shares: &[Share], tile_rows: usize, most: usize) -> Choice {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let mut best = Choice { tile_rows, longest: most as usize };
        let mut least = f64::INFINITY;
        let mut size = tile_rows;
        loop {
            let users: Vec<Tiles> = shares.iter().filter_map(|share| self.tiles(share, size)).collect();
            for longest in self.candidates(&users, most) {
                let cost = self.cost(&users, longest);
                if cost < least {
                    least = cost;
                    best = Choice { tile_rows: size, longest: longest as usize };
                }
            }
            if !self.shrinks || size == 1 || pieces(&users, most) >= self.resident as f64 {
                return best;
            }
            size = size.div_ceil(2);
        }
    }

    fn tiles(&self, share: &Share, tile_rows: usize) -> Option<Tiles> {
        let count = share.rows.div_ceil(tile_rows);
        let step = self.step + self.row * share.rows.div_ceil(count.max(1));
        let steps = u32::try_from(share.steps).unwrap_or(u32::MAX);
        (count > 0).then_some(Tiles { count: count as f64, steps, step: step as f64 })
    }

    /// Longest spans to try, longest first: those that leave the fewest pieces over after a number of waves, and longer ones of
    /// fewer pieces than run at a time, since all of a history's are combined.
    fn candidates(&self, users: &[Tiles], most: u32) -> Vec<u32> {
        let tiles: f64 = users.iter().map(|user| user.count).sum();
        let work: f64 = users.iter().map(|user| user.count * f64::from(user.steps)).sum();
        let fills = (work / self.resident as f64).ceil();
        // A conversion from f64 saturates.
        let mut spans = vec![most, (8.0 * fills) as u32, (4.0 * fills) as u32, (2.0 * fills) as u32];
        for wave in 1..=MOST_WAVES {
            let wanted = wave.saturating_mul(self.resident) as f64;
            let shortest = (work / wanted).ceil();
            if wanted > tiles {
                let longest = (work / (wanted - tiles)).ceil();
                let fits = |span| pieces(users, span) <= wanted;
                spans.push(first((shortest as u32).max(1), (longest as u32).max(1), fits));
            } else {
                spans.push(shortest as u32);
            }
        }
        let fewest = u32::try_from(self.fewest_steps).unwrap_or(u32::MAX);
        for span in &mut spans {
            *span = (*span).max(fewest).min(most).max(1);
        }
        spans.sort_unstable_by(|a, b| b.cmp(a));
        spans.dedup();
        spans
    }

    /// Estimated cycles: pieces in waves, no less than the longest, and what combining them takes.
    fn cost(&self, users: &[Tiles], longest: u32) -> f64 {
        let (mut count, mut steps, mut slowest, mut most_spans) = (0.0, 0.0, 0.0f64, 1);
        for user in users {
            let spans = user.steps.div_ceil(longest).max(1);
            count += user.count * f64::from(spans);
            steps += user.count * f64::from(user.steps) * user.step;
            slowest = slowest.max(f64::from(user.steps.min(longest)) * user.step);
            most_spans = most_spans.max(spans);
        }
        if count == 0.0 {
            return 0.0;
        }
        let waves = (count / self.resident as f64).ceil();
        let combining = self.combine as f64 + self.slot as f64 * f64::from(most_spans);
        let combining = if most_spans > 1 { combining } else { 0.0 };
        slowest.max(waves * steps / count) + waves * self.piece as f64 + combining
    }
}

/// The tiles of a user.
struct Tiles {
    count: f64,
    /// Of the history.
    steps: u32,
    /// What a step costs.
    step: f64,
}

/// The number of pieces of spans of up to `longest` steps.
fn pieces(users: &[Tiles], longest: u32) -> f64 {
    users.iter().map(|user| user.count * f64::from(user.steps.div_ceil(longest).max(1))).sum()
}

/// The first of `low..=high` for which `holds`, which holds for `high` and from the first on.
fn first(mut low: u32, mut high: u32, holds: impl Fn(u32) -> bool) -> u32 {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a kernel that takes 64 behaviours a step, on 132 multiprocessors that run three blocks of it each.
    const PACE: Pace = Pace {
        resident: 396,
        step: 8000,
        row: 0,
        piece: 2500,
        combine: 4500,
        slot: 60,
        fewest_steps: 1,
        shrinks: false,
    };
    /// Of one whose tiles take candidates one by one.
    const ONE_BY_ONE: Pace = Pace { resident: 264, step: 6000, row: 8000, shrinks: true, ..PACE };

    /// Users of the same number of behaviours and rows.
    fn users(count: usize, behaviours: usize, rows: usize) -> Vec<Share> {
        vec![Share { steps: behaviours.div_ceil(64), rows }; count]
    }

    /// The number of pieces.
    fn count(pace: &Pace, shares: &[Share], tile_rows: usize, longest: usize) -> usize {
        let users: Vec<Tiles> = shares.iter().filter_map(|share| pace.tiles(share, tile_rows)).collect();
        pieces(&users, u32::try_from(longest).unwrap_or(u32::MAX)) as usize
    }

    #[test]
    fn single_requests_fill_the_device_and_full_batches_are_not_cut() {
        let few = |shares: &[Share], longest| [shares, &users(1, longest, 16)].concat();
        // Users, and the tiles and pieces that they make.
        let table = [
            (PACE, users(1, 50, 16), [1, 1]),
            (PACE, users(1, 200, 16), [1, 4]),
            (PACE, users(1, 1000, 16), [1, 16]),
            (PACE, users(1, 4096, 16), [1, 64]),
            (PACE, users(1, 20_000, 16), [1, 157]),
            (PACE, users(1, 100_000, 16), [1, 391]),
            (PACE, users(1, 4096, 200), [7, 7 * 32]),
            (PACE, users(8, 4096, 32), [8, 8 * 32]),
            (PACE, users(64, 200, 32), [64, 64 * 4]),
            (PACE, users(64, 4096, 32), [64, 64 * 6]),
            (PACE, users(400, 4096, 32), [400, 1200]),
            (PACE, users(4096, 4096, 32), [4096, 4096]),
            (PACE, few(&users(4000, 64, 32), 100_000), [4001, 4105]),
            (ONE_BY_ONE, users(1, 1000, 16), [16, 256]),
            (ONE_BY_ONE, users(1, 100, 3), [3, 6]),
            (ONE_BY_ONE, users(1, 100_000, 16), [1, 261]),
            (ONE_BY_ONE, users(300, 1000, 16), [300, 900]),
            (Pace { fewest_steps: 4, ..PACE }, users(1, 1000, 16), [1, 4]),
            (Pace::WHOLE, users(3, 100_000, 50), [6, 6]),
            (PACE, users(0, 0, 0), [0, 0]),
            (PACE, users(5, 0, 40), [10, 10]),
            (PACE, users(5, 1000, 0), [0, 0]),
        ];
        for (pace, shares, expected) in table {
            let chosen = pace.choose(&shares, 32, 1 << 20);
            let count = |longest| count(&pace, &shares, chosen.tile_rows, longest);
            let [tiles, pieces] = [usize::MAX, chosen.longest].map(count);
            let [first, count] = [shares.first(), shares.last()].map(|share| share.copied());
            assert_eq!([tiles, pieces], expected, "{} users, {first:?} to {count:?}", shares.len());
        }
    }

    #[test]
    fn few_pieces_are_made_however_little_they_cost() {
        let free = Pace { piece: 0, combine: 0, slot: 0, ..PACE };
        for shares in [users(1, 1 << 22, 1), users(30, 1 << 18, 7), users(500, 1 << 16, 64)] {
            let chosen = free.choose(&shares, 32, 1 << 20);
            let count = |longest| count(&free, &shares, 32, longest);
            assert!(count(chosen.longest) <= count(usize::MAX) + MOST_WAVES * free.resident);
        }
    }

    #[test]
    fn extreme_sizes_do_not_overflow() {
        let huge = Share { steps: usize::MAX, rows: usize::MAX };
        for pace in [PACE, ONE_BY_ONE, Pace::WHOLE, PACE.within(usize::MAX, 0), PACE.on(0)] {
            let chosen = pace.choose(&[huge, huge], 32, usize::MAX);
            assert!(chosen.longest >= 1 && (1..=32).contains(&chosen.tile_rows));
        }
    }
}
