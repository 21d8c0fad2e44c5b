//! Decoupled embeddings.

use candle_core::{Device, Result, Tensor};
use longseq::{Decoupled, Optimiser};
use longseq_candle::{Batch, IdTensors, Longseq, SparseTable, TableTensor};

use crate::attention::batch;
use crate::common::{assert_near, check_gradients, flat, gradients, ids, loss, random};
use crate::eager::{self, Users};
use crate::selected::positions;

const ROWS: usize = 6;
const FEATURES: usize = 2;

/// Attention tables, then representation tables.
pub(crate) fn tables() -> Result<Vec<Tensor>> {
    [3, 2, 4, 3].into_iter().enumerate().map(|(index, width)| random(&[ROWS, width], index as u64)).collect()
}

pub(crate) struct Ids {
    pub(crate) history: Tensor,
    pub(crate) targets: Tensor,
}

impl Ids {
    pub(crate) fn new(users: &Users) -> Result<Self> {
        let of = |rows, seed| ids(&[rows, FEATURES], ROWS as u32, seed);
        Ok(Self { history: of(users.behaviours(), 20)?, targets: of(users.candidates(), 21)? })
    }

    pub(crate) fn tensors(&self) -> IdTensors<'_> {
        IdTensors::new(&self.history, &self.targets)
    }

    /// The positions that a search in these tables keeps.
    pub(crate) fn kept(
        &self,
        longseq: &Longseq,
        op: &Decoupled,
        batch: &Batch,
        tables: &[Tensor],
    ) -> Result<Vec<Vec<u32>>> {
        let attention: Vec<TableTensor> = tables[..FEATURES].iter().map(TableTensor::from).collect();
        positions(&longseq.decoupled_search(op, batch, &attention, self.tensors())?)
    }
}

/// A feature's rows.
fn rows(table: &Tensor, ids: &Tensor, feature: usize) -> Result<Tensor> {
    table.index_select(&ids.narrow(1, feature, 1)?.squeeze(1)?.contiguous()?, 0)
}

/// The scores of all behaviours, candidates by behaviours of all users, `[M, N]`.
fn scores(op: &Decoupled, ids: &Ids, tables: &[Tensor]) -> Result<Tensor> {
    let mut sum = None;
    for (feature, (table, &scale)) in tables.iter().zip(&op.scales).enumerate() {
        let (targets, history) = (rows(table, &ids.targets, feature)?, rows(table, &ids.history, feature)?);
        let product = (targets.matmul(&history.t()?)? * f64::from(scale))?;
        sum = Some(match sum {
            None => product,
            Some(sum) => product.add(&sum)?,
        });
    }
    sum.ok_or_else(|| candle_core::Error::msg("no features"))
}

/// Search and aggregation where each candidate keeps these positions of its user's history.
pub(crate) fn eager(
    op: &Decoupled,
    users: &Users,
    ids: &Ids,
    kept: &[Vec<u32>],
    x: &[Tensor],
) -> Result<Tensor> {
    let all = scores(op, ids, &x[..FEATURES])?;
    let representation = |ids: &Tensor| {
        let rows: Vec<Tensor> =
            (0..FEATURES).map(|feature| rows(&x[FEATURES + feature], ids, feature)).collect::<Result<_>>()?;
        Tensor::cat(&rows, 1)
    };
    let (history, targets) = (representation(&ids.history)?, representation(&ids.targets)?);
    let mut out = Vec::new();
    for [n, _, m, count] in users.each() {
        for (candidate, kept) in kept.iter().enumerate().skip(m).take(count) {
            let at: Vec<u32> = kept.iter().map(|&position| position + n as u32).collect();
            let at = Tensor::from_vec(at.clone(), at.len(), &Device::Cpu)?;
            let scores = all.narrow(0, candidate, 1)?.index_select(&at, 1)?;
            let row = eager::kept(&scores, &history, &[at.to_vec1()?])?;
            out.push(if op.multiply_target { row.mul(&targets.narrow(0, candidate, 1)?)? } else { row });
        }
    }
    Tensor::cat(&out, 0)
}

fn attend(longseq: &Longseq, op: &Decoupled, users: &Users, ids: &Ids, x: &[Tensor]) -> Result<Tensor> {
    let tables: Vec<TableTensor> = x.iter().map(TableTensor::from).collect();
    let (attention, representation) = tables.split_at(FEATURES);
    longseq.decoupled_attend(op, &batch(longseq, users)?, attention, representation, ids.tensors())
}

#[test]
fn with_a_top_k_and_over_the_whole_history() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let (ids, x) = (Ids::new(&users)?, tables()?);
    for multiply_target in [false, true] {
        let op = Decoupled::new([0.5, 0.7]).with_multiply_target(multiply_target);
        let op = op.with_top_k(Some(2));
        let positions = ids.kept(&longseq, &op, &batch(&longseq, &users)?, &x)?;
        let ours = |x: &[Tensor]| attend(&longseq, &op, &users, &ids, x);
        crate::common::check_eager("top 2", &x, ours, |x| eager(&op, &users, &ids, &positions, x))?;

        let op = op.with_top_k(None);
        let all: Vec<Vec<u32>> = [5, 5, 2].map(|length| (0..length).collect()).to_vec();
        let ours = |x: &[Tensor]| attend(&longseq, &op, &users, &ids, x);
        check_gradients("all", &x, ours, |x| eager(&op, &users, &ids, &all, x))?;
    }
    Ok(())
}

#[test]
fn sparse_tables_have_the_dense_gradient() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let (ids, x) = (Ids::new(&users)?, tables()?);
    for top_k in [Some(2), None] {
        let op = Decoupled::new([0.5, 0.7]).with_multiply_target(true).with_top_k(top_k);
        let exact = gradients(&x, |x| attend(&longseq, &op, &users, &ids, x))?;
        let sparse: Vec<SparseTable> =
            x.iter().map(|table| SparseTable::new(&table.copy()?)).collect::<Result<_>>()?;
        let tables: Vec<TableTensor> = sparse.iter().map(TableTensor::from).collect();
        let (attention, representation) = tables.split_at(FEATURES);
        loss(&longseq.decoupled_attend(&op, &batch, attention, representation, ids.tensors())?)?
            .backward()?;
        for ((table, exact), before) in sparse.iter().zip(exact).zip(&x) {
            table.step(&Optimiser::sgd(1.0))?;
            let moved: Vec<f64> =
                flat(before)?.iter().zip(flat(table.values())?).map(|(before, now)| before - now).collect();
            assert_near("moved", &moved, &exact, 1e-5);
        }
    }
    Ok(())
}

#[test]
fn a_top_k_is_asked_for() -> Result<()> {
    let users = Users::new(&[3], &[1]);
    let longseq = Longseq::cpu();
    let (ids, x) = (Ids::new(&users)?, tables()?);
    let tables: Vec<TableTensor> = x.iter().map(TableTensor::from).collect();
    let (batch, op) = (batch(&longseq, &users)?, Decoupled::new([0.5, 0.7]).with_top_k(None));
    let error = longseq.decoupled_search(&op, &batch, &tables[..FEATURES], ids.tensors());
    assert!(error.is_err_and(|error| error.to_string().contains("top_k = None")));
    Ok(())
}
