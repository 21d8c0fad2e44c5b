//! From gradients of behaviours and candidates to gradients of tables. The ids of a feature are sorted once, for its tables of both
//! sets.

use crate::cpu::sorted_ids::{Sorted, SortedVectors, sort};
use crate::cpu::table_gradient::{RowsByPosition, sum_by_id};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, add, prefetch_parts};
use crate::error::Result;
use crate::host::{Host, filled, reserve};
use crate::ops::*;

/// The ids of behaviours, then of candidates.
pub(super) struct Ids<'a> {
    pub(super) features: usize,
    /// `[n, F]`.
    pub(super) behaviours: &'a [u32],
    /// `[t, F]`.
    pub(super) candidates: &'a [u32],
}

/// The gradients of what reads the tables of one set.
#[derive(Clone, Copy)]
pub(super) struct GradientRows<'a> {
    /// `[n]`: a factor for the row of each behaviour; `None`: 1.
    pub(super) weights: Option<&'a [f32]>,
    /// `[n]`: which of `rows` belongs to each behaviour.
    pub(super) index: &'a [u32],
    /// `[_, Σ width]`.
    pub(super) rows: &'a [f32],
    /// `[t]`, which of the candidates' rows, and the rows, `[_, Σ width]`; `None` where candidates do not read the tables.
    pub(super) candidates: Option<(&'a [u32], &'a [f32])>,
}

/// The tables of one set, and where their gradients go.
pub(super) struct Asked<'a> {
    tables: &'a [Table<'a, Host>],
    places: Vec<Option<Place<'a>>>,
    /// Whether candidates read the tables.
    with_candidates: bool,
}

/// Where the gradient of one table goes.
enum Place<'a> {
    /// All of it is written at once.
    Whole(TableGradient<'a, Host>),
    /// Parts are added.
    Sum(TableSum<'a>),
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        tables: &'a [Table<'a, Host>],
        gradients: Vec<Option<TableGradient<'a, Host>>>,
        with_candidates: bool,
    ) -> Self {
        let places = gradients.into_iter().map(|gradient| gradient.map(Place::Whole)).collect();
        Self { tables, places, with_candidates }
    }

    /// Whether any gradient is asked for.
    pub(super) fn is_any(&self) -> bool {
        self.places.iter().any(Option::is_some)
    }
}

/// Adds up the gradients of each id, and writes them, or adds them to the sums.
pub(super) fn write(
    operation: &'static str,
    instructions: Instructions,
    ids: &Ids<'_>,
    sets: &mut [(&mut Asked<'_>, GradientRows<'_>)],
) -> Result<()> {
    let behaviours = ids.behaviours.len() / ids.features;
    let mut starts = vec![0; sets.len()];
    for feature in 0..ids.features {
        let mut sorted: Option<SortedVectors> = None;
        for ((asked, rows), start) in sets.iter_mut().zip(&mut starts) {
            let table = &asked.tables[feature];
            let own = *start;
            *start += table.width;
            let Some(place) = asked.places.get_mut(feature).and_then(Option::as_mut) else { continue };
            if sorted.is_none() {
                sorted = Some(sorted_column(operation, ids, feature, table.rows)?);
            }
            let Some(sorted) = &mut sorted else { continue };
            // Sets whose tables candidates read come first.
            if !asked.with_candidates {
                sorted.keep_below(behaviours);
            }
            let stride = total_width(asked.tables);
            let rows = FeatureRows { rows: *rows, stride, start: own, width: table.width };
            match place {
                Place::Whole(_) => {
                    if let Some(Place::Whole(gradient)) = asked.places[feature].take() {
                        sum_by_id(operation, instructions, &sorted.sorted(), &rows, table.width, gradient)?;
                    }
                }
                Place::Sum(sum) => sum.add(operation, instructions, &sorted.sorted(), &rows)?,
            }
        }
    }
    Ok(())
}

