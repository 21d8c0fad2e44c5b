//! Look-ups, and sparse tables.

use candle_core::{DType, Device, Result, Tensor, Var};
use longseq::{Bags, IdPolicy, Lookup, Optimiser};
use longseq_candle::{Longseq, LookupTensors, SparseTable, TableTensor};

use crate::common::{assert_near, check_gradients, flat, gradients, ids, loss, random};
use crate::eager;

const LENGTHS: [usize; 3] = [3, 0, 2];

#[test]
fn bags_of_one_table() -> Result<()> {
    let longseq = Longseq::cpu();
    let bags = longseq.jagged(&[0u32, 3, 3, 5][..])?;
    let given = ids(&[5], 4, 9)?;
    let op = Lookup::default();
    let x = [random(&[4, 3], 1)?, random(&[5], 2)?];
    check_gradients(
        "weighted sums",
        &x,
        |x| {
            let tables = [TableTensor::from(&x[0])];
            longseq.lookup(&op, Bags::Sum(&bags), LookupTensors::new(&given, &tables).with_weights(&x[1]))
        },
        |x| eager::bags(&x[0], &given, &LENGTHS, Some(&x[1]), false),
    )?;
    check_gradients(
        "means",
        &x[..1],
        |x| {
            let tables = [TableTensor::from(&x[0])];
            longseq.lookup(&op, Bags::Mean(&bags), LookupTensors::new(&given, &tables))
        },
        |x| eager::bags(&x[0], &given, &LENGTHS, None, true),
    )?;
    check_gradients(
        "rows",
        &x[..1],
        |x| {
            let tables = [TableTensor::from(&x[0])];
            longseq.lookup(&op, Bags::Each, LookupTensors::new(&given, &tables))
        },
        |x| x[0].index_select(&given, 0),
    )
}

#[test]
fn many_tables_of_different_types() -> Result<()> {
    let longseq = Longseq::cpu();
    let given = ids(&[6, 5], 4, 9)?;
    let tables: Vec<Tensor> =
        (0..5).map(|feature| random(&[4, 2 + feature], feature as u64)).collect::<Result<_>>()?;
    let types = [DType::F32, DType::F16, DType::BF16, DType::F32, DType::F32];
    let rounded: Vec<Tensor> =
        tables.iter().zip(types).map(|(table, dtype)| table.to_dtype(dtype)).collect::<Result<_>>()?;
    let ours = |x: &[Tensor]| {
        let tables: Vec<TableTensor> = x.iter().map(TableTensor::from).collect();
        longseq.lookup(&Lookup::default(), Bags::Each, LookupTensors::new(&given, &tables))
    };
    let eager = |x: &[Tensor]| {
        let column = |feature: usize| given.narrow(1, feature, 1)?.squeeze(1)?.contiguous();
        let rows = x.iter().enumerate().map(|(feature, table)| table.index_select(&column(feature)?, 0));
        Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 1)
    };
    let wide: Vec<Tensor> = rounded.iter().map(eager::wide).collect::<Result<_>>()?;
    assert_near("rows", &flat(&ours(&rounded)?)?, &flat(&eager(&wide)?)?, 0.0);
    for (got, exact) in gradients(&rounded, ours)?.iter().zip(gradients(&wide, eager)?) {
        assert_near("tables", got, &exact, 1e-2);
    }
    Ok(())
}

/// The loss of bags of a table, and of single rows of it.
fn loss_of(longseq: &Longseq, table: TableTensor<'_>) -> Result<Tensor> {
    let bags = longseq.jagged(&[0u32, 3, 3, 5][..])?;
    let (bagged, single) = (ids(&[5], 6, 9)?, ids(&[3], 6, 10)?);
    let tables = [table];
    let op = Lookup::default();
    let sums = longseq.lookup(&op, Bags::Sum(&bags), LookupTensors::new(&bagged, &tables))?;
    let rows = longseq.lookup(&op, Bags::Each, LookupTensors::new(&single, &tables))?;
    loss(&Tensor::cat(&[sums, rows], 0)?)
}

