//! Layers against results of published code (FuxiCTR, DARE) and of independent computations in `f64` (`tests/golden` of the repository).

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use longseq::{
    Decoupled, Din, DinPooling, InterestChannels, KeptAmong, Sdim, Search, SelectedAttention, Tin,
};
use longseq_candle::layers::{
    DareLayer, DareTable, DinActivation, DinLayer, EtaLayer, MuseLayer, MuseTensors, QinLayer, SdimLayer,
    SelectedAttentionLayer, TinLayer, TwinLayer,
};
use longseq_candle::{Batch, IdTensors, InterestChannelsTensors, Longseq, SearchTensor};

use crate::common::{assert_near, flat, random};
use crate::layers_dare::dense;

/// How far from a published number ours may be, relative to the largest: those are of `f32`, too.
const BOUND: f64 = 1e-5;

/// A file of results.
struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn load(name: &str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let path = folder.join(format!("{name}.safetensors"));
        Ok(Self(candle_core::safetensors::load(path, &Device::Cpu)?))
    }

    fn get(&self, name: &str) -> Tensor {
        self.0.get(name).cloned().unwrap_or_else(|| panic!("a tensor {name}"))
    }

    fn batch(&self, longseq: &Longseq) -> Result<Batch> {
        longseq.batch(&self.get("offsets"), &self.get("target_offsets"))
    }

    /// Compares a result with one of the file's, relative to its largest number.
    #[track_caller]
    fn assert_near(&self, name: &str, got: &[f64]) -> Result<()> {
        self.assert_within(name, got, BOUND)
    }

    #[track_caller]
    fn assert_within(&self, name: &str, got: &[f64], bound: f64) -> Result<()> {
        let exact = flat(&self.get(name))?;
        let largest = exact.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        assert_near(name, got, &exact, bound * largest.min(1.0));
        Ok(())
    }

    /// Compares the gradients of `Σ out·grad_out` by these variables with `grad_…`.
    #[track_caller]
    fn assert_gradients(&self, out: &Tensor, vars: &[(&str, &Var)]) -> Result<()> {
        self.assert_gradients_within(out, vars, BOUND)
    }

    fn assert_gradients_within(&self, out: &Tensor, vars: &[(&str, &Var)], bound: f64) -> Result<()> {
        let grads = out.mul(&self.get("grad_out"))?.sum_all()?.backward()?;
        for (name, var) in vars {
            let grad = grads.get(var).expect("a gradient");
            self.assert_within(&format!("grad_{name}"), &flat(grad)?, bound)?;
        }
        Ok(())
    }

    /// Variables of these tensors.
    fn vars<const N: usize>(&self, names: [&str; N]) -> Result<[Var; N]> {
        let vars: Vec<Var> =
            names.iter().map(|name| Var::from_tensor(&self.get(name))).collect::<Result<_>>()?;
        vars.try_into().map_err(|_| candle_core::Error::msg("as many as names"))
    }
}

/// A builder that gives these tensors.
fn builder(named: Vec<(&str, Tensor)>) -> VarBuilder<'static> {
    let named = named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
    VarBuilder::from_tensors(named.collect::<HashMap<_, _>>(), DType::F32, &Device::Cpu)
}

/// Projections by a file's names.
fn projections(golden: &Golden, [query, key, value, output]: [&str; 4]) -> VarBuilder<'static> {
    builder(vec![
        ("query.weight", golden.get(query)),
        ("key.weight", golden.get(key)),
        ("value.weight", golden.get(value)),
        ("output.weight", golden.get(output)),
    ])
}

#[test]
fn twin_of_fuxictr() -> Result<()> {
    let golden = Golden::load("twin_k5_h2")?;
    let longseq = Longseq::cpu();
    let op = SelectedAttention::new(6).with_heads(2, 2).with_top_k(5);
    let layer = TwinLayer::new(14, op, None, projections(&golden, ["w_q", "w_h", "w_v", "w_o"]))?;
    let [targets, history] = golden.vars(["targets", "history"])?;
    let out = layer.forward(&longseq, &golden.batch(&longseq)?, &targets, &history, None)?;
    golden.assert_near("out", &flat(&out)?)?;
    golden.assert_gradients(&out, &[("targets", &targets), ("history", &history)])
}

