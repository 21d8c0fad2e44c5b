//! Look-ups.

use burn::tensor::{DType, FloatDType, Tensor};
use longseq::{Bags, IdPolicy, Lookup, Result};
use longseq_burn::{JaggedRows, Longseq, LookupTensors};

use crate::common::{Given, assert_near, check_gradients, flat, gradients, ids, ints_of, random, row};
use crate::eager;

const LENGTHS: [usize; 3] = [3, 0, 2];

#[test]
fn bags_of_one_table() -> Result<()> {
    let longseq = Longseq::cpu();
    let bags = longseq.jagged(&[0u32, 3, 3, 5][..])?;
    let given = ids([5, 1], 4, 9);
    let op = Lookup::default();
    let x = [random(&[4, 3], 1), random(&[5, 1], 2)];
    let look_up = |x: &[Given], bags: Bags<'_, JaggedRows>| -> Result<Tensor<1>> {
        let table = x[0].tensor::<2>();
        let (tables, weights) = ([&table], x.get(1).map(Given::tensor::<2>));
        let mut tensors = LookupTensors::new(&given, &tables);
        tensors.weights = weights.as_ref();
        Ok(row(longseq.lookup(&op, bags, tensors)?))
    };
    let eager = |x: &[Given], is_mean: bool| -> Result<Tensor<1>> {
        let weights = x.get(1).map(Given::tensor::<2>);
        Ok(row(eager::bags(&x[0].tensor(), &given, &LENGTHS, weights.as_ref(), is_mean)))
    };
    check_gradients("weighted sums", &x, |x| look_up(x, Bags::Sum(&bags)), |x| eager(x, false))?;
    check_gradients("means", &x[..1], |x| look_up(x, Bags::Mean(&bags)), |x| eager(x, true))?;
    check_gradients(
        "rows",
        &x[..1],
        |x| look_up(x, Bags::Each),
        |x| Ok(row(x[0].tensor::<2>().select(0, given.clone().squeeze_dim(1)))),
    )
}

#[test]
fn many_tables_of_different_types() -> Result<()> {
    let longseq = Longseq::cpu();
    let given = ids([6, 5], 4, 9);
    let tables: Vec<Given> = (0..5).map(|feature| random(&[4, 2 + feature], feature as u64)).collect();
    let types = [FloatDType::F32, FloatDType::F16, FloatDType::BF16, FloatDType::F32, FloatDType::F32];
    let rounded: Vec<Given> = tables.iter().zip(types).map(|(table, dtype)| table.cast(dtype)).collect();
    let ours = |x: &[Given]| -> Result<Tensor<1>> {
        let tables: Vec<Tensor<2>> = x.iter().map(Given::tensor).collect();
        let tables: Vec<&Tensor<2>> = tables.iter().collect();
        Ok(row(longseq.lookup(&Lookup::default(), Bags::Each, LookupTensors::new(&given, &tables))?))
    };
    let eager = |x: &[Given]| -> Result<Tensor<1>> {
        let column = |feature: usize| given.clone().narrow(1, feature, 1).squeeze_dim::<1>(1);
        let rows =
            x.iter().enumerate().map(|(feature, table)| table.tensor::<2>().select(0, column(feature)));
        Ok(row(Tensor::cat(rows.collect(), 1)))
    };
    let wide: Vec<Given> = rounded.iter().map(Given::wide).collect();
    assert_near("rows", &flat(&ours(&rounded)?), &flat(&eager(&wide)?), 0.0);
    for (got, exact) in gradients(&rounded, ours)?.iter().zip(gradients(&wide, eager)?) {
        assert_near("tables", got, &exact, 1e-2);
    }
    Ok(())
}

#[test]
fn ids_of_every_type() -> Result<()> {
    let longseq = Longseq::cpu();
    let table = random(&[4, 2], 1).tensor::<2>();
    let exact = flat(&table.clone().narrow(0, 3, 1));
    let types =
        [DType::I64, DType::I32, DType::I16, DType::I8, DType::U64, DType::U32, DType::U16, DType::U8];
    for dtype in types {
        let given = ints_of(vec![3], [1, 1], dtype);
        let rows = longseq.lookup(&Lookup::default(), Bags::Each, LookupTensors::new(&given, &[&table]))?;
        assert_eq!(flat(&rows), exact, "{dtype:?}");
    }
    Ok(())
}

#[test]
fn ids_that_are_padding() -> Result<()> {
    let longseq = Longseq::cpu();
    let bags = longseq.jagged(&[0u32, 3][..])?;
    let op = Lookup::default().with_ids(IdPolicy::Skip);
    for dtype in [DType::I64, DType::I32] {
        let given = ints_of(vec![1, -1, 3], [3, 1], dtype);
        let x = [random(&[4, 2], 1)];
        let mean = |x: &[Given]| -> Result<Tensor<1>> {
            let table = x[0].tensor::<2>();
            Ok(row(longseq.lookup(&op, Bags::Mean(&bags), LookupTensors::new(&given, &[&table]))?))
        };
        let kept = ints_of(vec![1, 3], [2, 1], DType::I64);
        let exact = eager::bags(&x[0].tensor(), &kept, &[2], None, true);
        assert_near("mean", &flat(&mean(&x)?), &flat(&exact), 1e-6);
        let grads = gradients(&x, mean)?;
        let [zero, one, two, three] = [0, 1, 2, 3].map(|row| &grads[0][2 * row..][..2]);
        assert_eq!((zero, two), (&[0.0, 0.0][..], &[0.0, 0.0][..]));
        assert_eq!(one, three);
        assert!(one.iter().all(|&x| x != 0.0));
    }
    Ok(())
}
