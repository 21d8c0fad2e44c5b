//! Matrix products, tiled and on tensor cores.

use half::{bf16, f16};

use super::compiled::{MATMUL_TENSOR, MATMUL_TILED, Numbers, assert_close};
use crate::support::launch;

/// Row-major m x k times k x n, in double precision.
fn product(m: usize, n: usize, k: usize, a: &[f64], b: &[f64]) -> Vec<f64> {
    let cell =
        |row: usize, column: usize| (0..k).fold(0.0, |sum, i| sum + a[row * k + i] * b[i * n + column]);
    (0..m * n).map(|i| cell(i / n, i % n)).collect()
}

fn wide<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

#[test]
fn tiled_products_of_odd_shapes() {
    MATMUL_TILED.each(|module| {
        let gpu = &module.gpu;
        let (m, n, k) = (37u32, 50, 29);
        let mut numbers = Numbers(8);
        let (a, b) = (numbers.units((m * k) as usize), numbers.units((k * n) as usize));
        let expected = product(m as usize, n as usize, k as usize, &wide(&a), &wide(&b));
        let grid = (n.div_ceil(16), m.div_ceil(16), 1);
        let (da, db, mut dc) = (gpu.upload(&a), gpu.upload(&b), gpu.unwritten::<f32>((m * n) as usize));
        module.expect(
            launch!(gpu, module.kernel("matmul_f32"), grid, (16, 16, 1), 0; &m, &n, &k, &da, &db, &mut dc),
        );
        assert_close(&gpu.download(&dc), &expected, 1e-5);

        let (da, db, mut dc) =
            (gpu.upload(&wide(&a)), gpu.upload(&wide(&b)), gpu.unwritten::<f64>((m * n) as usize));
        module.expect(
            launch!(gpu, module.kernel("matmul_f64"), grid, (16, 16, 1), 0; &m, &n, &k, &da, &db, &mut dc),
        );
        for (got, expected) in gpu.download(&dc).into_iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-13, "{} {got} {expected}", module.compiler);
        }
    });
}

#[test]
fn a_product_by_register_tiles() {
    MATMUL_TILED.each(|module| {
        let gpu = &module.gpu;
        let (m, n, k) = (64u32, 128u32, 48u32);
        let mut numbers = Numbers(9);
        let (a, b) = (numbers.units((m * k) as usize), numbers.units((k * n) as usize));
        let expected = product(m as usize, n as usize, k as usize, &wide(&a), &wide(&b));
        let (da, db, mut dc) = (gpu.upload(&a), gpu.upload(&b), gpu.unwritten::<f32>((m * n) as usize));
        let kernel = module.kernel("matmul_register_tile");
        module
            .expect(launch!(gpu, kernel, (n / 64, m / 64, 1), (16, 16, 1), 8192; &n, &k, &da, &db, &mut dc));
        assert_close(&gpu.download(&dc), &expected, 1e-5);
    });
}

const SHAPE: (u32, u32, u32) = (48, 32, 80);

#[test]
fn tensor_core_products_of_sixteen_bits() {
    MATMUL_TENSOR.each(|module| {
        let gpu = &module.gpu;
        let (m, n, k) = SHAPE;
        let mut numbers = Numbers(10);
        let (a, b) = (numbers.units((m * k) as usize), numbers.units((k * n) as usize));
        let grid = (n / 16, m / 16, 1);

        let halves = |values: &[f32]| values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
        let (ha, hb) = (halves(&a), halves(&b));
        let expected = product(m as usize, n as usize, k as usize, &wide(&ha), &wide(&hb));
        let (da, db, mut dc) = (gpu.upload(&ha), gpu.upload(&hb), gpu.unwritten::<f32>((m * n) as usize));
        module.expect(
            launch!(gpu, module.kernel("matmul_f16"), grid, (32, 1, 1), 0; &n, &k, &da, &db, &mut dc),
        );
        assert_close(&gpu.download(&dc), &expected, 1e-5);

        let brains = |values: &[f32]| values.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
        let (ha, hb) = (brains(&a), brains(&b));
        let expected = product(m as usize, n as usize, k as usize, &wide(&ha), &wide(&hb));
        let (da, db, mut dc) = (gpu.upload(&ha), gpu.upload(&hb), gpu.unwritten::<f32>((m * n) as usize));
        module.expect(
            launch!(gpu, module.kernel("matmul_bf16"), grid, (32, 1, 1), 0; &n, &k, &da, &db, &mut dc),
        );
        assert_close(&gpu.download(&dc), &expected, 1e-5);
    });
}

#[test]
fn tensor_core_products_of_tf32() {
    MATMUL_TENSOR.each(|module| {
        let gpu = &module.gpu;
        let (m, n, k) = SHAPE;
        let mut numbers = Numbers(11);
        let (a, b) = (numbers.units((m * k) as usize), numbers.units((k * n) as usize));
        // Rounded to ten fraction bits, ties away from zero.
        let tf32 = |values: &[f32]| values.iter().map(|x| f64::from(f32::from_bits((x.to_bits() + 0x1000) & !0x1fff))).collect::<Vec<_>>();
        let expected = product(m as usize, n as usize, k as usize, &tf32(&a), &tf32(&b));
        let (da, db, mut dc) = (gpu.upload(&a), gpu.upload(&b), gpu.unwritten::<f32>((m * n) as usize));
        module.expect(launch!(gpu, module.kernel("matmul_tf32"), (n / 16, m / 16, 1), (32, 1, 1), 0; &n, &k, &da, &db, &mut dc));
        assert_close(&gpu.download(&dc), &expected, 1e-5);
    });
}
