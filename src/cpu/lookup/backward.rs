//! The gradients of tables that rows were looked up in: the rows of `grad_out` that the positions of each id belong to, added up.

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
        if saved.sorted.is_empty() {
            check_host_ids(NAME, "ids", self.op.ids, inputs.tables, ids)?;
        }
        for (sorted, table) in saved.sorted.iter().zip(inputs.tables) {
            given.push(checked(NAME, sorted, table.rows, used)?);
        }
        let (bag_of, weights) = self.bags_of_rows(used)?;
        let (bag_of, weights) = (bag_of.as_deref(), weights.as_deref());
        let second = grad_out.second.as_ref().map_or(&[][..], |second| second.as_slice());
        let mut first_grads = grads.tables.into_iter();
        let mut second_grads = grads.second_tables.into_iter();
        let (mut first_start, mut second_start) = (0, 0);
        for (feature, table) in inputs.tables.iter().enumerate() {
            let first = first_grads.next().flatten();
            let other = inputs.second_tables.get(feature);
            let asked = [
                (first, Some(table), grad_out.out.as_slice(), first_start, inputs.tables),
                (second_grads.next().flatten(), other, second, second_start, inputs.second_tables),
            ];
            first_start += table.width;
            second_start += other.map_or(0, |table| table.width);
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

    /// The bag of each row of ids, and the weight that each bag gives its rows; `None` where each is its own, or all are 1.
    #[expect(clippy::type_complexity, reason = "two lists, each of them optional")]
    fn bags_of_rows(&self, used: usize) -> Result<(Option<Vec<u32>>, Option<Vec<f32>>)> {
        let (bags, mean) = match self.bags {
            Bags::Each => return Ok((None, None)),
            Bags::Sum(bags) => (bags, false),
            Bags::Mean(bags) => (bags, true),
        };
        let mut bag_of = reserve(NAME, used)?;
        for (bag, rows) in bags.ranges().enumerate() {
            bag_of.resize(rows.end, bag as u32);
        }
        if !mean {
            return Ok((Some(bag_of), None));
        }
        let mut weights = reserve(NAME, bags.users())?;
        weights.extend(bags.ranges().map(|rows| 1.0 / rows.len().max(1) as f32));
        Ok((Some(bag_of), Some(weights)))
    }
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
    /// One for each bag.
    weights: Option<&'a [f32]>,
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
        (self.weights.map_or(1.0, |weights| weights[row]), &self.grad[start..start + self.width])
    }

    #[inline(always)]
    fn prefetch(&self, positions: &[u32]) {
        let rows = positions.iter().map(|&position| self.row_of(position));
        prefetch_parts(&self.grad[self.start..], self.stride, self.width, rows);
    }
}
