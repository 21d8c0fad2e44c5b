//! Weights of behaviours, behaviours that are taken from tables, and tables that decay.

use longseq::half::{bf16, f16};
use longseq::prelude::*;
use longseq::*;

use super::{SdimCase, Weights};
use crate::case::{Rules, assert_check};
use crate::compare::{Bound, U, compare, roundings};
use crate::data::{self, Data};

/// In few buckets and in many, in widths and types that kernels take differently.
pub(super) fn matches_reference_with_weights<B: Backend>(backend: &B, rules: Rules) {
    for (width, groups, bits) in [(64, 16, 3), (5, 2, 7), (20, 3, 1)] {
        for (dtype, weights) in [
            (DType::F32, Weights::Signed),
            (DType::F32, Weights::Fading),
            (DType::F16, Weights::Signed),
            (DType::Bf16, Weights::Fading),
        ] {
            let (histories, targets) = (vec![300, 0, 17], vec![5, 2, 20]);
            let sizes = SdimCase { width, groups, bits, histories, targets, ..Default::default() };
            assert_check(&SdimCase { dtype, weights, tail: 2, ..sizes }, backend, rules);
        }
    }
    let (histories, targets) = (vec![20, 7000, 0], vec![2, 2, 1]);
    let long = SdimCase { width: 8, histories, targets, weights: Weights::Signed, ..Default::default() };
    for data in [Data::Normal, Data::Flat(1e-20), Data::Flat(1e25), Data::Zeros] {
        assert_check(&SdimCase { data, ..long.clone() }, backend, rules);
    }
}

/// Three users' behaviours, of whom the second has none.
const LENGTHS: [usize; 3] = [90, 0, 40];
/// How many of them are forgotten: some, none, all.
const GONE: [usize; 3] = [30, 0, 40];

/// What tests of this file share: behaviours, their signatures, weights.
struct Kept<B: Backend, T: Element> {
    op: Sdim,
    rows: Buffer<B, T>,
    signatures: Buffer<B, u8>,
    rotations: Buffer<B, f32>,
    weights: Buffer<B, f32>,
    /// The largest error of a sum of all behaviours.
    error: f64,
}

impl<B: Backend, T: Element> Kept<B, T> {
    fn new(backend: &B, op: Sdim) -> Result<Self> {
        let (count, mut rng) = (LENGTHS.iter().sum::<usize>(), data::rng(7));
        let rows = data::rows::<T>(&mut rng, Data::Normal, count, op.width);
        let weights = data::rows::<f32>(&mut rng, Data::Normal, count, 1);
        let signatures = data::signatures(&mut rng, count * op.groups, op.bits);
        let signatures: Vec<u8> = signatures.into_iter().map(|word| word as u8).collect();
        let longest = LENGTHS[0];
        let term = data::max_abs(&rows) * data::max_abs(&weights).max(1.0);
        Ok(Self {
            op,
            rows: backend.upload(&rows)?,
            signatures: backend.upload(&signatures)?,
            rotations: backend.upload(&op.rotations(3)?)?,
            weights: backend.upload(&weights)?,
            error: (roundings(longest) + 2.0) * U * longest as f64 * term,
        })
    }

    /// All behaviours, by rotations or by given signatures.
    fn behaviours<'a>(&'a self, backend: &B, hashed: bool) -> SdimEncodeInputs<'a, B::Memory, T> {
        let hash = match hashed {
            true => Hash::Rotations(backend.view(&self.rotations)),
            false => Hash::Signatures8(backend.view(&self.signatures)),
        };
        SdimEncodeInputs::new(backend.view(&self.rows), hash)
    }

    fn compare(&self, name: &str, got: &[f32], expected: &[f32], rules: Rules) {
        let expected: Vec<f64> = expected.iter().map(|&x| x.into()).collect();
        assert!(expected.iter().any(|x| x.abs() > 1e-2), "{name}: nothing to compare");
        // Both have been rounded as often as a table, an append and a removal are.
        let bound = Bound::uniform(6.0 * self.error, false);
        compare(name, got, &expected, &bound, rules)
            .unwrap_or_else(|failure| panic!("{:?}: {failure}", self.op));
    }
}

/// Ranges of the behaviours of each user: the oldest, or those after them.
fn ranges(oldest: bool) -> Result<Jagged> {
    let first = LENGTHS.iter().scan(0, |sum, length| Some(std::mem::replace(sum, *sum + length)));
    let own = first.zip(LENGTHS).zip(GONE);
    let own =
        own.map(|((first, length), gone)| if oldest { (first, gone) } else { (first + gone, length - gone) });
    let (starts, lengths): (Vec<usize>, Vec<usize>) = own.unzip();
    Jagged::from_starts(&starts, &lengths, LENGTHS.iter().sum())
}

