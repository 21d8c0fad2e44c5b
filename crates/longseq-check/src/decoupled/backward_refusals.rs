//! Backward passes that are errors.

use longseq::*;

use crate::case::Rules;
use crate::lookup::{Owned, Stored, upload_all, views};

/// Sizes that do not fit are errors of the backward call, not of the forward one.
pub(super) fn names_the_backward_call<B: Backend>(backend: &B, _: Rules) {
    let op = Decoupled::new([1.0]).with_top_k(Some(2));
    let owned = [Owned { rows: 4, width: 1, data: Stored::F32(vec![1.0; 4].into()) }];
    let owned = upload_all(backend, &owned).expect("an upload");
    let tables = views(backend, &owned);
    // Of two behaviours, a candidate, a selection, and a gradient: how many numbers there are.
    let run = |call: usize, ids: usize, selected: usize, grad: usize| -> Result<()> {
        let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
        let (history, target) = (backend.upload(&vec![1u32; ids])?, backend.upload(&[1u32])?);
        let (history, target) = (backend.view(&history), backend.view(&target));
        let (positions, scores) = (backend.upload(&vec![0u32; selected])?, backend.upload(&[1.0f32; 2])?);
        let counts = backend.upload(&[1u32])?;
        let selection =
            Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
        let grad_buffer = backend.upload(&vec![1.0f32; grad])?;
        let grad = backend.view(&grad_buffer);
        let mut sparse = backend.sparse_gradient(3, 1)?;
        let asked = [Some(sparse.table_gradient())];
        match call {
            0 => {
                let (inputs, grads) = (
                    SearchInputs::new(&tables, history, target),
                    SearchGradients::new().with_attention(asked),
                );
                backend.decoupled_search_backward_into(&op, &batch, inputs, selection, grad, grads)?;
            }
            1 => {
                let inputs = AggregateInputs::new(&tables, history, target);
                let grads = AggregateGradients::new().with_representation(asked);
                backend.decoupled_aggregate_backward_into(&op, &batch, inputs, selection, grad, grads)?;
            }
            _ => {
                let inputs = DecoupledInputs::new(&tables, &tables, history, target);
                let grads = DecoupledGradients::new().with_attention(asked);
                let saved = DecoupledSaved::new().with_selection(selection);
                backend.decoupled_attend_backward_into(&op, &batch, inputs, saved, grad, grads)?;
            }
        }
        backend.synchronize()
    };
    let calls = [
        ("decoupled_search_backward", 2, "grad_scores"),
        ("decoupled_aggregate_backward", 1, "grad_out"),
        ("decoupled_attend_backward", 1, "grad_out"),
    ];
    for (call, (name, grad, argument)) in calls.into_iter().enumerate() {
        assert_eq!(run(call, 2, 2, grad), Ok(()), "{name}");
        for (ids, selected, grad, wrong) in
            [(3, 2, grad, "history_ids"), (2, 1, grad, "positions"), (2, 2, grad + 1, argument)]
        {
            match run(call, ids, selected, grad) {
                Err(Error::Shape { operation, argument, .. }) => {
                    assert_eq!((operation, argument), (name, wrong))
                }
                result => panic!("{name}, {wrong}: {result:?}"),
            }
        }
    }
}

/// 8-bit tables have no gradient; bad ids, selections and sizes are errors that name the argument.
pub(super) fn refuses_what_has_no_gradient<B: Backend>(backend: &B, _: Rules) {
    let table = |int8: bool| -> Owned<Host> {
        let data = match int8 {
            true => Stored::Int8 {
                codes: vec![1; 4].into(),
                scale: vec![1.0; 4].into(),
                offset: vec![0.0; 4].into(),
            },
            false => Stored::F32(vec![1.0; 4].into()),
        };
        Owned { rows: 4, width: 1, data }
    };
    let top_2 = Decoupled::new([1.0]).with_top_k(Some(2));
    // Of attention and representation tables that are stored so, with these ids of a behaviour and a candidate.
    let run = |op: &Decoupled,
               int8: [bool; 2],
               ids: [u32; 2],
               positions: [u32; 2],
               room: usize|
     -> Result<()> {
        let tables = [vec![table(int8[0])], vec![table(int8[1])]];
        let (a, r) = (upload_all(backend, &tables[0])?, upload_all(backend, &tables[1])?);
        let (a, r) = (views(backend, &a), views(backend, &r));
        let (history, target) = (backend.upload(&[ids[0], 1])?, backend.upload(&ids[1..])?);
        let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
        let inputs = DecoupledInputs::new(&a, &r, backend.view(&history), backend.view(&target));
        let (positions, scores) = (backend.upload(&positions)?, backend.upload(&[1.0f32, 0.5])?);
        let counts = backend.upload(&[2u32])?;
        let selection =
            Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
        let grad_out = backend.upload(&[1.0f32])?;
        let mut first = backend.sparse_gradient(room, 1)?;
        let mut second = backend.sparse_gradient(room, 1)?;
        let mut grads = DecoupledGradients::new().with_attention([Some(first.table_gradient())]);
        if !int8[1] || !int8[0] {
            grads = grads.with_representation([Some(second.table_gradient())]);
        }
        let mut saved = DecoupledSaved::new();
        if op.top_k.is_none() || ids == [0, 0] {
            saved = saved.with_selection(selection);
        }
        backend.decoupled_attend_backward_into(op, &batch, inputs, saved, backend.view(&grad_out), grads)?;
        backend.synchronize()
    };
    assert_eq!(run(&top_2, [false, false], [0, 0], [0, 1], 3), Ok(()));
    for (int8, place) in [([true, true], "grads.attention[0]"), ([false, true], "grads.representation[0]")] {
        match run(&top_2, int8, [0, 0], [0, 1], 3) {
            Err(Error::Unsupported { what, .. }) => assert!(what.starts_with(place), "{what}"),
            result => panic!("{result:?}"),
        }
    }
    let argument = |result: Result<()>| match result {
        Err(Error::IndexOutOfRange { argument, .. }) => argument,
        Err(Error::Shape { argument, .. } | Error::Parameter { argument, .. }) => argument,
        result => panic!("{result:?}"),
    };
    assert_eq!(argument(run(&top_2, [false; 2], [0, 0], [0, 2], 3)), "positions");
    assert_eq!(argument(run(&top_2, [false; 2], [4, 0], [0, 1], 3)), "history_ids");
    assert_eq!(argument(run(&top_2, [false; 2], [0, 4], [0, 1], 3)), "target_ids");
    assert_eq!(argument(run(&top_2, [false; 2], [0, 0], [0, 1], 2)), "grads.attention");
    let all = top_2.with_top_k(None);
    assert_eq!(argument(run(&all, [false; 2], [0, 0], [0, 1], 3)), "saved.selection");
}
