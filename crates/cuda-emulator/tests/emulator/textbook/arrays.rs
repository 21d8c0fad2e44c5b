//! saxpy, transpose and reductions.

use half::f16;

use super::compiled::{Numbers, REDUCTION, SAXPY, TRANSPOSE};
use crate::support::launch;

#[test]
fn saxpy_in_single_precision_is_exact() {
    SAXPY.each(|module| {
        let gpu = &module.gpu;
        let n = 1000u32;
        let mut numbers = Numbers(1);
        let (x, y, a) = (numbers.units(n as usize), numbers.units(n as usize), 0.7f32);
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| a.mul_add(*x, *y)).collect();
        let (dx, mut dy) = (gpu.upload(&x), gpu.upload(&y));
        module.expect(launch!(gpu, module.kernel("saxpy"), (8, 1, 1), (128, 1, 1), 0; &n, &a, &dx, &mut dy));
        assert_eq!(gpu.download(&dy), expected, "{}", module.compiler);

        // A grid of two blocks processes 250 vectors in a grid-stride loop.
        let vectors = n / 4;
        let mut dy = gpu.upload(&y);
        module.expect(launch!(gpu, module.kernel("saxpy_vectors"), (2, 1, 1), (64, 1, 1), 0; &vectors, &a, &dx, &mut dy));
        assert_eq!(gpu.download(&dy), expected, "{}", module.compiler);
    });
}

#[test]
fn saxpy_in_half_precision_is_exact() {
    SAXPY.each(|module| {
        let gpu = &module.gpu;
        let n = 333u32;
        let mut numbers = Numbers(2);
        let halves = |values: Vec<f32>| values.into_iter().map(f16::from_f32).collect::<Vec<_>>();
        let (x, y, a) = (halves(numbers.units(n as usize)), halves(numbers.units(n as usize)), -1.3f32);
        let expected: Vec<f16> =
            x.iter().zip(&y).map(|(x, y)| f16::from_f32(a.mul_add(x.to_f32(), y.to_f32()))).collect();
        let (dx, mut dy) = (gpu.upload(&x), gpu.upload(&y));
        module.expect(
            launch!(gpu, module.kernel("saxpy_half"), (3, 1, 1), (128, 1, 1), 0; &n, &a, &dx, &mut dy),
        );
        assert_eq!(gpu.download(&dy), expected, "{}", module.compiler);
    });
}

#[test]
fn transposes_of_odd_shapes() {
    TRANSPOSE.each(|module| {
        let gpu = &module.gpu;
        for (rows, columns) in [(64u32, 96u32), (33, 70), (1, 100)] {
            let input: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let expected: Vec<f32> = (0..columns)
                .flat_map(|column| (0..rows).map(move |row| (row * columns + column) as f32))
                .collect();
            let from = gpu.upload(&input);
            let grid = (columns.div_ceil(32), rows.div_ceil(32), 1);
            for (name, threads) in [
                ("transpose_straight", (32, 32, 1)),
                ("transpose_conflicts", (32, 8, 1)),
                ("transpose_padded", (32, 8, 1)),
            ] {
                let mut to = gpu.unwritten::<f32>(input.len());
                module.expect(
                    launch!(gpu, module.kernel(name), grid, threads, 0; &rows, &columns, &from, &mut to),
                );
                assert_eq!(gpu.download(&to), expected, "{} {name} {rows} x {columns}", module.compiler);
            }
        }
    });
}

