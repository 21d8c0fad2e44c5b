//! Decoupled embeddings.

use burn::tensor::{Int, Tensor};
use longseq::{Decoupled, Result};
use longseq_burn::{IdTensors, Longseq};

use crate::attention::batch;
use crate::common::{Given, check_eager, check_gradients, ids, ints, random, row};
use crate::eager::{self, Users};
use crate::selected::positions;

const ROWS: usize = 6;
const FEATURES: usize = 2;

/// Attention tables, then representation tables.
fn tables() -> Vec<Given> {
    let widths = [3, 2, 4, 3].into_iter().enumerate();
    widths.map(|(index, width)| random(&[ROWS, width], index as u64)).collect()
}

struct Ids {
    history: Tensor<2, Int>,
    targets: Tensor<2, Int>,
}

impl Ids {
    fn new(users: &Users) -> Self {
        let of = |rows, seed| ids([rows, FEATURES], ROWS as u32, seed);
        Self { history: of(users.behaviours(), 20), targets: of(users.candidates(), 21) }
    }

    fn tensors(&self) -> IdTensors<'_> {
        IdTensors::new(&self.history, &self.targets)
    }
}

/// A feature's rows.
fn rows(table: &Tensor<2>, ids: &Tensor<2, Int>, feature: usize) -> Tensor<2> {
    table.clone().select(0, ids.clone().narrow(1, feature, 1).squeeze_dim(1))
}

/// The scores of all behaviours, candidates by behaviours of all users, `[M, N]`.
fn scores(op: &Decoupled, ids: &Ids, tables: &[Tensor<2>]) -> Tensor<2> {
    let product = |(feature, (table, &scale)): (usize, (&Tensor<2>, &f32))| {
        let (targets, history) = (rows(table, &ids.targets, feature), rows(table, &ids.history, feature));
        targets.matmul(history.transpose()) * f64::from(scale)
    };
    let products = tables.iter().zip(&op.scales).enumerate().map(product);
    products.reduce(|sum, product| sum + product).expect("a feature")
}

/// Search and aggregation where each candidate keeps these positions of its user's history.
fn eager(op: &Decoupled, users: &Users, ids: &Ids, kept: &[Vec<u32>], x: &[Given]) -> Result<Tensor<1>> {
    let tables: Vec<Tensor<2>> = x.iter().map(Given::tensor).collect();
    let all = scores(op, ids, &tables[..FEATURES]);
    let representation = |ids: &Tensor<2, Int>| {
        let rows = (0..FEATURES).map(|feature| rows(&tables[FEATURES + feature], ids, feature));
        Tensor::cat(rows.collect(), 1)
    };
    let (history, targets) = (representation(&ids.history), representation(&ids.targets));
    let mut out = Vec::new();
    for [n, _, m, count] in users.each() {
        for candidate in m..m + count {
            let at: Vec<i64> =
                kept[candidate].iter().map(|&position| i64::from(position) + n as i64).collect();
            let columns = ints(at.clone(), [at.len()]);
            let scores = all.clone().narrow(0, candidate, 1).select(1, columns);
            let pooled = eager::kept(scores, &history, &at);
            let target = targets.clone().narrow(0, candidate, 1);
            out.push(if op.multiply_target { pooled * target } else { pooled });
        }
    }
    Ok(row(Tensor::cat(out, 0)))
}

fn attend(longseq: &Longseq, op: &Decoupled, users: &Users, ids: &Ids, x: &[Given]) -> Result<Tensor<1>> {
    let tables: Vec<Tensor<2>> = x.iter().map(Given::tensor).collect();
    let tables: Vec<&Tensor<2>> = tables.iter().collect();
    let (attention, representation) = tables.split_at(FEATURES);
    let batch = batch(longseq, users)?;
    Ok(row(longseq.decoupled_attend(op, &batch, attention, representation, ids.tensors())?))
}

#[test]
fn with_a_top_k_and_over_the_whole_history() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let (ids, x) = (Ids::new(&users), tables());
    for multiply_target in [false, true] {
        let op = Decoupled::new([0.5, 0.7]).with_multiply_target(multiply_target);
        let op = op.with_top_k(Some(2));
        let (first, second) = (x[0].tensor(), x[1].tensor());
        let batch = batch(&longseq, &users)?;
        let kept = longseq.decoupled_search(&op, &batch, &[&first, &second], ids.tensors())?;
        let positions = positions(&kept);
        let ours = |x: &[Given]| attend(&longseq, &op, &users, &ids, x);
        check_eager("top 2", &x, ours, |x| eager(&op, &users, &ids, &positions, x))?;

        let op = op.with_top_k(None);
        let all: Vec<Vec<u32>> = [5, 5, 2].map(|length| (0..length).collect()).to_vec();
        let ours = |x: &[Given]| attend(&longseq, &op, &users, &ids, x);
        check_gradients("all", &x, ours, |x| eager(&op, &users, &ids, &all, x))?;
    }
    Ok(())
}

#[test]
fn a_top_k_is_asked_for() -> Result<()> {
    let users = Users::new(&[3], &[1]);
    let longseq = Longseq::cpu();
    let (ids, x) = (Ids::new(&users), tables());
    let (first, second) = (x[0].tensor(), x[1].tensor());
    let (batch, op) = (batch(&longseq, &users)?, Decoupled::new([0.5, 0.7]).with_top_k(None));
    let error = longseq.decoupled_search(&op, &batch, &[&first, &second], ids.tensors());
    assert!(error.is_err_and(|error| error.to_string().contains("top_k = None")));
    Ok(())
}
