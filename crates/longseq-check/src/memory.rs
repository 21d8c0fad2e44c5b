//! Copies into memory that is in use: they change what they are to change, in the order of the calls.

use longseq::half::f16;
use longseq::*;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::case::Rules;
use crate::data::rng;
use crate::registry::list_tests;

list_tests!("memory":
    copies_to_and_from_any_element,
    copies_more_than_a_block,
    keeps_the_order_of_calls,
    takes_sources_that_change_afterwards,
    refuses_copies_of_other_lengths,
);

/// A buffer on the device and what it should hold.
struct Twin<B: Backend, T: Scalar> {
    buffer: Buffer<B, T>,
    expected: Vec<T>,
}

impl<B: Backend, T: Scalar + PartialEq + std::fmt::Debug> Twin<B, T> {
    fn new(backend: &B, expected: Vec<T>) -> Self {
        Self { buffer: backend.upload(&expected).expect("memory"), expected }
    }

    fn upload(&mut self, backend: &B, start: usize, data: &[T]) {
        let out = backend.view_mut(&mut self.buffer).slice(start, data.len()).expect("a part");
        backend.upload_into(out, data).expect("as many elements");
        self.expected[start..start + data.len()].copy_from_slice(data);
    }

    fn copy(&mut self, backend: &B, start: usize, from: &Self, from_start: usize, count: usize) {
        let to = backend.view_mut(&mut self.buffer).slice(start, count).expect("a part");
        let source = backend.view(&from.buffer).slice(from_start, count).expect("a part");
        backend.copy(source, to).expect("as many elements");
        self.expected[start..start + count].copy_from_slice(&from.expected[from_start..from_start + count]);
    }

    fn check(&self, backend: &B) {
        assert_eq!(backend.download(backend.view(&self.buffer)).expect("a copy"), self.expected);
    }
}

/// Elements of the bytes of random numbers, of which none is NaN.
fn elements<T: Scalar>(rng: &mut StdRng, count: usize) -> Vec<T> {
    let bytes: Vec<u8> = (0..count * size_of::<T>()).map(|_| rng.random_range(1..0x70)).collect();
    bytemuck::pod_collect_to_vec(&bytes)
}

/// Uploads and copies at random places of two buffers, of which one part after the other is compared.
fn random_copies<B: Backend, T: Scalar + PartialEq + std::fmt::Debug>(backend: &B, seed: u64) {
    let mut rng = rng(seed);
    let [mut one, mut other] = [61, 43].map(|count| Twin::new(backend, elements::<T>(&mut rng, count)));
    for round in 0..40 {
        let (start, from) = (rng.random_range(0..43), rng.random_range(0..43));
        let count = rng.random_range(0..=43 - start.max(from));
        match round % 4 {
            0 => one.upload(backend, start + 18, &elements::<T>(&mut rng, count)),
            1 => other.upload(backend, start, &elements::<T>(&mut rng, count)),
            2 => one.copy(backend, start, &other, from, count),
            _ => other.copy(backend, start, &one, from + 18, count),
        }
    }
    one.check(backend);
    other.check(backend);
}

fn copies_to_and_from_any_element<B: Backend>(backend: &B, _: Rules) {
    for seed in 0..4 {
        random_copies::<B, f32>(backend, seed);
        random_copies::<B, u16>(backend, seed);
        random_copies::<B, f16>(backend, seed);
        random_copies::<B, i8>(backend, seed);
        random_copies::<B, u8>(backend, seed);
    }
}

/// Sizes at which backends cut copies, or make them in other ways.
fn copies_more_than_a_block<B: Backend>(backend: &B, _: Rules) {
    let mut rng = rng(7);
    let count = (5 << 20) + 3;
    let mut one = Twin::new(backend, elements::<i8>(&mut rng, count));
    let mut other = Twin::new(backend, elements::<i8>(&mut rng, count));
    one.copy(backend, 1, &other, 2, count - 3);
    other.upload(backend, 3, &elements(&mut rng, count - 5));
    one.check(backend);
    other.check(backend);
}

/// Rows of a table that changes between look-ups, without a wait in between.
fn keeps_the_order_of_calls<B: Backend>(backend: &B, _: Rules) {
    let mut table = backend.upload(&[0.0f32; 4]).expect("memory");
    let ids = backend.upload(&[3u32, 1]).expect("memory");
    let mut all = backend.zeros::<f32>(6).expect("memory");
    for version in 0..3 {
        let rows = [0.0, 1.0, 2.0, 3.0].map(|row: f32| row + 10.0 * version as f32);
        backend.upload_into(backend.view_mut(&mut table), &rows).expect("four rows");
        let tables = [Table::new(4, 1, TableData::F32(backend.view(&table)))];
        let inputs = LookupInputs::new(backend.view(&ids), &tables);
        let (found, _) = backend.lookup(&Lookup::default(), Bags::Each, inputs).expect("valid ids");
        let to = backend.view_mut(&mut all).slice(2 * version, 2).expect("a part");
        backend.copy(backend.view(&found), to).expect("two rows");
    }
    let all = backend.download(backend.view(&all)).expect("a copy");
    assert_eq!(all, [3.0, 1.0, 13.0, 11.0, 23.0, 21.0]);
}

/// The host's memory may change, or go, as soon as a call returns.
fn takes_sources_that_change_afterwards<B: Backend>(backend: &B, _: Rules) {
    for count in [5, (1 << 18) + 1] {
        let mut buffer = backend.zeros::<f32>(count).expect("memory");
        let mut data = vec![1.5f32; count];
        backend.upload_into(backend.view_mut(&mut buffer), &data).expect("as many elements");
        data.fill(9.0);
        drop(data);
        let copied = backend.download(backend.view(&buffer)).expect("a copy");
        assert!(copied.iter().all(|&number| number == 1.5), "{count} numbers");
    }
}

fn refuses_copies_of_other_lengths<B: Backend>(backend: &B, _: Rules) {
    let (mut three, four) =
        (backend.upload(&[1.0f32; 3]).expect("memory"), backend.upload(&[2.0f32; 4]).expect("memory"));
    let argument = |result: Result<()>| match result {
        Err(Error::Shape { operation, argument, .. }) => (operation, argument),
        other => panic!("{other:?}"),
    };
    let out = backend.view_mut(&mut three);
    assert_eq!(argument(backend.upload_into(out, &[5.0; 2])), ("upload_into", "data"));
    let out = backend.view_mut(&mut three);
    assert_eq!(argument(backend.copy(backend.view(&four), out)), ("copy", "from"));
    assert_eq!(backend.download(backend.view(&three)), Ok(vec![1.0; 3]));
    // Nothing into nothing.
    let nowhere = backend.view_mut(&mut three).slice(3, 0).expect("no elements");
    assert_eq!(backend.upload_into(nowhere, &[]), Ok(()));
}
