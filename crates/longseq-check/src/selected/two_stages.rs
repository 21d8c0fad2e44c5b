//! The layers of TWIN and SIM against published results (FuxiCTR): a search by dot products, and attention over what it kept.

use longseq::*;

use crate::case::Rules;
use crate::golden::Golden;
use crate::matrix::Matrix;

/// A layer's inputs, and its batch on a device.
struct Layer<B: Backend> {
    golden: Golden,
    batch: B::Batch,
    targets: Matrix,
    history: Matrix,
}

impl<B: Backend> Layer<B> {
    fn new(backend: &B, name: &str) -> Result<Self> {
        let golden = Golden::load(name);
        let batch = backend
            .batch(&golden.jagged("offsets", "history"), &golden.jagged("target_offsets", "targets"))?;
        let [targets, history] = ["targets", "history"].map(|name| Matrix::load(&golden, name));
        Ok(Self { golden, batch, targets, history })
    }

    fn weight(&self, name: &str) -> Matrix {
        Matrix::load(&self.golden, name)
    }

    /// The first stage.
    fn search(
        &self,
        backend: &B,
        queries: &Matrix,
        keys: &Matrix,
        width: usize,
    ) -> Result<SelectionBuffers<B::Memory>> {
        let (queries, keys) = (queries.upload(backend)?, keys.upload(backend)?);
        let [queries, keys] = [&queries, &keys].map(|rows| SearchRows::F32(backend.view(rows)));
        let op = Search::dot(width).with_top_k(self.golden.number("k"));
        backend.search(&op, &self.batch, SimilarityInputs::new(queries, keys))
    }

    /// The second stage: its output, and the gradients of queries, keys and values.
    fn attend(
        &self,
        backend: &B,
        op: &SelectedAttention,
        kept: &SelectionBuffers<B::Memory>,
        [queries, keys, values, grad_out]: [&Matrix; 4],
    ) -> Result<[Matrix; 4]> {
        let [queries, keys, values] =
            [queries.upload(backend)?, keys.upload(backend)?, values.upload(backend)?];
        let kept = Selection::new(
            backend.view(&kept.positions),
            backend.view(&kept.scores),
            backend.view(&kept.counts),
        );
        let inputs = SelectedAttentionInputs::new(backend.view(&queries), backend.view(&keys), kept)
            .with_values(backend.view(&values));
        let out = backend.selected_attention(op, &self.batch, inputs)?;
        let grad_out = grad_out.upload(backend)?;
        let zeros = |buffer: &Buffer<B, f32>| backend.zeros::<f32>(backend.view(buffer).len());
        let [mut dq, mut dk, mut dv] = [zeros(&queries)?, zeros(&keys)?, zeros(&values)?];
        let asked = SelectedAttentionGradients::new()
            .with_queries(backend.view_mut(&mut dq))
            .with_keys(backend.view_mut(&mut dk))
            .with_values(backend.view_mut(&mut dv));
        let grad_out = SelectedAttentionGradOut::new(backend.view(&grad_out));
        backend.selected_attention_backward_into(op, &self.batch, inputs, grad_out, asked)?;
        let download = |buffer| Matrix::download(backend, buffer, op.heads * op.width);
        Ok([download(&out)?, download(&dq)?, download(&dk)?, download(&dv)?])
    }
}

/// Every head searches by itself.
pub(super) fn matches_twin<B: Backend>(backend: &B, rules: Rules) {
    let run = || -> Result<()> {
        let layer = Layer::new(backend, "twin_k5_h2")?;
        let [w_q, w_h, w_v, w_o] = ["w_q", "w_h", "w_v", "w_o"].map(|name| layer.weight(name).transposed());
        let width = layer.golden.shape("w_q")[0] / layer.golden.number("heads");
        let grad_pooled = layer.weight("grad_out").times(&w_o);
        let op = SelectedAttention::new(width).with_top_k(layer.golden.number("k"));
        let mut sums: Option<[Matrix; 3]> = None;
        for head in 0..layer.golden.number("heads") {
            let own = head * width..(head + 1) * width;
            // `[d, d_h]`, the head's columns of the transposed weights.
            let [to_query, to_key, to_value] = [&w_q, &w_h, &w_v].map(|weight| weight.part(own.clone()));
            let [queries, keys, values] = [
                layer.targets.times(&to_query.transposed()),
                layer.history.times(&to_key.transposed()),
                layer.history.times(&to_value.transposed()),
            ];
            let kept = layer.search(backend, &queries, &keys, width)?;
            let grad = grad_pooled.part(own.clone());
            let [pooled, dq, dk, dv] =
                layer.attend(backend, &op, &kept, [&queries, &keys, &values, &grad])?;
            let mine = [
                pooled.times(&w_o.transposed().part(own)),
                dq.times(&to_query),
                dk.times(&to_key).plus(&dv.times(&to_value)),
            ];
            sums = Some(match sums {
                None => mine,
                Some([a, b, c]) => [a.plus(&mine[0]), b.plus(&mine[1]), c.plus(&mine[2])],
            });
        }
        let names = ["out", "grad_targets", "grad_history"];
        for (name, sum) in names.into_iter().zip(sums.iter().flatten()) {
            sum.assert_close(name, &layer.golden, rules);
        }
        Ok(())
    };
    run().expect("valid calls");
}

/// One search for all heads, by projections of its own.
pub(super) fn matches_sim<B: Backend>(backend: &B, rules: Rules) {
    let run = || -> Result<()> {
        let layer = Layer::new(backend, "sim_k6_h2")?;
        let [w_a, w_b, w_q, w_k, w_v, w_o] =
            ["w_a", "w_b", "w_q", "w_k", "w_v", "w_o"].map(|name| layer.weight(name));
        let (targets, history) = (&layer.targets, &layer.history);
        let kept = layer.search(
            backend,
            &targets.times(&w_a),
            &history.times(&w_b),
            layer.golden.shape("w_a")[0],
        )?;
        let heads = layer.golden.number("heads");
        let op = SelectedAttention::new(layer.golden.shape("w_q")[0] / heads)
            .with_heads(heads, heads)
            .with_top_k(layer.golden.number("k"));
        let [queries, keys, values] = [targets.times(&w_q), history.times(&w_k), history.times(&w_v)];
        let grad_pooled = layer.weight("grad_out").times(&w_o.transposed());
        let [pooled, dq, dk, dv] =
            layer.attend(backend, &op, &kept, [&queries, &keys, &values, &grad_pooled])?;
        pooled.times(&w_o).assert_close("out", &layer.golden, rules);
        dq.times(&w_q.transposed()).assert_close("grad_targets", &layer.golden, rules);
        let grad_history = dk.times(&w_k.transposed()).plus(&dv.times(&w_v.transposed()));
        grad_history.assert_close("grad_history", &layer.golden, rules);
        Ok(())
    };
    run().expect("valid calls");
}
