//! Kernels of `kernels/blocks.py`, whose compiler lets several lanes and warps hold and store the same element.

use cudarc::driver::{CudaFunction, CudaSlice};
use half::f16;

use super::compiled::{Numbers, assert_close};
use crate::support::{Gpu, launch};

macro_rules! ptx {
    ($stem:literal) => {
        include_str!(concat!("ptx/", $stem, ".triton.ptx"))
    };
}

/// What the compiler adds to the parameters: two addresses of scratch memory, of which these kernels need none.
const SCRATCH: u64 = 0;

/// The most bytes of dynamic shared memory that any of the kernels needs.
const SHARED: u32 = 4096;

/// Runs a test with blocks and warps in index order and in two shuffled orders.
fn each(ptx: &str, kernel: &str, test: impl Fn(&Gpu, &CudaFunction)) {
    for seed in [None, Some(1), Some(2)] {
        let gpu = Gpu::new();
        gpu.emulator.set_schedule_seed(seed);
        test(&gpu, &gpu.function(ptx, kernel));
    }
}

#[track_caller]
fn expect<E: std::fmt::Display>(gpu: &Gpu, result: Result<(), E>) {
    if let Err(error) = result {
        panic!("{error}: {}", gpu.findings_text());
    }
    assert_eq!(gpu.emulator.take_findings(), []);
}

/// Numbers that are exact in half precision.
fn halves(numbers: &mut Numbers, count: usize) -> Vec<f16> {
    numbers.units(count).into_iter().map(f16::from_f32).collect()
}

