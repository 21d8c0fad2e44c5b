//! Atomics of many blocks on a few addresses.

use super::compiled::{ATOMICS, Numbers};
use crate::support::launch;

#[test]
fn integer_atomics_do_not_depend_on_the_order() {
    ATOMICS.each(|module| {
        let gpu = &module.gpu;
        let n = 3000u32;
        let mut numbers = Numbers(18);
        let input: Vec<u32> = (0..n).map(|_| numbers.word() as u32).collect();
        let from = gpu.upload(&input);
        let mut to = gpu.upload(&[0u32, i32::MAX as u32, 0, 0, u32::MAX, 0]);
        module.expect(
            launch!(gpu, module.kernel("integer_atomics"), (12, 1, 1), (256, 1, 1), 0; &n, &from, &mut to),
        );
        let all = input.iter().copied();
        let expected = [
            all.clone().fold(0, u32::wrapping_add),
            input.iter().map(|&x| x as i32).min().expect("not empty") as u32,
            all.clone().max().expect("not empty"),
            all.clone().fold(0, |a, b| a | b),
            all.clone().fold(u32::MAX, |a, b| a & b),
            all.fold(0, |a, b| a ^ b),
        ];
        assert_eq!(gpu.download(&to), expected, "{}", module.compiler);
    });
}

#[test]
fn a_maximum_by_compare_and_swap() {
    ATOMICS.each(|module| {
        let gpu = &module.gpu;
        let n = 500u32;
        let input: Vec<f64> = Numbers(19).units(n as usize).into_iter().map(|x| f64::from(x.abs())).collect();
        let (from, mut to) = (gpu.upload(&input), gpu.zeros::<u64>(1));
        module.expect(
            launch!(gpu, module.kernel("maximum_by_cas"), (4, 1, 1), (128, 1, 1), 0; &n, &from, &mut to),
        );
        let largest = input.iter().copied().fold(0.0, f64::max);
        assert_eq!(f64::from_bits(gpu.download(&to)[0]), largest, "{}", module.compiler);
    });
}

#[test]
fn float_atomics_of_integers_are_exact() {
    ATOMICS.each(|module| {
        let gpu = &module.gpu;
        let n = 1000u32;
        let input: Vec<f32> = (0..n).map(|i| (i % 17) as f32 - 8.0).collect();
        let (from, mut sum, mut wide) = (gpu.upload(&input), gpu.zeros::<f32>(1), gpu.zeros::<f64>(1));
        module.expect(launch!(gpu, module.kernel("float_atomics"), (8, 1, 1), (128, 1, 1), 0; &n, &from, &mut sum, &mut wide));
        let expected: f32 = input.iter().sum();
        assert_eq!((gpu.download(&sum)[0], gpu.download(&wide)[0]), (expected, f64::from(expected)), "{}", module.compiler);
    });
}

#[test]
fn tickets_are_a_permutation() {
    ATOMICS.each(|module| {
        let gpu = &module.gpu;
        let n = 700u32;
        let (mut next, mut to) = (gpu.zeros::<u32>(1), gpu.unwritten::<u32>(n as usize));
        module.expect(
            launch!(gpu, module.kernel("tickets"), (6, 1, 1), (128, 1, 1), 0; &n, &mut next, &mut to),
        );
        let mut taken = gpu.download(&to);
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..n), "{}", module.compiler);
    });
}
