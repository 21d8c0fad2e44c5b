//! Prefix sums, histograms and selection.

use super::compiled::{HISTOGRAM, Numbers, RADIX_SELECT, SCAN};
use crate::support::launch;

#[test]
fn a_scan_of_one_block() {
    SCAN.each(|module| {
        let gpu = &module.gpu;
        for n in [1u32, 100, 256] {
            // Integers, so that the sum is exact in any order.
            let input: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32).collect();
            let expected: Vec<f32> = input
                .iter()
                .scan(0.0, |sum, x| {
                    *sum += x;
                    Some(*sum)
                })
                .collect();
            let (from, mut to) = (gpu.upload(&input), gpu.unwritten::<f32>(n as usize));
            module.expect(
                launch!(gpu, module.kernel("scan_one_block"), (1, 1, 1), (256, 1, 1), 0; &n, &from, &mut to),
            );
            assert_eq!(gpu.download(&to), expected, "{} {n}", module.compiler);
        }
    });
}

#[test]
fn a_scan_of_many_blocks() {
    SCAN.each(|module| {
        let gpu = &module.gpu;
        let n = 10_000u32;
        let mut numbers = Numbers(6);
        let input: Vec<u32> = (0..n).map(|_| numbers.below(1000) as u32).collect();
        let expected: Vec<u32> = input.iter().scan(0, |sum, x| { *sum += x; Some(*sum) }).collect();
        let blocks = n.div_ceil(256);
        let (from, mut to, mut sums) = (gpu.upload(&input), gpu.unwritten::<u32>(n as usize), gpu.unwritten::<u32>(blocks as usize));
        module.expect(launch!(gpu, module.kernel("scan_blocks"), (blocks, 1, 1), (256, 1, 1), 0; &n, &from, &mut to, &mut sums));
        module.expect(launch!(gpu, module.kernel("scan_sums"), (1, 1, 1), (256, 1, 1), 0; &blocks, &mut sums));
        module.expect(launch!(gpu, module.kernel("add_sums"), (blocks, 1, 1), (256, 1, 1), 0; &n, &sums, &mut to));
        assert_eq!(gpu.download(&to), expected, "{}", module.compiler);
    });
}

#[test]
fn histograms_count_every_byte() {
    HISTOGRAM.each(|module| {
        let gpu = &module.gpu;
        let n = 8192u32;
        let mut numbers = Numbers(7);
        // Skewed, so that lanes collide.
        let input: Vec<u8> = (0..n).map(|_| (numbers.below(16) * numbers.below(16)) as u8).collect();
        let mut expected = vec![0u32; 256];
        for &byte in &input {
            expected[usize::from(byte)] += 1;
        }
        let from = gpu.upload(&input);
        for name in ["histogram", "histogram_matched"] {
            let mut bins = gpu.zeros::<u32>(256);
            module.expect(launch!(gpu, module.kernel(name), (5, 1, 1), (256, 1, 1), 0; &n, &from, &mut bins));
            assert_eq!(gpu.download(&bins), expected, "{} {name}", module.compiler);
        }
    });
}

#[test]
fn radix_selection_preserves_the_order_of_positions() {
    RADIX_SELECT.each(|module| {
        let gpu = &module.gpu;
        for (n, k, values) in [(1000u32, 10u32, 1_000_000u64), (1000, 100, 20), (700, 700, 5), (300, 1, 1), (257, 64, 3)] {
            let mut numbers = Numbers(u64::from(n + k));
            let input: Vec<f32> = (0..n).map(|_| numbers.below(values) as f32 - values as f32 / 2.0).collect();
            // Sorted by value, ties by position; the selected ones then by position.
            let mut order: Vec<u32> = (0..n).collect();
            order.sort_by(|&a, &b| input[b as usize].total_cmp(&input[a as usize]).then(a.cmp(&b)));
            let mut expected = order[..k as usize].to_vec();
            expected.sort_unstable();
            let (from, mut to) = (gpu.upload(&input), gpu.unwritten::<u32>(k as usize));
            module.expect(launch!(gpu, module.kernel("radix_select"), (1, 1, 1), (256, 1, 1), 0; &n, &k, &from, &mut to));
            assert_eq!(gpu.download(&to), expected, "{} {n} {k} {values}", module.compiler);
        }
    });
}
