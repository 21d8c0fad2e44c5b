//! TIN against an independent computation in `f64` (`tests/golden/formulas.py`), with gradients.

use longseq::*;

use crate::case::Rules;
use crate::compare::compare;
use crate::golden::{self, Golden};

const FILES: [&str; 2] = ["tin_counted", "tin_given"];

/// A batch of the file, on a device.
struct Layer<B: Backend> {
    op: Tin,
    batch: B::Batch,
    rows: [Buffer<B, f32>; 3],
    given: Option<[Buffer<B, u32>; 2]>,
}

impl<B: Backend> Layer<B> {
    fn new(backend: &B, golden: &Golden) -> Result<Self> {
        let upload = |name: &str| backend.upload(&golden.f32(name));
        let shape = golden.shape("positions");
        Ok(Self {
            op: Tin::new(shape[1]).with_positions(shape[0]),
            batch: backend
                .batch(&golden.jagged("offsets", "history"), &golden.jagged("target_offsets", "targets"))?,
            rows: [upload("targets")?, upload("history")?, upload("positions")?],
            given: match golden.flag("given") {
                true => Some([
                    backend.upload(&golden.u32("history_positions"))?,
                    backend.upload(&golden.u32("target_positions"))?,
                ]),
                false => None,
            },
        })
    }

    fn inputs<'a>(&'a self, backend: &'a B) -> TinInputs<'a, B::Memory, f32> {
        let [targets, history, positions] = self.rows.each_ref().map(|rows| backend.view(rows));
        let inputs = TinInputs::new(targets, history, positions);
        match &self.given {
            None => inputs,
            Some([of_history, of_targets]) => inputs
                .with_history_positions(backend.view(of_history))
                .with_target_positions(backend.view(of_targets)),
        }
    }
}

pub(super) fn matches_the_formula<B: Backend>(backend: &B, rules: Rules) {
    for name in FILES {
        let golden = Golden::load(name);
        let run = || -> Result<Vec<f32>> {
            let layer = Layer::new(backend, &golden)?;
            backend.download(backend.view(&backend.tin(&layer.op, &layer.batch, layer.inputs(backend))?))
        };
        let expected = golden.f64("out");
        compare(name, &run().expect("a valid call"), &expected, &golden::bound(&expected), rules).unwrap();
    }
}

pub(super) fn matches_differences_of_the_formula<B: Backend>(backend: &B, rules: Rules) {
    for file in FILES {
        let golden = Golden::load(file);
        let names = ["grad_targets", "grad_history", "grad_positions"];
        let run = || -> Result<[Vec<f32>; 3]> {
            let layer = Layer::new(backend, &golden)?;
            let zeros = |name: &str| backend.zeros::<f32>(golden.f32(name).len());
            let (mut out, mut pooled) = (zeros("out")?, zeros("out")?);
            let mut lse = backend.zeros::<f32>(golden.shape("targets")[0])?;
            let outputs = TinOutputs::new(backend.view_mut(&mut out))
                .with_saved(backend.view_mut(&mut pooled), backend.view_mut(&mut lse));
            backend.tin_into(&layer.op, &layer.batch, layer.inputs(backend), outputs)?;
            let grad_out = backend.upload(&golden.f32("grad_out"))?;
            let mut grads = [zeros(names[0])?, zeros(names[1])?, zeros(names[2])?];
            let [targets, history, positions] = &mut grads;
            backend.tin_backward_into(
                &layer.op,
                &layer.batch,
                layer.inputs(backend),
                TinSaved::new(backend.view(&pooled), backend.view(&lse)),
                backend.view(&grad_out),
                TinGradients::new()
                    .with_targets(backend.view_mut(targets))
                    .with_history(backend.view_mut(history))
                    .with_positions(backend.view_mut(positions)),
            )?;
            let [targets, history, positions] =
                grads.each_ref().map(|grad| backend.download(backend.view(grad)));
            Ok([targets?, history?, positions?])
        };
        for (name, got) in names.into_iter().zip(&run().expect("valid calls")) {
            let expected = golden.f64(name);
            compare(name, got, &expected, &golden::bound(&expected), rules).unwrap();
        }
    }
}