/// Prepares for gradients that come in parts: writes the ids of all of them, and zeros.
pub(super) fn begin_sums(operation: &'static str, ids: &Ids<'_>, sets: &mut [&mut Asked<'_>]) -> Result<()> {
    let behaviours = ids.behaviours.len() / ids.features;
    for feature in 0..ids.features {
        let mut sorted: Option<SortedVectors> = None;
        for asked in sets.iter_mut() {
            let Some(place) = asked.places.get_mut(feature) else { continue };
            let Some(Place::Whole(gradient)) = place.take() else { continue };
            let table = &asked.tables[feature];
            let (ids, rows) = match gradient {
                TableGradient::Dense(rows) => (None, rows.into_slice()),
                TableGradient::Sparse(gradient) => {
                    if sorted.is_none() {
                        sorted = Some(sorted_column(operation, ids, feature, table.rows)?);
                    }
                    let Some(sorted) = &mut sorted else { continue };
                    if !asked.with_candidates {
                        sorted.keep_below(behaviours);
                    }
                    let all = sorted.sorted().ids;
                    gradient.count.into_slice()[0] = all.len() as u32;
                    let own = &mut gradient.ids.into_slice()[..all.len()];
                    own.copy_from_slice(all);
                    (Some(&*own), &mut gradient.rows.into_slice()[..all.len() * table.width])
                }
            };
            rows.fill(0.0);
            *place = Some(Place::Sum(TableSum { ids, rows, width: table.width }));
        }
    }
    Ok(())
}

fn sorted_column(
    operation: &'static str,
    ids: &Ids<'_>,
    feature: usize,
    rows: usize,
) -> Result<SortedVectors> {
    let column = IdColumn::new(Host::view(ids.behaviours), ids.features, feature, rows)
        .with_more_ids(Host::view(ids.candidates))
        .with_policy(IdPolicy::Zero);
    sort(operation, &column)
}

/// The part of the gradients that belongs to one feature.
struct FeatureRows<'a> {
    rows: GradientRows<'a>,
    stride: usize,
    /// The first column of the feature.
    start: usize,
    width: usize,
}

impl RowsByPosition for FeatureRows<'_> {
    #[inline(always)]
    fn row(&self, position: u32) -> (f32, &[f32]) {
        let GradientRows { weights, index, rows, candidates } = self.rows;
        let position = position as usize;
        let (weight, row, rows) = match (index.get(position), candidates) {
            (Some(&row), _) => (weights.map_or(1.0, |weights| weights[position]), row, rows),
            (None, Some((index, rows))) => (1.0, index[position - self.rows.index.len()], rows),
            // Positions of candidates are left out.
            (None, None) => (0.0, 0, rows),
        };
        let start = row as usize * self.stride + self.start;
        (weight, &rows[start..start + self.width])
    }

    /// The rows of behaviours; those that have weights are rows of candidates, which are few.
    #[inline(always)]
    fn prefetch(&self, positions: &[u32]) {
        let GradientRows { weights, index, rows, .. } = self.rows;
        if weights.is_none() && !rows.is_empty() {
            let rows_of = positions.iter().filter_map(|&position| index.get(position as usize));
            let rows_of = rows_of.map(|&row| row as usize);
            prefetch_parts(&rows[self.start..], self.stride, self.width, rows_of);
        }
    }
}

/// A gradient that parts are added to, in their order.
struct TableSum<'a> {
    /// The ids of the rows; `None`: all rows.
    ids: Option<&'a [u32]>,
    rows: &'a mut [f32],
    width: usize,
}

/// Rows that one task adds.
const ROWS: usize = 1024;

impl TableSum<'_> {
    fn add(
        &mut self,
        operation: &'static str,
        instructions: Instructions,
        sorted: &Sorted<'_>,
        rows: &FeatureRows<'_>,
    ) -> Result<()> {
        let (count, width) = (sorted.ids.len(), self.width);
        let (mut ids, mut sums, mut found) =
            (filled(operation, count, 0)?, filled(operation, count.saturating_mul(width), 0.0)?, [0]);
        let [ids_view, found] = [&mut ids[..], &mut found[..]].map(Host::view_mut);
        let gradient = SparseGradientMut::new(ids_view, Host::view_mut(&mut sums), found);
        sum_by_id(operation, instructions, sorted, rows, width, gradient.into())?;
        let mut places: Vec<usize> = reserve(operation, count)?;
        let mut place = 0;
        for &id in sorted.ids {
            place = match self.ids {
                None => id as usize,
                Some(all) => place + all[place..].partition_point(|&other| other < id),
            };
            places.push(place);
        }
        let (mut left, mut before) = (&mut self.rows[..], 0);
        let mut tasks = reserve(operation, count.div_ceil(ROWS))?;
        for (places, sums) in places.chunks(ROWS).zip(sums.chunks(ROWS * width)) {
            let (first, end) = (places[0], places[places.len() - 1] + 1);
            let (_, rest) = std::mem::take(&mut left).split_at_mut((first - before) * width);
            let (own, rest) = rest.split_at_mut((end - first) * width);
            (left, before) = (rest, end);
            tasks.push((places, sums, own));
        }
        for_each(tasks, |(places, sums, own)| {
            for (place, sum) in places.iter().zip(sums.chunks_exact(width)) {
                let start = (place - places[0]) * width;
                add(&mut own[start..start + width], sum);
            }
        });
        Ok(())
    }
}
