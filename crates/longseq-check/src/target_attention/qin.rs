//! QIN's layer against an independent computation in `f64` (`tests/golden/formulas.py`): projections and residual here, attention with
//! ReLU on a backend.

use longseq::*;

use crate::case::Rules;
use crate::compare::compare;
use crate::golden::{self, Golden};

/// A matrix, `[rows, columns]`.
struct Matrix {
    columns: usize,
    numbers: Vec<f64>,
}

impl Matrix {
    fn load(golden: &Golden, name: &str) -> Self {
        Self { columns: golden.shape(name)[1], numbers: golden.f64(name) }
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.numbers.chunks(self.columns)
    }

    fn transposed(&self) -> Self {
        let columns = self.numbers.len() / self.columns;
        let numbers = (0..self.columns).flat_map(|column| self.rows().map(move |row| row[column])).collect();
        Self { columns, numbers }
    }

    /// `self · otherᵀ`.
    fn times(&self, other: &Self) -> Self {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        let numbers = self.rows().flat_map(|a| other.rows().map(move |b| dot(a, b))).collect();
        Self { columns: other.numbers.len() / other.columns, numbers }
    }

    fn plus(&self, other: &Self) -> Vec<f64> {
        self.numbers.iter().zip(&other.numbers).map(|(a, b)| a + b).collect()
    }

    fn upload<B: Backend>(&self, backend: &B) -> Result<Buffer<B, f32>> {
        backend.upload(&self.numbers.iter().map(|&x| x as f32).collect::<Vec<_>>())
    }

    fn download<B: Backend>(backend: &B, buffer: &Buffer<B, f32>, columns: usize) -> Result<Self> {
        let numbers = backend.download(backend.view(buffer))?.into_iter().map(f64::from).collect();
        Ok(Self { columns, numbers })
    }
}

fn assert_close(name: &str, golden: &Golden, got: &[f64], rules: Rules) {
    let (got, expected): (Vec<f32>, _) = (got.iter().map(|&x| x as f32).collect(), golden.f64(name));
    compare(name, &got, &expected, &golden::bound(&expected), rules).unwrap();
}

/// `W_o·(ReLU((W_q x)(W_k X)ᵀ/√d_a)·(W_v X)) + x`, and its gradients by candidates and behaviours.
pub(super) fn matches_qin<B: Backend>(backend: &B, rules: Rules) {
    let golden = Golden::load("qin_d12");
    let load = |name| Matrix::load(&golden, name);
    let [targets, history, grad_out] = ["targets", "history", "grad_out"].map(load);
    let [w_q, w_k, w_v, w_o] = ["w_q", "w_k", "w_v", "w_o"].map(load);
    let width = golden.shape("w_q")[0];
    let op = TargetAttention::new(width).with_weighting(Weighting::Relu);
    let run = || -> Result<[Matrix; 4]> {
        let batch = backend
            .batch(&golden.jagged("offsets", "history"), &golden.jagged("target_offsets", "targets"))?;
        let queries = targets.times(&w_q).upload(backend)?;
        let (keys, values) = (history.times(&w_k).upload(backend)?, history.times(&w_v).upload(backend)?);
        let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys))
            .with_values(backend.view(&values));
        let out = backend.target_attention(&op, &batch, inputs)?;
        let grad_pooled = grad_out.times(&w_o.transposed()).upload(backend)?;
        let (m, n) = (batch.as_ref().targets().rows() * width, batch.as_ref().histories().rows() * width);
        let [mut dq, mut dk, mut dv] = [backend.zeros(m)?, backend.zeros(n)?, backend.zeros(n)?];
        let asked = TargetAttentionGradients::new()
            .with_queries(backend.view_mut(&mut dq))
            .with_keys(backend.view_mut(&mut dk))
            .with_values(backend.view_mut(&mut dv));
        let grad_pooled = TargetAttentionGradOut::new(backend.view(&grad_pooled));
        backend.target_attention_backward_into(
            &op,
            &batch,
            inputs,
            TargetAttentionSaved::none(),
            grad_pooled,
            asked,
        )?;
        let download = |buffer| Matrix::download(backend, buffer, width);
        Ok([download(&out)?, download(&dq)?, download(&dk)?, download(&dv)?])
    };
    let [pooled, dq, dk, dv] = run().expect("valid calls");
    assert_close("out", &golden, &pooled.times(&w_o).plus(&targets), rules);
    assert_close("grad_targets", &golden, &dq.times(&w_q.transposed()).plus(&grad_out), rules);
    let of_keys = dk.times(&w_k.transposed());
    assert_close("grad_history", &golden, &of_keys.plus(&dv.times(&w_v.transposed())), rules);
}