/// A table without its oldest behaviours is the table of the others.
pub(super) fn forgets_the_oldest_behaviours<B: Backend>(backend: &B, rules: Rules) {
    fn run<B: Backend, T: Element>(backend: &B, op: Sdim, rules: Rules) -> Result<()> {
        let kept = Kept::<B, T>::new(backend, op)?;
        let all = backend.jagged(&Jagged::from_lengths(&LENGTHS)?)?;
        let [oldest, others] = [backend.jagged(&ranges(true)?)?, backend.jagged(&ranges(false)?)?];
        for (hashed, weighted) in [(false, false), (true, true)] {
            let mut behaviours = kept.behaviours(backend, hashed);
            behaviours.weights = weighted.then(|| backend.view(&kept.weights));
            let mut table = backend.sdim_encode(&op, &all, behaviours)?;
            backend.sdim_remove(&op, &oldest, behaviours, backend.view_mut(&mut table))?;
            let expected = backend.sdim_encode(&op, &others, behaviours)?;
            let [got, expected] = [&table, &expected].map(|table| backend.download(backend.view(table)));
            kept.compare("table without the oldest", &got?, &expected?, rules);
        }
        Ok(())
    }
    for op in [Sdim::new(20).with_groups(3, 2), Sdim::new(5).with_groups(2, 7)] {
        run::<B, f32>(backend, op, rules).expect("valid calls");
        run::<B, f16>(backend, op, rules).expect("valid calls");
        run::<B, bf16>(backend, op, rules).expect("valid calls");
    }
}

/// A table that decays is one of behaviours whose weights do.
pub(super) fn decays_as_weights_do<B: Backend>(backend: &B, rules: Rules) {
    let op = Sdim::new(20).with_groups(3, 2);
    let run = |factors: &[f32]| -> Result<()> {
        let kept = Kept::<B, f32>::new(backend, op)?;
        let all = backend.jagged(&Jagged::from_lengths(&LENGTHS)?)?;
        let behaviours = kept.behaviours(backend, true);
        let weights = backend.download(backend.view(&kept.weights))?;
        let mut table =
            backend.sdim_encode(&op, &all, behaviours.with_weights(backend.view(&kept.weights)))?;
        let on_device = backend.upload(factors)?;
        backend.sdim_decay(&op, backend.view_mut(&mut table), backend.view(&on_device))?;
        let user = |i: usize| if factors.len() == 1 || i < LENGTHS[0] { 0 } else { 2 };
        let less: Vec<f32> =
            weights.iter().enumerate().map(|(i, weight)| weight * factors[user(i)]).collect();
        let less = backend.upload(&less)?;
        let expected = backend.sdim_encode(&op, &all, behaviours.with_weights(backend.view(&less)))?;
        let [got, expected] = [&table, &expected].map(|table| backend.download(backend.view(table)));
        kept.compare("decayed table", &got?, &expected?, rules);
        Ok(())
    };
    run(&[0.5]).expect("valid calls");
    run(&[0.9, 0.0, -0.3]).expect("valid calls");
}

