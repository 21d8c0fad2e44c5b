//! Candidates in groups of sixteen, for dot products with rows of behaviours.

use std::ops::Range;

use crate::cpu::vector::{FEW, LANES, Lanes, Row, product, product_of_few};

/// The most products of a chain of additions: of wider rows, blocks are added up.
const LINKS: usize = 4096;

/// The rows of some candidates.
pub(in crate::cpu) struct Queries {
    width: usize,
    groups: Vec<Group>,
}

/// Up to sixteen candidates.
struct Group {
    count: usize,
    /// `[a]`, one lane per candidate, or `[FEW, a]` if there are few. As target attention does it: its backward pass computes
    /// the same scores again, and where scores are large, another order of additions would be another softmax.
    rows: Vec<Row>,
    are_few: bool,
}

impl Queries {
    /// Rows of `width` numbers; `read` gives that of a candidate.
    #[inline(always)]
    pub(in crate::cpu) fn new(
        targets: Range<usize>,
        width: usize,
        mut read: impl FnMut(usize, &mut [f32]),
    ) -> Self {
        let mut query = vec![0.0; width];
        let mut groups = Vec::new();
        for first in targets.clone().step_by(LANES) {
            let count = LANES.min(targets.end - first);
            let are_few = count <= FEW && width.is_multiple_of(LANES) && width <= LANES * LINKS;
            let mut rows = vec![[0.0; LANES]; if are_few { FEW * width / LANES } else { width }];
            for lane in 0..count {
                read(first + lane, &mut query);
                let (start, step) = if are_few { (lane * width, 1) } else { (lane, LANES) };
                let places = rows.as_flattened_mut()[start..].iter_mut().step_by(step);
                places.zip(&query).for_each(|(place, value)| *place = *value);
            }
            groups.push(Group { count, rows, are_few });
        }
        Self { width, groups }
    }

    /// The number of groups of [`LANES`] candidates.
    pub(in crate::cpu) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Computes the dot products of the first rows with the candidates of a group. Lanes without a candidate hold 0. Equal rows
    /// have equal products.
    #[inline(always)]
    pub(in crate::cpu) fn products<L: Lanes>(&self, l: L, group: usize, rows: &[f32], products: &mut [Row]) {
        let Group { count: used, rows: queries, are_few } = &self.groups[group];
        let count = products.len();
        if *are_few {
            product_of_few(l, rows, self.width, count, (queries, *used), |i, dots| {
                products[i] = [0.0; LANES];
                products[i][..FEW].copy_from_slice(&dots);
            });
        } else {
            let (first, later) = queries.split_at(LINKS.min(queries.len()));
            product(l, rows, self.width, count, first, |i, sums| l.store(&mut products[i], sums));
            for (block, columns) in later.chunks(LINKS).enumerate() {
                product(l, &rows[(block + 1) * LINKS..], self.width, count, columns, |i, sums| {
                    let sums = l.add(l.load(&products[i]), sums);
                    l.store(&mut products[i], sums);
                });
            }
        }
    }
}
