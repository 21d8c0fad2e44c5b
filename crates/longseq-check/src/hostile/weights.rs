//! Weights of ids, and ids that are skipped.

use longseq::*;

use super::argument;
use crate::case::Rules;

/// Weights of another length than that of the ids, or without sums; their gradient without weights, or of another length.
pub(super) fn refuses_wrong_weights<B: Backend>(backend: &B, _: Rules) {
    let lengths = Jagged::from_lengths(&[2, 0, 1]).expect("three bags");
    let bags = backend.jagged(&lengths).expect("a batch");
    let table = backend.upload(&[1.0f32, 2.0, 3.0, 4.0]).expect("memory");
    let table = backend.view(&table);
    let tables = [Table::new(4, 1, TableData::F32(table)), Table::new(2, 2, TableData::F32(table))];
    let ids = backend.upload(&[1u32, 0, 3, 1, 2, 1]).expect("memory");
    let numbers = backend.upload(&[1.0f32; 9]).expect("memory");
    let of = |length| backend.view(&numbers).slice(0, length).expect("a view");
    let plain = LookupInputs::new(backend.view(&ids), &tables);
    let lookup = |bags, weights| backend.lookup(&Lookup::default(), bags, plain.with_weights(of(weights)));
    for length in [0, 1, 3, 5, 7] {
        assert_eq!(argument(lookup(Bags::Sum(&bags), length)), "weights");
    }
    assert_eq!(argument(lookup(Bags::Mean(&bags), 6)), "weights");
    assert_eq!(argument(lookup(Bags::Each, 6)), "weights");
    assert_eq!(argument(lookup(Bags::Mean(&bags), 5)), "weights");
    let (out, _) = lookup(Bags::Sum(&bags), 6).expect("weights");
    let out = backend.download(backend.view(&out)).expect("sums");
    assert_eq!(out, [6.0, 4.0, 6.0, 0.0, 0.0, 0.0, 3.0, 3.0, 4.0]);

    let backward = |bags, weights: Option<usize>, length| -> Result<Vec<f32>> {
        let mut out = backend.zeros::<f32>(length)?;
        let grads = LookupGradients::new().with_weights(backend.view_mut(&mut out));
        let inputs = weights.map_or(plain, |length| plain.with_weights(of(length)));
        let (saved, grad_out) = (LookupSaved::new(), LookupGradOut::new(of(9)));
        backend.lookup_backward_into(&Lookup::default(), bags, inputs, saved, grad_out, grads)?;
        backend.download(backend.view(&out))
    };
    for length in [0, 1, 5, 7] {
        assert_eq!(argument(backward(Bags::Sum(&bags), Some(6), length)), "grads.weights");
        assert_eq!(argument(backward(Bags::Sum(&bags), Some(length), 6)), "weights");
    }
    assert_eq!(argument(backward(Bags::Sum(&bags), None, 6)), "grads.weights");
    assert_eq!(argument(backward(Bags::Each, Some(6), 6)), "weights");
    assert_eq!(backward(Bags::Sum(&bags), Some(6), 6), Ok(vec![2.0, 3.0, 4.0, 7.0, 3.0, 7.0]));
    backend.synchronize().expect("all errors were reported");
}

/// Bags of ids that are all outside have sums, means, rows and gradients of zeros, whatever the weights; a decoupled search refuses
/// the policy.
pub(super) fn skips_whole_bags<B: Backend>(backend: &B, _: Rules) {
    let run = |ids: &[u32]| -> Result<()> {
        let count = ids.len();
        let bags = backend.jagged(&Jagged::from_lengths(&[count - 1, 0, 1])?)?;
        let table = backend.upload(&[7.0f32, 8.0, 9.0, 10.0])?;
        let tables = [Table::new(2, 2, TableData::F32(backend.view(&table)))];
        let weights = backend.upload(&vec![f32::NAN; count])?;
        let ids = backend.upload(ids)?;
        let inputs = LookupInputs::new(backend.view(&ids), &tables);
        let op = Lookup::default().with_ids(IdPolicy::Skip);
        let weighted = inputs.with_weights(backend.view(&weights));
        for (pool, inputs) in [(0, inputs), (1, inputs), (2, inputs), (1, weighted)] {
            let pooled = || match pool {
                0 => Bags::Each,
                1 => Bags::Sum(&bags),
                _ => Bags::Mean(&bags),
            };
            let (out, _) = backend.lookup(&op, pooled(), inputs)?;
            let out = backend.download(backend.view(&out))?;
            assert!(out.iter().all(|&x| x == 0.0), "{out:?}");
            let grad = backend.upload(&vec![1.0f32; out.len()])?;
            let (mut dense, mut of_weights) = (backend.zeros::<f32>(4)?, backend.zeros::<f32>(count)?);
            let mut grads = LookupGradients::new()
                .with_tables([Some(TableGradient::Dense(backend.view_mut(&mut dense)))]);
            if inputs.weights.is_some() {
                grads = grads.with_weights(backend.view_mut(&mut of_weights));
            }
            let (saved, grad_out) = (LookupSaved::new(), LookupGradOut::new(backend.view(&grad)));
            backend.lookup_backward_into(&op, pooled(), inputs, saved, grad_out, grads)?;
            let numbers =
                [backend.download(backend.view(&dense))?, backend.download(backend.view(&of_weights))?]
                    .concat();
            assert!(numbers.iter().all(|&x| x == 0.0), "{numbers:?}");
        }
        Ok(())
    };
    assert_eq!(run(&[u32::MAX, 2, u32::MAX - 1, u32::MAX]), Ok(()));
    assert_eq!(run(&[u32::MAX; 2000]), Ok(()));

    let one = Jagged::from_lengths(&[1]).expect("one user");
    let batch = backend.batch(&one, &one).expect("a batch");
    let (table, id) = (backend.zeros::<f32>(2).expect("memory"), backend.zeros::<u32>(1).expect("memory"));
    let tables = [Table::new(2, 1, TableData::F32(backend.view(&table)))];
    let op = Decoupled::new([1.0]).with_ids(IdPolicy::Skip);
    let inputs = DecoupledInputs::new(&tables, &tables, backend.view(&id), backend.view(&id));
    assert_eq!(argument(backend.decoupled_attend(&op, &batch, inputs)), "ids");
    backend.synchronize().expect("all errors were reported");
}
