//! QIN's layer against an independent computation in `f64` (`tests/golden/formulas.py`): projections and residual here, attention with
//! ReLU on a backend.

use longseq::*;

use crate::case::Rules;
use crate::golden::Golden;
use crate::matrix::Matrix;

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
    pooled.times(&w_o).plus(&targets).assert_close("out", &golden, rules);
    dq.times(&w_q.transposed()).plus(&grad_out).assert_close("grad_targets", &golden, rules);
    let of_keys = dk.times(&w_k.transposed());
    of_keys.plus(&dv.times(&w_v.transposed())).assert_close("grad_history", &golden, rules);
}
