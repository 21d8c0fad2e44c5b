//! MUSE's second stage against an independent computation in `f64` (`tests/golden/formulas.py`): similarity-aware target attention
//! (SA-TA) with its gradients, and SimTier, over what a search by cosines kept.

use longseq::*;

use crate::case::Rules;
use crate::compare::{compare, compare_exact};
use crate::golden::{self, Golden};

/// A request on a device, after its first stage.
struct Request<B: Backend> {
    batch: B::Batch,
    positions: Buffer<B, u32>,
    scores: Buffer<B, f32>,
    counts: Buffer<B, u32>,
    rows: [Buffer<B, f32>; 4],
}

impl<B: Backend> Request<B> {
    fn new(backend: &B, golden: &Golden) -> Result<Self> {
        let upload = |name: &str| backend.upload(&golden.f32(name));
        Ok(Self {
            batch: backend.batch(
                &golden.jagged("offsets", "codes"),
                &golden.jagged("target_offsets", "target_codes"),
            )?,
            positions: backend.upload(&golden.u32("positions"))?,
            scores: upload("similarities")?,
            counts: backend.upload(&golden.u32("counts"))?,
            rows: [upload("queries")?, upload("keys")?, upload("values")?, upload("gammas")?],
        })
    }

    fn selection<'a>(&'a self, backend: &'a B) -> Selection<'a, B::Memory> {
        Selection::new(backend.view(&self.positions), backend.view(&self.scores), backend.view(&self.counts))
    }

    fn inputs<'a>(&'a self, backend: &'a B) -> SelectedAttentionInputs<'a, B::Memory, f32> {
        let [queries, keys, values, gammas] = self.rows.each_ref().map(|rows| backend.view(rows));
        SelectedAttentionInputs::new(queries, keys, self.selection(backend))
            .with_values(values)
            .with_gammas(gammas)
    }
}

fn attention(golden: &Golden) -> SelectedAttention {
    SelectedAttention::new(golden.shape("keys")[1])
        .with_value_width(golden.shape("values")[1])
        .with_top_k(golden.number("k"))
}

pub(super) fn matches_muse<B: Backend>(backend: &B, rules: Rules) {
    let golden = Golden::load("muse_k8");
    let run = || -> Result<(Vec<f32>, Vec<u32>)> {
        let request = Request::new(backend, &golden)?;
        let out = backend.selected_attention(&attention(&golden), &request.batch, request.inputs(backend))?;
        let sim_tier = SimilarityHistogram::new(golden.number("steps")).with_top_k(golden.number("k"));
        let bins = backend.similarity_histogram(&sim_tier, &request.batch, request.selection(backend))?;
        Ok((backend.download(backend.view(&out))?, backend.download(backend.view(&bins))?))
    };
    let (out, bins) = run().expect("valid calls");
    let expected = golden.f64("out");
    compare("SA-TA", &out, &expected, &golden::bound(&expected), rules).unwrap();
    compare_exact("SimTier", &bins, &golden.u32("histogram")).unwrap();
}

pub(super) fn matches_differences_of_muse<B: Backend>(backend: &B, rules: Rules) {
    let golden = Golden::load("muse_k8");
    let names = ["grad_queries", "grad_keys", "grad_values", "grad_gammas"];
    let run = || -> Result<[Vec<f32>; 4]> {
        let request = Request::new(backend, &golden)?;
        let grad_out = backend.upload(&golden.f32("grad_out"))?;
        let zeros = |name: &str| backend.zeros::<f32>(golden.f32(name).len());
        let mut grads = [zeros(names[0])?, zeros(names[1])?, zeros(names[2])?, zeros(names[3])?];
        let [queries, keys, values, gammas] = &mut grads;
        backend.selected_attention_backward_into(
            &attention(&golden),
            &request.batch,
            request.inputs(backend),
            SelectedAttentionGradOut::new(backend.view(&grad_out)),
            SelectedAttentionGradients::new()
                .with_queries(backend.view_mut(queries))
                .with_keys(backend.view_mut(keys))
                .with_values(backend.view_mut(values))
                .with_gammas(backend.view_mut(gammas)),
        )?;
        let [queries, keys, values, gammas] =
            grads.each_ref().map(|grad| backend.download(backend.view(grad)));
        Ok([queries?, keys?, values?, gammas?])
    };
    for (name, got) in names.into_iter().zip(&run().expect("valid calls")) {
        let expected = golden.f64(name);
        compare(name, got, &expected, &golden::bound(&expected), rules).unwrap();
    }
}