#[test]
fn a_sparse_gradient_is_the_dense_one() -> Result<()> {
    let longseq = Longseq::cpu();
    for dtype in [DType::F32, DType::F16] {
        let values = random(&[6, 3], 1)?.to_dtype(dtype)?;
        let dense = Var::from_tensor(&values.copy()?)?;
        let grads = loss_of(&longseq, TableTensor::from(dense.as_tensor()))?.backward()?;
        let exact = flat(grads.get(&dense).expect("a gradient"))?;

        let table = SparseTable::new(&values)?;
        assert_eq!(table.gradient()?, None);
        let loss = loss_of(&longseq, TableTensor::from(&table))?;
        loss.backward()?;
        let gradient = table.gradient()?.expect("a gradient");
        let mut all = vec![0.0; 18];
        for (id, row) in gradient.ids.iter().zip(gradient.rows.chunks(3)) {
            let row: Vec<f64> = row.iter().map(|&x| x.into()).collect();
            all[*id as usize * 3..][..3].copy_from_slice(&row);
        }
        assert_near("sparse", &all, &exact, if dtype == DType::F32 { 1e-6 } else { 2e-3 });
        assert!(gradient.ids.is_sorted_by(|a, b| a < b) && gradient.ids.len() < 7);

        // It adds up until a step, or until it is forgotten.
        loss.backward()?;
        let twice = table.gradient()?.expect("a gradient");
        assert_eq!(twice.ids, gradient.ids);
        assert!(twice.rows.iter().zip(&gradient.rows).all(|(twice, once)| (twice - 2.0 * once).abs() < 1e-6));
        table.clear_gradient();
        assert_eq!(table.step(&Optimiser::sgd(0.5)).map_err(|error| error.to_string()), Ok(0));

        loss.backward()?;
        let before = flat(table.values())?;
        assert_eq!(table.step(&Optimiser::sgd(0.5))?, gradient.ids.len());
        let stepped: Vec<f64> = before.iter().zip(&exact).map(|(x, grad)| x - 0.5 * grad).collect();
        assert_near("step", &flat(table.values())?, &stepped, if dtype == DType::F32 { 1e-6 } else { 4e-3 });
        assert_eq!(table.gradient()?, None);
        // The table shares the tensor's memory.
        assert_eq!(flat(&values)?, flat(table.values())?);
    }
    Ok(())
}

#[test]
fn optimisers_keep_their_state() -> Result<()> {
    let longseq = Longseq::cpu();
    let values = random(&[6, 3], 1)?;
    let table = SparseTable::new(&values.copy()?)?;
    let step = |optimiser: &Optimiser| {
        loss_of(&longseq, TableTensor::from(&table))?.backward()?;
        table.step(optimiser)
    };
    // The first step of Adam is the rate, whatever the gradient's size; of Adagrad, too.
    step(&Optimiser::adagrad(0.25))?;
    let moved = |now: &Tensor| -> Result<Vec<f64>> {
        Ok(flat(now)?.into_iter().zip(flat(&values)?).map(|(a, b)| a - b).collect())
    };
    let first = moved(table.values())?;
    assert!(first.iter().all(|x| x.abs() < 1e-5 || (x.abs() - 0.25).abs() < 1e-3), "{first:?}");
    step(&Optimiser::adagrad(0.25))?;
    let second: Vec<f64> = moved(table.values())?.iter().zip(&first).map(|(two, one)| two - one).collect();
    // Now the sum of squares has two terms (the gradient is the same).
    let smaller = 0.25 / 2f64.sqrt();
    assert!(second.iter().all(|x| x.abs() < 1e-5 || (x.abs() - smaller).abs() < 1e-3), "{second:?}");
    let error = step(&Optimiser::adam(0.1, 1)).expect_err("another optimiser");
    assert!(error.to_string().contains("expected moments, got sums"), "{error}");
    // Nothing changed, and the gradient waits for a step that is possible.
    assert!(table.gradient()?.is_some());
    Ok(())
}

#[test]
fn ids_that_are_padding() -> Result<()> {
    let longseq = Longseq::cpu();
    let bags = longseq.jagged(&[0u32, 3][..])?;
    let table = Var::from_tensor(&random(&[4, 2], 1)?)?;
    let tables = [TableTensor::from(table.as_tensor())];
    let given = Tensor::new(&[1i64, -1, 3], &Device::Cpu)?;
    let op = Lookup::default().with_ids(IdPolicy::Skip);
    let mean = longseq.lookup(&op, Bags::Mean(&bags), LookupTensors::new(&given, &tables))?;
    let exact = eager::bags(table.as_tensor(), &Tensor::new(&[1u32, 3], &Device::Cpu)?, &[2], None, true)?;
    assert_near("mean", &flat(&mean)?, &flat(&exact)?, 1e-6);
    let grads = mean.sum_all()?.backward()?;
    let grad = flat(grads.get(&table).expect("a gradient"))?;
    assert_eq!(grad, [0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.5, 0.5]);
    Ok(())
}
