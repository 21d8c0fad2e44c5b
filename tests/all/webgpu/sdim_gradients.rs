//! Gradients of SDIM on `wgpu`: shaders that are wrong on purpose, and memory that does not grow with the batch.

use longseq::prelude::*;
use longseq::{Cpu, Hash, Jagged, Result, Sdim, SdimAttendInputs};
use longseq_check::data::Data;
use longseq_check::sdim::{SdimBackwardCase, SdimCase};

use super::device::device_of_small_bindings;
use super::wrong_shaders::{Twin, twin};

fn gradients(forward: SdimCase) -> SdimBackwardCase {
    SdimBackwardCase { forward, ..Default::default() }
}

pub(super) fn twins() -> Vec<Twin> {
    let forward = SdimCase { histories: vec![200, 5], targets: vec![3, 9], ..Default::default() };
    let case = gradients(forward.clone());
    let plain = gradients(SdimCase { normalise: false, ..forward.clone() });
    let zeros = gradients(SdimCase { data: Data::Zeros, ..forward.clone() });
    let wide = gradients(SdimCase { width: 70, ..forward.clone() });
    // Tables that cost more than comparing candidates, and more than one block of signatures.
    let sparse = gradients(SdimCase { bits: 12, groups: 2, targets: vec![3, 1200], ..forward.clone() });
    // All signatures equal.
    let equal = SdimCase { data: Data::Same(1.0), histories: vec![9, 3], ..sparse.forward.clone() };
    let equal = SdimBackwardCase { hashed: true, ..gradients(equal) };
    let narrow = gradients(SdimCase { width: 5, ..forward });
    let buckets = "sdim/bucket_gradients";
    vec![
        // The projection dropped, or not divided by the length; the mean over the groups forgotten; the floor ignored.
        twin(&case, buckets, "let across = gradient - along;", "let across = gradient;"),
        twin(&case, buckets, "across / norm * scale", "across * scale"),
        twin(
            &plain,
            buckets,
            "gradient_at(row, column) / f32(params.hash_groups)",
            "gradient_at(row, column)",
        ),
        twin(&zeros, buckets, "norm < MIN_NORM * scale", "norm < 0.0"),
        // Columns past the threads of a row left out; a neighbour's row added.
        twin(&wide, buckets, "squares = sum_over_row(vec2<f32>(squares, 0.0), thread).x;", "squares += 0.0;"),
        twin(&narrow, buckets, "return parts[thread - own];", "return parts[0];"),
        twin(&case, buckets, "row < params.rows, thread", "row + 1u < params.rows, thread"),
        twin(
            &sparse,
            "sdim/target_gradients",
            "row / params.hash_groups * params.width",
            "row * params.width",
        ),
        twin(&sparse, "sdim/target_gradients", "let across = gradient - along;", "let across = gradient;"),
        // The table of the first user for all; the last group left out; the row before.
        twin(&case, "sdim/gather", "user_of(row) * params.hash_groups", "0u"),
        twin(&case, "sdim/gather", "g < params.hash_groups; g++", "g + 1u < params.hash_groups; g++"),
        twin(&case, "sdim/gather", "offsets[middle] <= row", "offsets[middle] < row"),
        // Half of the signatures, the last block, another group's signature.
        twin(&equal, "sdim/match", "bit < 32u", "bit < 16u"),
        twin(&equal, "sdim/match", "sum += block;", "sum = block;"),
        twin(&sparse, "sdim/match", "own_codes + at % params.hash_groups", "own_codes"),
        twin(&equal, "sdim/match", "if at < end {", "if at + 1u < end {"),
    ]
}

#[test]
fn wrong_gradients_of_sdim_are_caught() {
    Twin::assert_caught(&twins());
}

/// `attend` backward from rotations. All numbers are short, so that projections are exact.
fn attend_backward<B: Backend>(backend: &B, op: &Sdim, lengths: [&[usize]; 2]) -> Result<Vec<f32>> {
    let [histories, targets] = lengths;
    let batch = backend.batch(&Jagged::from_lengths(histories)?, &Jagged::from_lengths(targets)?)?;
    let (behaviours, candidates) = (histories.iter().sum::<usize>(), targets.iter().sum::<usize>());
    let numbers = |count: usize, step: usize| -> Vec<f32> {
        (0..count).map(|i| (i * step % 31) as f32 - 14.75).collect()
    };
    let history = backend.upload(&numbers(behaviours * op.width, 7))?;
    let queries = backend.upload(&numbers(candidates * op.width, 11))?;
    let grad_out = backend.upload(&numbers(candidates * op.width, 3))?;
    let rotations = backend.upload(&numbers(op.width * op.groups * op.bits, 5))?;
    let hash = || Hash::Rotations(backend.view(&rotations));
    let inputs =
        SdimAttendInputs::new(backend.view(&history), hash(), hash()).with_targets(backend.view(&queries));
    let mut grads = backend.zeros::<f32>(behaviours * op.width)?;
    let out = backend.view_mut(&mut grads);
    backend.sdim_attend_backward_into(op, &batch, inputs, backend.view(&grad_out), out)?;
    backend.download(backend.view(&grads))
}

/// Signatures of all users do not fit a binding, through tables and without; nor do partial and whole sums of all candidates of a user,
/// where two pieces or more would keep a device busy.
#[test]
fn gradients_take_the_memory_of_one_user() {
    let Some(gpu) = device_of_small_bindings() else { return };
    let cases: [(&[usize], &[usize], Sdim); 4] = [
        (&[50; 40], &[2; 40], Sdim::new(2).with_groups(16, 1)),
        (&[50; 40], &[2; 40], Sdim::new(2).with_groups(16, 8)),
        (&[900], &[40], Sdim::new(16).with_groups(8, 6)),
        (&[900], &[100], Sdim::new(16).with_groups(8, 6)),
    ];
    for (histories, targets, op) in cases {
        let expected = attend_backward(&Cpu::new(), &op, [histories, targets]).expect("a valid call");
        let got = attend_backward(&gpu, &op, [histories, targets])
            .unwrap_or_else(|error| panic!("{op:?}, {targets:?}: {error}"));
        let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let is_near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 1e-4 * largest;
        assert!(largest > 0.0 && got.iter().zip(&expected).all(is_near), "{op:?}, {targets:?}");
    }
}