/// Products with numbers that are not finite are what IEEE makes of them, in their column of the buckets of their row; what was not
/// finite cannot be taken out again.
pub(super) fn multiplies_numbers_that_are_not_finite<B: Backend>(backend: &B, rules: Rules) {
    fn run<B: Backend, T: Element>(backend: &B, bits: usize) -> Result<()> {
        let (op, rows) = (Sdim::new(20).with_groups(3, bits), 100);
        let mut history = data::rows::<T>(&mut data::rng(5), Data::Normal, rows, op.width);
        let mut weights = vec![0.5f32; rows];
        for (row, column, number, weight) in [
            (3, 4, f32::NAN, 0.0),
            (40, 19, f32::INFINITY, -2.0),
            (41, 0, f32::NEG_INFINITY, 0.0),
            (60, 7, 1.0, f32::INFINITY),
            (61, 8, 1.0, f32::NAN),
        ] {
            history[row * op.width + column] = T::from_f32(number);
            weights[row] = weight;
        }
        let signatures = data::signatures(&mut data::rng(6), rows * op.groups, op.bits);
        let all = Jagged::from_lengths(&[rows])?;
        let inputs = SdimEncodeInputs::new(Host::view(&history), Hash::Signatures16(Host::view(&signatures)))
            .with_weights(Host::view(&weights));
        let table = reference::sdim_encode(&op, &all, &inputs)?;
        let without = reference::sdim_remove(&op, &all, &inputs, &table)?;
        let (history, signatures) = (backend.upload(&history)?, backend.upload(&signatures)?);
        let weights = backend.upload(&weights)?;
        let inputs =
            SdimEncodeInputs::new(backend.view(&history), Hash::Signatures16(backend.view(&signatures)))
                .with_weights(backend.view(&weights));
        let all = backend.jagged(&all)?;
        let mut got = backend.sdim_encode(&op, &all, inputs)?;
        let encoded = backend.download(backend.view(&got))?;
        backend.sdim_remove(&op, &all, inputs, backend.view_mut(&mut got))?;
        let removed = backend.download(backend.view(&got))?;
        for (name, got, expected) in [("table", encoded, table), ("removed", removed, without)] {
            assert!(expected.iter().any(|x| !x.is_finite()));
            for (i, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                let expected = expected as f32;
                let same = got == expected || got.is_nan() && expected.is_nan();
                assert!(same || (got - expected).abs() < 1e-4, "{name}[{i}]: {got}, expected {expected}");
            }
        }
        Ok(())
    }
    if rules.nan {
        for bits in [2, 7] {
            run::<B, f32>(backend, bits).expect("valid calls");
            run::<B, f16>(backend, bits).expect("valid calls");
            run::<B, bf16>(backend, bits).expect("valid calls");
        }
    }
}

/// Nothing is computed then.
pub(super) fn refuses_weights_and_factors_that_do_not_fit<B: Backend>(backend: &B, _: Rules) {
    let op = Sdim::new(2).with_groups(1, 1);
    let run = || -> Result<Vec<String>> {
        let users = backend.jagged(&Jagged::from_lengths(&[2, 1])?)?;
        let (numbers, signatures) = (backend.upload(&[1.0f32; 8])?, backend.upload(&[0u8, 1, 1])?);
        let mut table = backend.upload(&[2.0f32; 8])?;
        let first = |count| backend.view(&numbers).slice(0, count);
        let inputs = SdimEncodeInputs::new(first(6)?, Hash::Signatures8(backend.view(&signatures)))
            .with_weights(first(2)?);
        let mut grads = backend.upload(&[3.0f32; 6])?;
        let errors = [
            backend.sdim_encode_into(&op, &users, inputs, backend.view_mut(&mut table)),
            backend.sdim_append(&op, &users, inputs, backend.view_mut(&mut table)),
            backend.sdim_remove(&op, &users, inputs, backend.view_mut(&mut table)),
            backend.sdim_remove(
                &op,
                &users,
                inputs.with_weights(first(3)?),
                backend.view_mut(&mut table).slice(0, 4)?,
            ),
            backend.sdim_decay(&op, backend.view_mut(&mut table), first(3)?),
            backend.sdim_decay(&op, backend.view_mut(&mut table), first(0)?),
            backend.sdim_decay(&op, backend.view_mut(&mut table).slice(0, 6)?, first(1)?),
            backend.sdim_encode_backward_into(
                &op,
                &users,
                inputs,
                backend.view(&numbers),
                backend.view_mut(&mut grads),
            ),
        ];
        backend.synchronize()?;
        assert_eq!(backend.download(backend.view(&table))?, [2.0; 8]);
        assert_eq!(backend.download(backend.view(&grads))?, [3.0; 6]);
        Ok(errors.into_iter().map(|error| error.expect_err("does not fit").to_string()).collect())
    };
    let weights = "weights: expected [N] = [3], 3 elements, got 2 elements";
    let factors = |got| format!("sdim_decay: factors: expected [B] = [2], 2 elements, got {got} elements");
    let table = |users, wanted, got| {
        format!("table: expected [B, G, 2^τ, d] = [{users}, 1, 2, 2], {wanted} elements, got {got} elements")
    };
    let expected = [
        format!("sdim_encode: {weights}"),
        format!("sdim_append: {weights}"),
        format!("sdim_remove: {weights}"),
        format!("sdim_remove: {}", table(2, 8, 4)),
        factors(3),
        factors(0),
        format!("sdim_decay: {}", table(1, 4, 6)),
        format!("sdim_encode_backward: {weights}"),
    ];
    assert_eq!(run().expect("valid lengths"), expected);
}
