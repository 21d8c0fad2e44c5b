//! Layers: gradients of the whole, against candle's own operations; training of Dice; save and load.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use longseq::{Activation, Din, DinPooling, Sdim, TargetAttention, Tin, Weighting};
use longseq_candle::Longseq;
use longseq_candle::layers::{DinActivation, DinLayer, QinLayer, SdimLayer, TargetAttentionLayer, TinLayer};

use crate::attention::batch;
use crate::common::{assert_near, check_chosen, check_gradients, flat, gradients, loss, offsets, random};
use crate::eager::{self, Users};

const WIDTH: usize = 4;

/// A builder that gives these tensors.
pub(crate) fn builder(names: &[&str], tensors: &[Tensor]) -> VarBuilder<'static> {
    let named = names.iter().map(|name| name.to_string()).zip(tensors.iter().cloned());
    VarBuilder::from_tensors(named.collect::<HashMap<_, _>>(), DType::F32, &Device::Cpu)
}

fn users() -> Users {
    Users::new(&[4, 0, 2], &[2, 1, 1])
}

/// Candidates and behaviours.
fn rows(users: &Users) -> Result<[Tensor; 2]> {
    Ok([random(&[users.candidates(), WIDTH], 1)?, random(&[users.behaviours(), WIDTH], 2)?])
}

#[test]
fn target_attention() -> Result<()> {
    const NAMES: [&str; 4] = ["query.weight", "key.weight", "value.weight", "output.weight"];
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(3).with_heads(2, 1).with_value_width(2);
    let [targets, history] = rows(&users)?;
    let weights = [random(&[6, 4], 3)?, random(&[3, 4], 4)?, random(&[2, 4], 5)?, random(&[4, 4], 6)?];
    let x = [&[targets, history][..], &weights].concat();
    check_gradients(
        "layer",
        &x,
        |x| {
            let layer = TargetAttentionLayer::new(WIDTH, op, builder(&NAMES, &x[2..]))?;
            layer.forward(&longseq, &batch, &x[0], &x[1])
        },
        |x| {
            let project = |rows: &Tensor, weight: &Tensor, heads, width| {
                rows.matmul(&weight.t()?)?.reshape((rows.dim(0)?, heads, width))
            };
            let (q, k) = (project(&x[0], &x[2], 2, 3)?, project(&x[1], &x[3], 1, 3)?);
            let v = project(&x[1], &x[4], 1, 2)?;
            let out = eager::target_attention(&op, &users, &q, &k, &v, None)?;
            out.reshape((users.candidates(), 4))?.matmul(&x[5].t()?)
        },
    )
}

const DIN: [&str; 7] = [
    "hidden.0.weight",
    "hidden.0.bias",
    "hidden.0.alpha",
    "hidden.0.running_mean",
    "hidden.0.running_var",
    "output.weight",
    "output.bias",
];

/// Candidates, behaviours, and what a layer of three units with Dice has.
fn din_inputs(users: &Users) -> Result<Vec<Tensor>> {
    let [targets, history] = rows(users)?;
    Ok(vec![
        targets,
        history,
        random(&[3, 4 * WIDTH], 3)?,
        random(&[3], 4)?,
        random(&[3], 5)?,
        random(&[3], 6)?,
        random(&[3], 7)?.sqr()?,
        random(&[1, 3], 8)?,
        random(&[1], 9)?,
    ])
}

/// The same in candle's operations, normalised by these statistics.
fn din_eager(users: &Users, x: &[Tensor], mean: &Tensor, variance: &Tensor) -> Result<Tensor> {
    let gain = (variance + 1e-8)?.sqrt()?.recip()?;
    let shift = mean.mul(&gain)?.neg()?;
    let dice = Activation::Dice { gain: &gain, shift: &shift, alpha: &x[4] };
    eager::din(DinPooling::Softmax, users, &x[0], &x[1], &[(&x[2], &x[3], dice)], (&x[7], &x[8]))
}

/// Mean, squared distances from it, and the number of pairs of the first layer, in candle's operations.
fn din_statistics(users: &Users, x: &[Tensor]) -> Result<(Tensor, Tensor, f64)> {
    let mut numbers = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[1] > 0) {
        let (q, s) = (x[0].narrow(0, m, count)?, x[1].narrow(0, n, length)?);
        let hidden = [(&x[2], &x[3], Activation::Relu)];
        numbers.push(eager::din_network(&q, &s, &hidden, (&x[7], &x[8]), Some(0))?);
    }
    let numbers = Tensor::cat(&numbers, 0)?;
    let mean = numbers.mean(0)?;
    let squares = numbers.broadcast_sub(&mean)?.sqr()?.sum(0)?;
    Ok((mean, squares, numbers.dim(0)? as f64))
}