fn softmax_row(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[test]
fn softmax() {
    for (ptx, columns) in [(ptx!("softmax_32"), 32u32), (ptx!("softmax_32"), 19), (ptx!("softmax_256"), 200)]
    {
        each(ptx, "softmax", |gpu, kernel| {
            let input: Vec<f32> =
                Numbers(21).units(5 * columns as usize).into_iter().map(|x| x * 9.0).collect();
            let expected: Vec<f64> = input.chunks(columns as usize).flat_map(softmax_row).collect();
            let (from, mut to) = (gpu.upload(&input), gpu.unwritten::<f32>(input.len()));
            expect(
                gpu,
                launch!(gpu, kernel, (5, 1, 1), (128, 1, 1), SHARED; &mut to, &from, &columns, &SCRATCH, &SCRATCH),
            );
            assert_close(&gpu.download(&to), &expected, 3e-6);
        });
    }
}

#[test]
fn layer_norm() {
    each(ptx!("layer_norm_64"), "layer_norm", |gpu, kernel| {
        let (columns, epsilon) = (50u32, 1e-5f32);
        let mut numbers = Numbers(22);
        let (x, w, b) = (numbers.units(200), numbers.units(50), numbers.units(50));
        let row = |row: &[f32]| {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
            let one = |(i, x): (usize, &f64)| (x - mean) * scale * f64::from(w[i]) + f64::from(b[i]);
            row.iter().enumerate().map(one).collect::<Vec<f64>>()
        };
        let expected: Vec<f64> = x.chunks(50).flat_map(row).collect();
        let (dx, dw, db, mut to) =
            (gpu.upload(&x), gpu.upload(&w), gpu.upload(&b), gpu.unwritten::<f32>(200));
        expect(
            gpu,
            launch!(gpu, kernel, (4, 1, 1), (128, 1, 1), SHARED; &mut to, &dx, &dw, &db, &columns, &epsilon, &SCRATCH, &SCRATCH),
        );
        assert_close(&gpu.download(&to), &expected, 1e-5);
    });
}

#[test]
fn attention() {
    each(ptx!("attention_16_32_16"), "attention", |gpu, kernel| {
        let (length, width, scale) = (75usize, 16usize, 0.25f32);
        let mut numbers = Numbers(23);
        let (q, k, v) = (
            halves(&mut numbers, 32 * width),
            halves(&mut numbers, length * width),
            halves(&mut numbers, length * width),
        );
        let mut expected = Vec::new();
        for query in q.chunks(width) {
            let dot = |key: &[f16]| {
                query.iter().zip(key).map(|(a, b)| a.to_f32() * b.to_f32()).sum::<f32>() * scale
            };
            let weights = softmax_row(&k.chunks(width).map(dot).collect::<Vec<_>>());
            let sum = |c: usize| {
                weights.iter().zip(v.chunks(width)).map(|(w, row)| w * row[c].to_f64()).sum::<f64>()
            };
            expected.extend((0..width).map(sum));
        }
        let (dq, dk, dv, mut to) =
            (gpu.upload(&q), gpu.upload(&k), gpu.upload(&v), gpu.unwritten::<f32>(32 * width));
        let length = length as u32;
        expect(
            gpu,
            launch!(gpu, kernel, (2, 1, 1), (128, 1, 1), SHARED; &mut to, &dq, &dk, &dv, &length, &scale, &SCRATCH, &SCRATCH),
        );
        // The weights are rounded to half precision before the second product.
        assert_close(&gpu.download(&to), &expected, 1e-3);
    });
}

#[test]
fn sorting() {
    for (ptx, block, threads) in [(ptx!("sort_64"), 64usize, 128), (ptx!("sort_16"), 16, 32)] {
        each(ptx, "sort", |gpu, kernel| {
            let mut input = Numbers(24).units(3 * block);
            input[1] = input[0];
            let mut expected = input.clone();
            expected.chunks_mut(block).for_each(|chunk| chunk.sort_by(f32::total_cmp));
            let (from, mut to) = (gpu.upload(&input), gpu.unwritten::<f32>(input.len()));
            expect(
                gpu,
                launch!(gpu, kernel, (3, 1, 1), (threads, 1, 1), SHARED; &mut to, &from, &SCRATCH, &SCRATCH),
            );
            assert_eq!(gpu.download(&to), expected);
        });
    }
}

#[test]
fn sums_so_far_and_histograms() {
    let input: Vec<i32> = (0..128).map(|i| i * i * 7 % 16).collect();
    let run = |gpu: &Gpu, kernel: &CudaFunction, blocks: u32, count: usize| {
        let (from, mut to): (CudaSlice<i32>, CudaSlice<i32>) = (gpu.upload(&input), gpu.unwritten(count));
        expect(
            gpu,
            launch!(gpu, kernel, (blocks, 1, 1), (128, 1, 1), SHARED; &mut to, &from, &SCRATCH, &SCRATCH),
        );
        gpu.download(&to)
    };
    each(ptx!("sums_so_far_64"), "sums_so_far", |gpu, kernel| {
        let sums = |chunk: &[i32]| {
            chunk
                .iter()
                .scan(0, |sum, x| {
                    *sum += x;
                    Some(*sum)
                })
                .collect::<Vec<_>>()
        };
        let expected: Vec<i32> = input.chunks(64).flat_map(sums).collect();
        assert_eq!(run(gpu, kernel, 2, 128), expected);
    });
    each(ptx!("histogram_128_16"), "histogram", |gpu, kernel| {
        let count = |bin: i32| input.iter().filter(|x| **x == bin).count() as i32;
        assert_eq!(run(gpu, kernel, 1, 16), (0..16).map(count).collect::<Vec<_>>());
    });
}

#[test]
fn sums_of_rows_and_columns() {
    each(ptx!("transposed_sums_8_4"), "transposed_sums", |gpu, kernel| {
        let input: Vec<f32> = (0..32).map(|i| i as f32).collect();
        let rows = input.chunks(4).map(|row| row.iter().sum::<f32>());
        let columns = (0..4).map(|c| input.iter().skip(c).step_by(4).sum::<f32>());
        let expected: Vec<f32> = rows.chain(columns).collect();
        let (from, mut to) = (gpu.upload(&input), gpu.unwritten::<f32>(12));
        expect(gpu, launch!(gpu, kernel, (1, 1, 1), (64, 1, 1), SHARED; &mut to, &from, &SCRATCH, &SCRATCH));
        assert_eq!(gpu.download(&to), expected);
    });
}