#[test]
fn sim_of_fuxictr() -> Result<()> {
    let golden = Golden::load("sim_k6_h2")?;
    let longseq = Longseq::cpu();
    let batch = golden.batch(&longseq)?;
    let op = SelectedAttention::new(8).with_heads(2, 2).with_top_k(6);
    let layer = SelectedAttentionLayer::new(10, op, projections(&golden, ["w_q", "w_k", "w_v", "w_o"]))?;
    let [targets, history] = golden.vars(["targets", "history"])?;
    let queries = targets.matmul(&golden.get("w_a").t()?)?;
    let keys = history.matmul(&golden.get("w_b").t()?)?;
    let search = Search::dot(8).with_top_k(6);
    let kept =
        longseq.search(&search, &batch, SearchTensor::Rows(&queries), SearchTensor::Rows(&keys), None)?;
    let out = layer.forward(&longseq, &batch, &targets, &history, &kept)?;
    golden.assert_near("out", &flat(&out)?)?;
    golden.assert_gradients(&out, &[("targets", &targets), ("history", &history)])
}

#[test]
fn eta_of_fuxictr() -> Result<()> {
    const BITS: f32 = 32.0;
    let golden = Golden::load("eta_b32_k10")?;
    let longseq = Longseq::cpu();
    let op = SelectedAttention::new(4).with_top_k(10);
    let layer = EtaLayer::new(32, 32, op, {
        let weight = |seed| random(&[4, 32], seed);
        builder(vec![
            ("rotations", golden.get("rotations")),
            ("query.weight", weight(1)?),
            ("key.weight", weight(2)?),
            ("value.weight", weight(3)?),
            ("output.weight", random(&[32, 4], 4)?),
        ])
    })?;
    let batch = golden.batch(&longseq)?;
    let kept = layer.search(&longseq, &batch, &golden.get("targets"), &golden.get("history"))?;
    let scores = kept.scores.flatten_all()?.to_vec1::<f32>()?.into_iter();
    // Where there is no behaviour the file has one bit more than there are.
    let distances = scores.map(|score| if score < 0.0 { BITS + 1.0 } else { BITS - score });
    let exact = golden.get("top_distances").flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(distances.collect::<Vec<_>>(), exact);
    Ok(())
}

#[test]
fn dare_of_its_code() -> Result<()> {
    const FEATURES: [&str; 3] = ["item", "category", "time"];
    for (name, top_k) in [("decoupled_k20_da8_dr16", 20), ("decoupled_k5_da16_dr48", 5)] {
        let golden = Golden::load(name)?;
        let longseq = Longseq::cpu();
        let batch = golden.batch(&longseq)?;
        let table = |set: &str, feature: &str| golden.get(&format!("{set}_{feature}"));
        let tables = FEATURES.map(|feature| {
            let (attention, representation) = (table("attention", feature), table("representation", feature));
            DareTable::new(attention.dims()[0], attention.dims()[1], representation.dims()[1])
        });
        let names: Vec<(String, Tensor)> = ["attention", "representation"]
            .into_iter()
            .flat_map(|set| {
                let named = |(index, feature): (usize, &str)| (format!("{set}.{index}"), table(set, feature));
                FEATURES.into_iter().enumerate().map(named).collect::<Vec<_>>()
            })
            .collect();
        let widths = tables.map(|table| table.attention);
        let op = Decoupled::dare(widths[0], widths[1], widths[2]).with_top_k(Some(top_k));
        let new = |op: Decoupled| {
            let named = names.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
            DareLayer::new(op, &tables, builder(named))
        };
        let (history, targets) = (golden.get("ids"), golden.get("target_ids"));
        let ids = IdTensors::new(&history, &targets);
        let layer = new(op.clone())?;
        golden.assert_near("out_topk", &flat(&layer.forward(&longseq, &batch, ids)?)?)?;
        golden.assert_near("out_full", &flat(&layer.forward_all(&longseq, &batch, ids)?)?)?;
        let layer = new(op.with_multiply_target(true))?;
        let out = layer.forward(&longseq, &batch, ids)?;
        golden.assert_near("out_topk_times_target", &flat(&out)?)?;
        out.mul(&golden.get("grad_out_topk_times_target"))?.sum_all()?.backward()?;
        for (set, tables) in [("attention", layer.attention()), ("representation", layer.representation())] {
            for (table, feature) in tables.iter().zip(FEATURES) {
                golden.assert_near(&format!("grad_{set}_{feature}"), &dense(table)?)?;
            }
        }
    }
    Ok(())
}

#[test]
fn qin_of_its_formula() -> Result<()> {
    let golden = Golden::load("qin_d12")?;
    let longseq = Longseq::cpu();
    let names = ["targets", "history", "w_q", "w_k", "w_v", "w_o"];
    let vars = golden.vars(names)?;
    let of_layer = ["query.weight", "key.weight", "value.weight", "output.weight"];
    let weights = of_layer.into_iter().zip(&vars[2..]).map(|(name, var)| (name, var.as_tensor().clone()));
    let layer = QinLayer::new(10, 12, builder(weights.collect()))?;
    let out = layer.forward(&longseq, &golden.batch(&longseq)?, &vars[0], &vars[1])?;
    golden.assert_near("out", &flat(&out)?)?;
    golden.assert_gradients(&out, &names.into_iter().zip(&vars).collect::<Vec<_>>())
}