#[test]
fn din_with_dice() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Din::new(WIDTH).with_pooling(DinPooling::Softmax);
    let x = din_inputs(&users)?;
    let (mean, variance) = (x[5].clone(), x[6].clone());
    let layer = |x: &[Tensor]| {
        // The statistics are no inputs here.
        let (mean, variance) = (Var::from_tensor(&mean)?, Var::from_tensor(&variance)?);
        let statistics = [mean.as_tensor().clone(), variance.as_tensor().clone()];
        let tensors = [&x[2..5], &statistics, &x[7..]].concat();
        let layer = DinLayer::new(op, &[3], DinActivation::Dice, builder(&DIN, &tensors))?;
        Ok::<_, candle_core::Error>((layer, mean, variance))
    };
    let like = |x: &[Tensor], of: &Tensor| of.to_dtype(x[0].dtype());
    check_gradients(
        "running statistics",
        &x,
        |x| layer(x)?.0.forward(&longseq, &batch, &x[0], &x[1]),
        |x| din_eager(&users, x, &like(x, &mean)?, &like(x, &variance)?),
    )?;
    // In training: those of the batch, and the gradients through them.
    check_chosen(
        "batch statistics",
        &x,
        |x| layer(x)?.0.forward_t(&longseq, &batch, &x[0], &x[1], true),
        |x| {
            let (mean, squares, pairs) = din_statistics(&users, x)?;
            din_eager(&users, x, &mean, &(squares / pairs)?)
        },
    )?;
    let wide: Vec<Tensor> = x.iter().map(eager::wide).collect::<Result<_>>()?;
    let (of_batch, squares, pairs) = din_statistics(&users, &wide)?;
    let (trained, new_mean, new_variance) = layer(&x)?;
    trained.forward_t(&longseq, &batch, &x[0], &x[1], true)?;
    let moved = |old: &Tensor, new: &Tensor| (eager::wide(old)? * 0.9)?.add(&(new * 0.1)?);
    assert_near("mean", &flat(&new_mean)?, &flat(&moved(&mean, &of_batch)?)?, 1e-5);
    let exact = moved(&variance, &(squares / (pairs - 1.0))?)?;
    assert_near("variance", &flat(&new_variance)?, &flat(&exact)?, 1e-5);
    Ok(())
}

#[test]
fn a_layer_is_trained_saved_and_loaded() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let [targets, history] = rows(&users)?;
    let path = std::env::temp_dir().join(format!("longseq-candle-{}.safetensors", std::process::id()));
    for activation in [DinActivation::Relu, DinActivation::Sigmoid, DinActivation::Prelu, DinActivation::Dice]
    {
        let new = |map: &VarMap| {
            let builder = VarBuilder::from_varmap(map, DType::F32, &Device::Cpu);
            DinLayer::new(Din::new(WIDTH), &[5, 3], activation, builder)
        };
        let map = VarMap::new();
        let layer = new(&map)?;
        let out = layer.forward_t(&longseq, &batch, &targets, &history, true)?;
        let grads = loss(&out)?.backward()?;
        let names = map.data().lock().expect("no panic").clone();
        for (name, var) in &names {
            assert_eq!(grads.get(var).is_some(), !name.contains("running"), "{activation:?}: {name}");
        }
        map.save(&path)?;
        let served = layer.forward(&longseq, &batch, &targets, &history)?;
        let mut other = VarMap::new();
        let loaded = new(&other)?;
        other.load(&path)?;
        assert_eq!(flat(&loaded.forward(&longseq, &batch, &targets, &history)?)?, flat(&served)?);
        // Or straight from the file.
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let fixed = DinLayer::new(Din::new(WIDTH), &[5, 3], activation, builder)?;
        assert_eq!(flat(&fixed.forward(&longseq, &batch, &targets, &history)?)?, flat(&served)?);
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

#[test]
fn tin() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Tin::new(WIDTH).with_positions(3);
    let [targets, history] = rows(&users)?;
    check_gradients(
        "layer",
        &[targets, history, random(&[3, WIDTH], 3)?],
        |x| TinLayer::new(op, builder(&["positions"], &x[2..]))?.forward(&longseq, &batch, &x[0], &x[1]),
        |x| eager::tin(&op, &users, &x[0], &x[1], &x[2]),
    )
}

#[test]
fn sdim_with_and_without_tables() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Sdim::new(WIDTH).with_groups(3, 2);
    let [targets, history] = rows(&users)?;
    let map = VarMap::new();
    let layer = SdimLayer::new(op, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    assert_eq!(map.all_vars().len(), 1);
    let sides = [longseq.jagged(&offsets(&users.histories))?, longseq.jagged(&offsets(&users.targets))?];
    let x = [history];
    let attend = |x: &[Tensor]| layer.forward(&longseq, &batch, &targets, &x[0]);
    let query = |x: &[Tensor]| {
        let table = layer.encode(&longseq, &sides[0], &x[0])?;
        layer.query(&longseq, &sides[1], &table, &targets)
    };
    assert_near("out", &flat(&query(&x)?)?, &flat(&attend(&x)?)?, 1e-6);
    assert_near("gradient", &gradients(&x, query)?[0], &gradients(&x, attend)?[0], 1e-5);
    Ok(())
}

#[test]
fn qin() -> Result<()> {
    const NAMES: [&str; 4] = ["query.weight", "key.weight", "value.weight", "output.weight"];
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let [targets, history] = rows(&users)?;
    let op = TargetAttention::new(3).with_weighting(Weighting::Relu);
    let weights = [random(&[3, 4], 3)?, random(&[3, 4], 4)?, random(&[3, 4], 5)?, random(&[4, 3], 6)?];
    check_chosen(
        "qin",
        &[&[targets, history][..], &weights].concat(),
        |x| QinLayer::new(WIDTH, 3, builder(&NAMES, &x[2..]))?.forward(&longseq, &batch, &x[0], &x[1]),
        |x| {
            let project = |rows: &Tensor, weight: &Tensor| rows.matmul(&weight.t()?)?.unsqueeze(1);
            let (q, k, v) = (project(&x[0], &x[2])?, project(&x[1], &x[3])?, project(&x[1], &x[4])?);
            let out = eager::target_attention(&op, &users, &q, &k, &v, None)?;
            out.squeeze(1)?.matmul(&x[5].t()?)?.add(&x[0])
        },
    )
}
