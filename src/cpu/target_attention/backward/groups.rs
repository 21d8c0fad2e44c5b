//! The query rows of a block, in groups whose sums are added up before they are added to the others.
//!
//! Gradients of keys, values and a bias are sums over candidates: over the lanes of one [`QueryRows`], over up to [`GROUPS`] of these, and
//! over all. One chain of additions would lose digits where a user has many candidates.

use crate::cpu::target_attention::backward::query_rows::{
    Block, BlockGradients, BlockScores, QueryRows, Sums,
};
use crate::cpu::vector::{LANES, Lanes, Row};
use crate::ops::TargetAttention;

/// 1024 query rows.
const GROUPS: usize = 64;

/// What query rows after the first [`GROUPS`] groups give to a block, in the layout of its gradients.
#[derive(Default)]
pub(super) struct More {
    keys: Vec<Row>,
    values: Vec<Row>,
    bias: Vec<f32>,
}

impl More {
    /// Zeros for what `grads` has.
    fn like(&mut self, grads: &BlockGradients<'_>) -> BlockGradients<'_> {
        fn zeros<'a>(rows: &'a mut Vec<Row>, sums: &Option<Sums<'_>>) -> Option<Sums<'a>> {
            let &Sums { rows: ref like, vectors, stride } = sums.as_ref()?;
            rows.clear();
            rows.resize(like.len(), [0.0; LANES]);
            Some(Sums { rows, vectors, stride })
        }
        let bias = grads.bias.as_ref().map(|bias| {
            self.bias.clear();
            self.bias.resize(bias.len(), 0.0);
            &mut self.bias[..]
        });
        BlockGradients {
            keys: zeros(&mut self.keys, &grads.keys),
            values: zeros(&mut self.values, &grads.values),
            bias,
            queries: grads.queries,
            are_aliased: grads.are_aliased,
            are_cleared: true,
        }
    }
}

/// Adds what a block and all query rows give to the gradients of the block and of the queries.
#[inline(always)]
pub(super) fn add_groups<L: Lanes>(
    l: L,
    op: &TargetAttention,
    (block, groups): (Block<'_>, &mut [QueryRows]),
    scratch: &mut BlockScores,
    (grads, more): (&mut BlockGradients<'_>, &mut More),
) {
    let is_one = groups.len() <= GROUPS;
    for (i, groups) in groups.chunks_mut(GROUPS).enumerate() {
        if i == 0 {
            // The first group of each head need not be among the first groups of all.
            if !is_one {
                grads.clear();
            }
            groups.iter_mut().for_each(|group| group.add_block(l, op, block, scratch, grads));
        } else {
            let mut part = more.like(grads);
            groups.iter_mut().for_each(|group| group.add_block(l, op, block, scratch, &mut part));
            grads.add(&part);
        }
    }
}
