//! DARE's layer: gradients that stay with its tables, their steps, save and load.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use longseq::{Decoupled, Optimiser};
use longseq_candle::layers::{DareLayer, DareTable};
use longseq_candle::{IdTensors, Longseq, SparseTable};

use crate::attention::batch;
use crate::common::{assert_differences, assert_near, differences, flat, gradients, ids, loss, random};
use crate::decoupled::{Ids, eager};
use crate::eager::{Users, wide};
use crate::layers::builder;

const NAMES: [&str; 4] = ["attention.0", "attention.1", "representation.0", "representation.1"];

/// The gradient of a table, with rows of zeros.
pub(crate) fn dense(table: &SparseTable) -> Result<Vec<f64>> {
    let (rows, width) = table.values().dims2()?;
    let mut all = vec![0.0; rows * width];
    if let Some(gradient) = table.gradient()? {
        for (&id, row) in gradient.ids.iter().zip(gradient.rows.chunks(width)) {
            let start = id as usize * width;
            all[start..start + width].iter_mut().zip(row).for_each(|(x, &row)| *x = row.into());
        }
    }
    Ok(all)
}

fn layer(op: &Decoupled, x: &[Tensor]) -> Result<DareLayer> {
    let tables = [(0, 2), (1, 3)].map(|(attention, representation): (usize, usize)| {
        let width = |index: usize| x[index].dims()[1];
        DareTable::new(x[0].dims()[0], width(attention), width(representation))
    });
    DareLayer::new(op.clone(), &tables, builder(&NAMES, x))
}

#[test]
fn the_tables_have_the_layers_gradients() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let (ids, x) = (Ids::new(&users)?, crate::decoupled::tables()?);
    let exact: Vec<Tensor> = x.iter().map(wide).collect::<Result<_>>()?;
    for (is_whole, multiply_target) in [(false, false), (false, true), (true, true)] {
        let op = Decoupled::new([0.5, 0.7]).with_multiply_target(multiply_target).with_top_k(Some(2));
        let layer = layer(&op, &x)?;
        let out = match is_whole {
            false => layer.forward(&longseq, &batch, ids.tensors())?,
            true => layer.forward_all(&longseq, &batch, ids.tensors())?,
        };
        let kept = match is_whole {
            false => ids.kept(&longseq, &op, &batch, &x)?,
            true => [5, 5, 2].map(|length| (0..length).collect()).to_vec(),
        };
        let eager = |x: &[Tensor]| eager(&op, &users, &ids, &kept, x);
        assert_near("out", &flat(&out)?, &flat(&eager(&exact)?)?, 1e-5);
        loss(&out)?.backward()?;
        let near = differences(&exact, 1e-5, eager)?;
        let tables = layer.attention().iter().chain(layer.representation());
        let got: Vec<Vec<f64>> = tables.map(dense).collect::<Result<_>>()?;
        for (got, exact) in got.iter().zip(gradients(&exact, eager)?) {
            assert_near("gradient", got, &exact, 1e-5);
        }
        assert_differences("tables", &got, &near, 1e-5);
    }
    Ok(())
}

#[test]
fn it_is_trained_saved_and_loaded() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let ids = Ids::new(&users)?;
    let new = |map: &VarMap| {
        let op = Decoupled::new([0.5, 0.7]).with_multiply_target(true).with_top_k(Some(3));
        let tables = [DareTable::new(6, 3, 4), DareTable::new(6, 2, 3)];
        DareLayer::new(op, &tables, VarBuilder::from_varmap(map, DType::F32, &Device::Cpu))
    };
    let map = VarMap::new();
    let layer = new(&map)?;
    assert_eq!(map.all_vars().len(), 4);
    let goal = random(&[3, 7], 30)?;
    let error = || layer.forward(&longseq, &batch, ids.tensors())?.sub(&goal)?.sqr()?.sum_all();
    let mut errors = Vec::new();
    for step in 1..=60 {
        let error = error()?;
        error.backward()?;
        assert!(layer.step(&Optimiser::adam(0.05, step))? > 4);
        errors.push(error.to_scalar::<f32>()?);
    }
    assert!(errors[59] < 0.8 * errors[0], "{errors:?}");
    assert_eq!(layer.step(&Optimiser::adam(0.05, 61))?, 0);
    error()?.backward()?;
    layer.clear_gradients();
    assert_eq!(layer.step(&Optimiser::adam(0.05, 61))?, 0);

    let served = flat(&layer.forward(&longseq, &batch, ids.tensors())?)?;
    let path = std::env::temp_dir().join(format!("longseq-candle-dare-{}.safetensors", std::process::id()));
    map.save(&path)?;
    let mut other = VarMap::new();
    let loaded = new(&other)?;
    other.load(&path)?;
    std::fs::remove_file(&path)?;
    assert_eq!(flat(&loaded.forward(&longseq, &batch, ids.tensors())?)?, served);
    Ok(())
}

#[test]
fn candidates_are_represented_by_the_same_tables() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let (longseq, x) = (Longseq::cpu(), crate::decoupled::tables()?);
    let layer = layer(&Decoupled::new([0.5, 0.7]), &x)?;
    let targets = ids(&[users.candidates(), 2], 6, 21)?;
    let out = layer.represent(&longseq, &targets)?;
    let column = |feature: usize| targets.narrow(1, feature, 1)?.squeeze(1)?.contiguous();
    let rows = |feature: usize| x[2 + feature].index_select(&column(feature)?, 0);
    assert_eq!(flat(&out)?, flat(&Tensor::cat(&[rows(0)?, rows(1)?], 1)?)?);
    loss(&out)?.backward()?;
    assert!(layer.representation()[0].gradient()?.is_some());
    assert!(layer.attention()[0].gradient()?.is_none());
    Ok(())
}

#[test]
fn a_table_for_each_scale() -> Result<()> {
    let x = crate::decoupled::tables()?;
    let op = Decoupled::new([0.5, 0.7, 0.1]);
    let tables = [DareTable::new(6, 3, 4), DareTable::new(6, 2, 3)];
    let error = DareLayer::new(op, &tables, builder(&NAMES, &x)).err().map(|error| error.to_string());
    let message = error.unwrap_or_default();
    for part in ["DareLayer", "tables", "3, one for each scale", "2"] {
        assert!(message.contains(part), "{part} in: {message}");
    }
    let (longseq, users) = (Longseq::cpu(), Users::new(&[5, 2], &[2, 1]));
    let batch = batch(&longseq, &users)?;
    let given = Ids::new(&users)?;
    let narrow = given.targets.narrow(1, 0, 1)?;
    let layer = layer(&Decoupled::new([0.5, 0.7]), &x)?;
    let error = layer.forward(&longseq, &batch, IdTensors::new(&given.history, &narrow));
    assert!(error.is_err_and(|error| error.to_string().contains("target_ids")));
    Ok(())
}
