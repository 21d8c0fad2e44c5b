//! Kernels that work on rows: softmax and int8 dot products.

use super::compiled::{DOT_INT8, Numbers, SOFTMAX, assert_close};
use crate::support::launch;

fn softmax(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[test]
fn softmax_of_rows() {
    SOFTMAX.each(|module| {
        let gpu = &module.gpu;
        for (rows, columns) in [(6u32, 100u32), (5, 33), (3, 257)] {
            let input: Vec<f32> = Numbers(12).units((rows * columns) as usize).into_iter().map(|x| x * 20.0).collect();
            let expected: Vec<f64> = input.chunks(columns as usize).flat_map(softmax).collect();
            let from = gpu.upload(&input);
            let mut to = gpu.unwritten::<f32>(input.len());
            let kernel = module.kernel("softmax_warp");
            module.expect(launch!(gpu, kernel, (rows.div_ceil(4), 1, 1), (128, 1, 1), 0; &rows, &columns, &from, &mut to));
            assert_close(&gpu.download(&to), &expected, 3e-6);

            let mut to = gpu.unwritten::<f32>(input.len());
            let kernel = module.kernel("softmax_block");
            module.expect(launch!(gpu, kernel, (rows, 1, 1), (128, 1, 1), 4 * columns; &columns, &from, &mut to));
            assert_close(&gpu.download(&to), &expected, 3e-6);
        }
    });
}

#[test]
fn dot_products_of_bytes() {
    DOT_INT8.each(|module| {
        let gpu = &module.gpu;
        let (rows, words) = (70u32, 9u32);
        let mut numbers = Numbers(13);
        let mut bytes = || (0..rows * words * 4).map(|_| numbers.word() as i8).collect::<Vec<i8>>();
        let (a, b) = (bytes(), bytes());
        let length = 4 * words as usize;
        let dot = |(a, b): (&[i8], &[i8])| a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>();
        let expected: Vec<i32> = a.chunks(length).zip(b.chunks(length)).map(dot).collect();
        let (da, db, mut to) = (gpu.upload(&a), gpu.upload(&b), gpu.unwritten::<i32>(rows as usize));
        module.expect(launch!(gpu, module.kernel("dot_rows"), (1, 1, 1), (96, 1, 1), 0; &rows, &words, &da, &db, &mut to));
        assert_eq!(gpu.download(&to), expected, "{}", module.compiler);

        let scale = 0.125f32;
        let sum = |row: &[i8]| row.iter().map(|&a| i32::from(a)).sum::<i32>() as f32 * scale;
        let expected: Vec<f32> = a.chunks(length).map(sum).collect();
        let mut to = gpu.unwritten::<f32>(rows as usize);
        module.expect(launch!(gpu, module.kernel("dequantised_sums"), (3, 1, 1), (32, 1, 1), 0; &rows, &words, &scale, &da, &mut to));
        assert_eq!(gpu.download(&to), expected, "{}", module.compiler);
    });
}