#[test]
fn tin_of_its_formula() -> Result<()> {
    let golden = Golden::load("tin_counted")?;
    let longseq = Longseq::cpu();
    let vars = golden.vars(["targets", "history", "positions"])?;
    let op = Tin::new(12).with_positions(8);
    let layer = TinLayer::new(op, builder(vec![("positions", vars[2].as_tensor().clone())]))?;
    let out = layer.forward(&longseq, &golden.batch(&longseq)?, &vars[0], &vars[1])?;
    golden.assert_near("out", &flat(&out)?)?;
    let names = ["targets", "history", "positions"];
    golden.assert_gradients(&out, &names.into_iter().zip(&vars).collect::<Vec<_>>())
}

/// The file has projected rows: here they are parts of wider rows, and the weights take them out again.
#[test]
fn muse_of_its_formula() -> Result<()> {
    let golden = Golden::load("muse_k8")?;
    let longseq = Longseq::cpu();
    let (queries, keys, values) = (golden.get("queries"), golden.get("keys"), golden.get("values"));
    let zeros = Tensor::zeros((queries.dim(0)?, 14), DType::F32, &Device::Cpu)?;
    let targets = Var::from_tensor(&Tensor::cat(&[&queries, &zeros], 1)?)?;
    let history = Var::from_tensor(&Tensor::cat(&[&keys, &values], 1)?)?;
    let eye = Tensor::eye(24, DType::F32, &Device::Cpu)?;
    let gammas = golden.get("gammas");
    let [score, similarity, product] =
        [0, 1, 2].map(|index| gammas.narrow(0, index, 1).and_then(|x| x.copy()));
    let gammas = [Var::from_tensor(&score?)?, Var::from_tensor(&similarity?)?, Var::from_tensor(&product?)?];
    let op = SelectedAttention::new(10).with_value_width(14).with_top_k(8);
    let layer = MuseLayer::new(24, 24, op, {
        builder(vec![
            ("query.weight", eye.narrow(0, 0, 10)?),
            ("key.weight", eye.narrow(0, 0, 10)?),
            ("value.weight", eye.narrow(0, 10, 14)?),
            ("gammas.score", gammas[0].as_tensor().clone()),
            ("gammas.similarity", gammas[1].as_tensor().clone()),
            ("gammas.product", gammas[2].as_tensor().clone()),
            ("tiers.kept", Tensor::ones(21, DType::F32, &Device::Cpu)?),
            ("tiers.newest", Tensor::ones(21, DType::F32, &Device::Cpu)?),
        ])
    })?;
    // candle has no signed bytes.
    let bytes = |name: &str| {
        let codes = golden.get(name);
        let bytes =
            codes.flatten_all()?.to_vec1::<i64>()?.into_iter().map(|code| (code as i8).cast_unsigned());
        Tensor::from_vec(bytes.collect::<Vec<u8>>(), codes.shape(), &Device::Cpu)
    };
    let (codes, of_targets) = (bytes("codes")?, bytes("target_codes")?);
    let contents = [SearchTensor::Codes(&of_targets), SearchTensor::Codes(&codes)];
    let batch = golden.batch(&longseq)?;
    let kept = layer.search(&longseq, &batch, contents[0], contents[1])?;
    assert_eq!(flat(&kept.counts)?, flat(&golden.get("counts"))?);
    let inputs = MuseTensors {
        targets: &targets,
        history: &history,
        target_contents: contents[0],
        history_contents: contents[1],
    };
    let out = layer.forward(&longseq, &batch, inputs)?;
    golden.assert_near("out", &flat(&out.interest)?)?;
    let tiers: Vec<f64> = flat(&golden.get("histogram"))?.into_iter().map(f64::ln_1p).collect();
    assert_near("tiers", &flat(&out.tiers)?, &tiers, 1e-6);
    let grads = out.interest.mul(&golden.get("grad_out"))?.sum_all()?.backward()?;
    let grad = |var: &Var, start, count| {
        flat(&grads.get(var).expect("a gradient").narrow(1, start, count)?.contiguous()?)
    };
    golden.assert_near("grad_queries", &grad(&targets, 0, 10)?)?;
    golden.assert_near("grad_keys", &grad(&history, 0, 10)?)?;
    golden.assert_near("grad_values", &grad(&history, 10, 14)?)?;
    let mut of_gammas = Vec::new();
    for gamma in &gammas {
        of_gammas.extend(flat(grads.get(gamma).expect("a gradient"))?);
    }
    golden.assert_near("grad_gammas", &of_gammas)
}

