//! The gradients of tables that rows were looked up in: the rows of `grad_out` that the positions of each id belong to, added up.

use crate::cpu::lookup::weights::weight_gradient;
use crate::cpu::sorted_ids::{SortedVectors, checked, sort};
use crate::cpu::table_gradient::{RowsByPosition, sum_by_id};
use crate::cpu::vector::{Instructions, prefetch_parts};
use crate::error::Result;
use crate::host::{Host, reserve};
use crate::jagged::Jagged;
use crate::ops::*;

const NAME: &str = "lookup_backward";

/// A backward pass.
pub(super) struct Backward<'a> {
    pub(super) instructions: Instructions,
    pub(super) op: &'a Lookup,
    pub(super) bags: &'a Bags<'a, Jagged>,
    pub(super) inputs: &'a LookupInputs<'a, Host>,
}

impl Backward<'_> {
    pub(super) fn run(
        &self,
        saved: &LookupSaved<'_, Host>,
        grad_out: &LookupGradOut<'_, Host>,
        grads: LookupGradients<'_, Host>,
    ) -> Result<()> {
        let inputs = self.inputs;
        let used = self.op.check_backward(self.bags, inputs, saved, grad_out, &grads)?;
        let features = inputs.tables.len();
        let ids = &inputs.ids[..used * features];
        // Everything is checked before anything is written.
        let mut given = reserve(NAME, features)?;
        if saved.sorted.is_empty() || grads.weights.is_some() {
            check_host_ids(NAME, "ids", self.op.ids, inputs.tables, ids)?;
        }
        for (sorted, table) in saved.sorted.iter().zip(inputs.tables) {
            given.push(checked(NAME, sorted, table.rows, used)?);
        }
        let bag_of = self.bags_of_rows(used)?;
        let bag_of = bag_of.as_deref();
        let second = grad_out.second.as_ref().map_or(&[][..], |second| second.as_slice());
        if let (Some(out), Some(bag_of)) = (grads.weights, bag_of) {
            let out = &mut out.into_slice()[..ids.len()];
            weight_gradient(
                self.instructions,
                inputs.tables,
                ids,
                bag_of,
                grad_out.out.as_slice(),
                false,
                out,
            );
            if !inputs.second_tables.is_empty() {
                weight_gradient(self.instructions, inputs.second_tables, ids, bag_of, second, true, out);
            }
        }
        let mut first_grads = grads.tables.into_iter();
        let mut second_grads = grads.second_tables.into_iter();
        let (mut first_start, mut second_start) = (0, 0);
        let mut shares = None;
        for (feature, table) in inputs.tables.iter().enumerate() {
            let first = first_grads.next().flatten();
            let other = inputs.second_tables.get(feature);
            let asked = [
                (first, Some(table), grad_out.out.as_slice(), first_start, inputs.tables),
                (second_grads.next().flatten(), other, second, second_start, inputs.second_tables),
            ];
            first_start += table.width;
            second_start += other.map_or(0, |table| table.width);
            if feature == 0 || self.op.ids == IdPolicy::Skip {
                shares = self.shares(feature, table.rows)?;
            }
            let weights = self.weights(feature, shares.as_deref());
            let mut own: Option<SortedVectors> = None;
            for (gradient, table, grad, start, tables) in asked {
                let (Some(gradient), Some(table)) = (gradient, table) else { continue };
                if given.is_empty() && own.is_none() {
                    let column = IdColumn::new(Host::view(ids), features, feature, table.rows);
                    own = Some(sort(NAME, &column.with_policy(IdPolicy::Zero))?);
                }
                let Some(sorted) = own.as_ref().map(|own| own.sorted()).or(given.get(feature).copied())
                else {
                    continue;
                };
                let (stride, width) = (total_width(tables), table.width);
                let rows = GradRows { grad, stride, start, width, bag_of, weights };
                sum_by_id(NAME, self.instructions, &sorted, &rows, width, gradient)?;
            }
        }
        Ok(())
    }

    /// The bag of each row of ids; `None` where each is its own.
    fn bags_of_rows(&self, used: usize) -> Result<Option<Vec<u32>>> {
        let (Bags::Sum(bags) | Bags::Mean(bags)) = self.bags else { return Ok(None) };
        let mut bag_of = reserve(NAME, used)?;
        for (bag, rows) in bags.ranges().enumerate() {
            bag_of.resize(rows.end, bag as u32);
        }
        Ok(Some(bag_of))
    }

    /// The share of each id of a feature in the mean of its bag, for each bag.
    fn shares(&self, feature: usize, rows: usize) -> Result<Option<Vec<f32>>> {
        let Bags::Mean(bags) = self.bags else { return Ok(None) };
        let (ids, features) = (self.inputs.ids.as_slice(), self.inputs.tables.len());
        let counts = |l: &usize| (ids[l * features + feature] as usize) < rows;
        let mut shares = reserve(NAME, bags.users())?;
        shares.extend(bags.ranges().map(|bag| {
            let count = if self.op.ids == IdPolicy::Skip { bag.filter(counts).count() } else { bag.len() };
            1.0 / count.max(1) as f32
        }));
        Ok(Some(shares))
    }

    /// The weights of the positions of a feature.
    fn weights<'b>(&'b self, feature: usize, shares: Option<&'b [f32]>) -> Weights<'b> {
        match (&self.inputs.weights, shares) {
            (Some(weights), _) => {
                Weights::Ids { weights: weights.as_slice(), features: self.inputs.tables.len(), feature }
            }
            (None, Some(shares)) => Weights::Bags(shares),
            (None, None) => Weights::Ones,
        }
    }
}

/// The weights of positions.
#[derive(Clone, Copy)]
enum Weights<'a> {
    Ones,
    /// One for each bag.
    Bags(&'a [f32]),
    /// `[N, F]`, of which a column.
    Ids {
        weights: &'a [f32],
        features: usize,
        feature: usize,
    },
}

/// The part of `grad_out` that belongs to one table.
struct GradRows<'a> {
    /// `[N or bags, stride]`.
    grad: &'a [f32],
    stride: usize,
    /// The first column of the table.
    start: usize,
    width: usize,
    bag_of: Option<&'a [u32]>,
    weights: Weights<'a>,
}

impl GradRows<'_> {
    #[inline(always)]
    fn row_of(&self, position: u32) -> usize {
        self.bag_of.map_or(position, |bags| bags[position as usize]) as usize
    }
}

impl RowsByPosition for GradRows<'_> {
    #[inline(always)]
    fn row(&self, position: u32) -> (f32, &[f32]) {
        let row = self.row_of(position);
        let start = row * self.stride + self.start;
        let weight = match self.weights {
            Weights::Ones => 1.0,
            Weights::Bags(weights) => weights[row],
            Weights::Ids { weights, features, feature } => weights[position as usize * features + feature],
        };
        (weight, &self.grad[start..start + self.width])
    }

    #[inline(always)]
    fn prefetch(&self, positions: &[u32]) {
        let rows = positions.iter().map(|&position| self.row_of(position));
        prefetch_parts(&self.grad[self.start..], self.stride, self.width, rows);
    }
}