/// The counts show the effect of the padding: a column of a 32-wide tile is in a single bank.
#[test]
fn padding_removes_bank_conflicts_and_tiles_save_sectors() {
    TRANSPOSE.each(|module| {
        let gpu = &module.gpu;
        let (rows, columns) = (64u32, 64u32);
        let from = gpu.upload(&vec![1.0f32; 64 * 64]);
        let counts = |name: &str, threads| {
            let mut to = gpu.unwritten::<f32>(64 * 64);
            module.expect(
                launch!(gpu, module.kernel(name), (2, 2, 1), threads, 0; &rows, &columns, &from, &mut to),
            );
            gpu.emulator.take_counts().pop().expect("a launch is counted").counts
        };
        let straight = counts("transpose_straight", (32, 32, 1));
        let conflicts = counts("transpose_conflicts", (32, 8, 1));
        let padded = counts("transpose_padded", (32, 8, 1));
        // 64 x 64 words are 512 sectors to read and to write; the naive write accesses one sector per word.
        assert_eq!(padded.global_sectors, 1024);
        assert_eq!(padded.global_sectors_minimum, 1024);
        assert_eq!(straight.global_sectors, 512 + 64 * 64);
        assert_eq!((padded.global_bytes_read, padded.global_bytes_written), (16384, 16384));
        // 128 warp reads of a column, with 31 additional passes each.
        assert_eq!(padded.shared_conflicts, 0);
        assert_eq!(conflicts.shared_conflicts, 128 * 31);
        assert_eq!(padded.barriers, 4 * 8);
        assert_eq!((padded.blocks, padded.warps), (4, 32));
    });
}

#[test]
fn a_tree_adds_in_its_own_order() {
    REDUCTION.each(|module| {
        let gpu = &module.gpu;
        let n = 1000u32;
        let input = Numbers(3).units(n as usize);
        let expected: Vec<f32> = input
            .chunks(256)
            .map(|chunk| {
                let mut tile = [0.0f32; 256];
                tile[..chunk.len()].copy_from_slice(chunk);
                let mut half = 128;
                while half > 0 {
                    for t in 0..half {
                        tile[t] += tile[t + half];
                    }
                    half /= 2;
                }
                tile[0]
            })
            .collect();
        let (from, mut partial) = (gpu.upload(&input), gpu.unwritten::<f32>(4));
        module.expect(
            launch!(gpu, module.kernel("sum_tree"), (4, 1, 1), (256, 1, 1), 0; &n, &from, &mut partial),
        );
        assert_eq!(gpu.download(&partial), expected, "{}", module.compiler);
    });
}

#[test]
fn a_maximum_by_shuffles() {
    REDUCTION.each(|module| {
        let gpu = &module.gpu;
        let n = 5000u32;
        let mut numbers = Numbers(4);
        let input: Vec<u32> = (0..n).map(|_| numbers.word() as u32).collect();
        let (from, mut to) = (gpu.upload(&input), gpu.zeros::<u32>(1));
        module.expect(
            launch!(gpu, module.kernel("max_shuffle"), (3, 1, 1), (256, 1, 1), 0; &n, &from, &mut to),
        );
        assert_eq!(gpu.download(&to)[0], *input.iter().max().expect("not empty"), "{}", module.compiler);
    });
}

#[test]
fn the_last_block_to_arrive_finishes_the_sum() {
    REDUCTION.each(|module| {
        let gpu = &module.gpu;
        let n = 3000u32;
        let input: Vec<f64> = Numbers(5).units(n as usize).into_iter().map(f64::from).collect();
        let blocks = 5;
        let mut expected = 0.0;
        for block in 0..blocks {
            let of_thread = |t: usize| (block * 256 + t..n as usize).step_by(blocks * 256).fold(0.0, |sum, i| sum + input[i]);
            expected += (0..256).map(of_thread).reduce(|a, b| a + b).expect("256 threads");
        }
        let from = gpu.upload(&input);
        let (mut partial, mut arrived, mut to) = (gpu.unwritten::<f64>(blocks), gpu.zeros::<u32>(1), gpu.unwritten::<f64>(1));
        let kernel = module.kernel("sum_last_block");
        module.expect(launch!(gpu, kernel, (blocks as u32, 1, 1), (256, 1, 1), 0; &n, &from, &mut partial, &mut arrived, &mut to));
        assert_eq!(gpu.download(&to), [expected], "{}", module.compiler);
    });
}