#[test]
fn din_of_fuxictr() -> Result<()> {
    let files = [
        ("din_dice_softmax", DinActivation::Dice, DinPooling::Softmax, &[64][..]),
        ("din_dice_sum", DinActivation::Dice, DinPooling::Sum, &[80, 40]),
        ("din_relu_sum", DinActivation::Relu, DinPooling::Sum, &[36]),
        ("din_sigmoid_softmax", DinActivation::Sigmoid, DinPooling::Softmax, &[80, 40]),
    ];
    for (name, activation, pooling, units) in files {
        let golden = Golden::load(name)?;
        let longseq = Longseq::cpu();
        // A name of the file's, and the layer's.
        let mut names = Vec::new();
        for index in 0..units.len() {
            let layer = |name: &str| format!("hidden.{index}.{name}");
            names.push((format!("w{index}"), layer("weight")));
            names.push((format!("b{index}"), layer("bias")));
            if activation == DinActivation::Dice {
                names.push((format!("dice{index}_alpha"), layer("alpha")));
                names.push((format!("dice{index}_mean"), layer("running_mean")));
                names.push((format!("dice{index}_var"), layer("running_var")));
            }
        }
        names.push((format!("w{}", units.len()), "output.weight".to_owned()));
        names.push((format!("b{}", units.len()), "output.bias".to_owned()));
        let [targets, history] = golden.vars(["targets", "history"])?;
        let mut vars = Vec::new();
        for (file, _) in &names {
            vars.push(Var::from_tensor(&golden.get(file))?);
        }
        let weights = names.iter().zip(&vars).map(|((_, name), var)| (&name[..], var.as_tensor().clone()));
        let op = Din::new(targets.dim(1)?).with_pooling(pooling);
        let layer = DinLayer::new(op, units, activation, builder(weights.collect()))?;
        let out = layer.forward(&longseq, &golden.batch(&longseq)?, &targets, &history)?;
        golden.assert_near("out", &flat(&out)?)?;
        let mut asked = vec![("targets", &targets), ("history", &history)];
        // The output's bias changes no weight of a softmax: its gradient in the file is noise of rounding.
        let without =
            if pooling == DinPooling::Softmax { format!("b{}", units.len()) } else { String::new() };
        let is_learnt = |file: &str| !file.ends_with("mean") && !file.ends_with("var") && file != without;
        asked.extend(
            names.iter().zip(&vars).map(|((file, _), var)| (&file[..], var)).filter(|x| is_learnt(x.0)),
        );
        // Through a softmax the gradients of a candidate's scores add up to 0, so sums over behaviours, here and in the file, cancel.
        let bound = if pooling == DinPooling::Softmax { 10.0 * BOUND } else { BOUND };
        golden.assert_gradients_within(&out, &asked, bound)?;
    }
    Ok(())
}

#[test]
fn sdim_of_fuxictr() -> Result<()> {
    let files = [("sdim_g16_t3_l2", 64, 16, 3, true), ("sdim_g16_t3_sum", 32, 16, 3, false)];
    for (name, width, groups, bits, normalise) in files {
        let golden = Golden::load(name)?;
        let longseq = Longseq::cpu();
        let op = Sdim::new(width).with_groups(groups, bits).with_normalise(normalise);
        let layer = SdimLayer::new(op, builder(vec![("rotations", golden.get("rotations"))]))?;
        let [history] = golden.vars(["history"])?;
        let out = layer.forward(&longseq, &golden.batch(&longseq)?, &golden.get("targets"), &history)?;
        golden.assert_near("out", &flat(&out)?)?;
        golden.assert_gradients(&out, &[("history", &history)])?;
    }
    Ok(())
}

#[test]
fn interest_channels_of_their_formula() -> Result<()> {
    let golden = Golden::load("interest_channels")?;
    let longseq = Longseq::cpu();
    let batch = golden.batch(&longseq)?;
    let op = InterestChannels::new(10).with_channels(3).with_top_k(4);
    for (form, among) in [("routed", KeptAmong::Routed), ("all", KeptAmong::All)] {
        for (kind, normalise) in [(form.to_owned(), false), (format!("{form}_normalised"), true)] {
            let op = op.with_among(among).with_normalise(normalise);
            let [axes, history] = golden.vars(["axes", "history"])?;
            let inputs = InterestChannelsTensors::new(&axes, &history);
            let out = longseq.interest_channels(&op, &batch, inputs)?;
            golden.assert_near(&format!("out_{kind}"), &flat(&out)?)?;
            let grads = out.mul(&golden.get("grad_out"))?.sum_all()?.backward()?;
            for (name, var) in [("axes", &axes), ("history", &history)] {
                let grad = flat(grads.get(var).expect("a gradient"))?;
                golden.assert_near(&format!("grad_{name}_{kind}"), &grad)?;
            }
        }
    }
    Ok(())
}
