//! Summation orders of matrix instructions.

use cuda_emulator::exec::MmaOrder;
use half::{bf16, f16};

use crate::support::{Gpu, launch};

const ORDERS: [MmaOrder; 4] =
    [MmaOrder::Ascending, MmaOrder::Descending, MmaOrder::Pairwise, MmaOrder::Truncated];
const SHAPE: (usize, usize, usize) = (32, 32, 128);

/// A product computed by the textbook kernel for 16-bit tensor cores.
fn product<T: cudarc::driver::DeviceRepr>(kernel: &str, a: &[T], b: &[T], order: MmaOrder) -> Vec<f32> {
    let gpu = Gpu::new();
    gpu.emulator.set_mma_order(order);
    let function = gpu.function(include_str!("../textbook/ptx/matmul_tensor.nvrtc.ptx"), kernel);
    let (m, n, k) = SHAPE;
    let (da, db, to) = (gpu.upload(a), gpu.upload(b), gpu.zeros::<f32>(m * n));
    let (columns, depth) = (n as u32, k as u32);
    let grid = (columns / 16, (m / 16) as u32, 1);
    launch!(gpu, function, grid, (32, 1, 1), 0; &columns, &depth, &da, &db, &to)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    gpu.download(&to)
}

/// Numbers of very different magnitudes, so that the order matters.
fn rough(i: usize) -> f32 {
    let x = ((i * 2654435761) % 1009) as f32 / 1009.0 - 0.5;
    x * [1.0, 64.0, 0.01][i % 3]
}

fn check<T: cudarc::driver::DeviceRepr>(kernel: &str, convert: fn(f32) -> T, back: fn(&T) -> f64) {
    let (m, n, k) = SHAPE;
    let a: Vec<T> = (0..m * k).map(rough).map(convert).collect();
    let b: Vec<T> = (0..k * n).map(|i| rough(i + 17)).map(convert).collect();
    let results = ORDERS.map(|order| product(kernel, &a, &b, order));
    for (i, other) in results.iter().enumerate().skip(1) {
        let changed = results[0].iter().zip(other).filter(|(a, b)| a != b).count();
        assert!(changed > m * n / 10, "{kernel}: {:?} changes only {changed} of {} sums", ORDERS[i], m * n);
    }
    for (order, result) in ORDERS.iter().zip(&results) {
        for (i, &got) in result.iter().enumerate() {
            let term = |j: usize| back(&a[i / n * k + j]) * back(&b[j * n + i % n]);
            let (exact, size) =
                (0..k).fold((0.0, 0.0), |(sum, size), j| (sum + term(j), size + term(j).abs()));
            // One rounding or truncation of the partial sum per product.
            let bound = size * k as f64 * f64::from(f32::EPSILON);
            assert!(
                (f64::from(got) - exact).abs() <= bound,
                "{kernel} {order:?}: element {i} is {got}, exact {exact}"
            );
        }
    }
}

#[test]
fn orders_change_the_last_bits_only() {
    check("matmul_f16", f16::from_f32, |x| x.to_f64());
    check("matmul_bf16", bf16::from_f32, |x| x.to_f64());
    check("matmul_tf32", |x| f32::from_bits(x.to_bits() & !0x1fff), |&x| f64::from(x));
}

/// Sums of small integers are exact in every order.
#[test]
fn exact_sums_do_not_depend_on_the_order() {
    let (m, n, k) = SHAPE;
    let small = |i: usize| f16::from_f32(((i * 7) % 9) as f32 - 4.0);
    let a: Vec<f16> = (0..m * k).map(small).collect();
    let b: Vec<f16> = (0..k * n).map(|i| small(i + 3)).collect();
    let first = product("matmul_f16", &a, &b, ORDERS[0]);
    for order in &ORDERS[1..] {
        assert_eq!(product("matmul_f16", &a, &b, *order), first, "{order:?}");
    }
}
