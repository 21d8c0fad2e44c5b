//! Language features of C++ as compiled: calls, local arrays, structures, switches, module variables, loops of different
//! lengths.

use super::compiled::{FUNCTIONS, Numbers};
use crate::support::launch;

#[test]
fn calls_return_structures_and_integers() {
    FUNCTIONS.each(|module| {
        let gpu = &module.gpu;
        let n = 100u32;
        let at = 0.25f32;
        let x = Numbers(14).units(n as usize);
        let from = gpu.upload(&x);
        let len = n as usize;
        let (mut low, mut high, mut powers) = (gpu.unwritten::<f32>(len), gpu.unwritten::<f32>(len), gpu.unwritten::<u64>(len));
        module.expect(launch!(gpu, module.kernel("calls"), (2, 1, 1), (64, 1, 1), 0; &n, &at, &from, &mut low, &mut high, &mut powers));
        assert_eq!(gpu.download(&low), x.iter().map(|x| x.min(at)).collect::<Vec<_>>());
        assert_eq!(gpu.download(&high), x.iter().map(|x| x.max(at)).collect::<Vec<_>>());
        let expected: Vec<u64> = (0..u64::from(n))
            .map(|i| match i % 3 {
                0 => i.wrapping_pow(i as u32 % 13).wrapping_add((i + 1).wrapping_pow(i as u32 % 13)),
                _ => i.wrapping_pow(i as u32 % 7),
            })
            .collect();
        assert_eq!(gpu.download(&powers), expected, "{}", module.compiler);
    });
}

#[test]
fn local_arrays_are_indexed_at_run_time() {
    FUNCTIONS.each(|module| {
        let gpu = &module.gpu;
        let n = 50u32;
        let mut numbers = Numbers(15);
        let input: Vec<i32> = (0..n * 8).map(|_| numbers.word() as i32 % 100).collect();
        let expected: Vec<i32> = input
            .chunks(8)
            .flat_map(|row| {
                let mut sorted = row.to_vec();
                sorted.sort_unstable();
                let start = sorted[0] as u32 as usize % 8;
                sorted.rotate_left(start);
                sorted
            })
            .collect();
        let (from, mut to) = (gpu.upload(&input), gpu.unwritten::<i32>(input.len()));
        module
            .expect(launch!(gpu, module.kernel("sort_eight"), (1, 1, 1), (64, 1, 1), 0; &n, &from, &mut to));
        assert_eq!(gpu.download(&to), expected, "{}", module.compiler);
    });
}

/// The same layout as the kernel's structure.
#[derive(Clone, Copy)]
#[repr(C)]
struct Window {
    start: u32,
    length: u32,
    scale: f32,
    mode: u8,
    rest: [u8; 3],
}

// SAFETY: plain data with explicit padding.
unsafe impl cudarc::driver::DeviceRepr for Window {}

#[test]
fn switches_constants_and_module_variables() {
    FUNCTIONS.each(|module| {
        let gpu = &module.gpu;
        let input = Numbers(16).units(200);
        let from = gpu.upload(&input);
        let coefficients = [1.0f32, -0.5, 0.25, -0.125];
        // The kernels must share the module's variables, so both come from one module.
        let windowed = module.kernel("windowed");
        for mode in 0..4u8 {
            let window = Window { start: 17, length: 150, scale: 2.0, mode, rest: [0; 3] };
            assert_eq!(window.rest, [0; 3]);
            let mut to = gpu.unwritten::<f32>(150);
            module.expect(launch!(gpu, windowed, (3, 1, 1), (64, 1, 1), 0; &window, &from, &mut to));
            let expected: Vec<f32> = (0..150usize)
                .map(|i| {
                    let x = input[window.start as usize + i];
                    let y = match usize::from(mode) + i % 4 {
                        0 => x,
                        1 => -x * coefficients[i % 4],
                        2 => {
                            if x > 0.0 {
                                x
                            } else {
                                coefficients[(i + 1) % 4] * x
                            }
                        }
                        3 => x * x,
                        4 => (x * x + 1.0).sqrt(),
                        _ => 1.0 / (1.0 + x * x),
                    };
                    y * window.scale
                })
                .collect();
            assert_eq!(gpu.download(&to), expected, "{} mode {mode}", module.compiler);
        }
    });
}

/// A module variable keeps its value between launches, and is initialised every time the module is loaded.
#[test]
fn module_variables_live_as_long_as_their_module() {
    FUNCTIONS.each(|module| {
        let gpu = &module.gpu;
        let from = gpu.upload(&[1.0f32; 8]);
        let mut out = gpu.unwritten::<f32>(8);
        let window = Window { start: 0, length: 8, scale: 1.0, mode: 0, rest: [0; 3] };
        for _ in 0..2 {
            let loaded = module.module();
            let kernel = |name: &str| loaded.load_function(name).expect("the module has the kernel");
            let mut seen = gpu.unwritten::<u32>(1);
            for expected in 8..11 {
                module.expect(
                    launch!(gpu, kernel("windowed"), (1, 1, 1), (32, 1, 1), 0; &window, &from, &mut out),
                );
                module.expect(launch!(gpu, kernel("read_calls_seen"), (1, 1, 1), (1, 1, 1), 0; &mut seen));
                assert_eq!(gpu.download(&seen), [expected], "{}", module.compiler);
            }
        }
    });
}

#[test]
fn divisions_of_64_bit_integers() {
    FUNCTIONS.each(|module| {
        let gpu = &module.gpu;
        let n = 64u32;
        let mut numbers = Numbers(17);
        let a: Vec<i64> = (0..n).map(|_| numbers.word() as i64 >> numbers.below(60)).collect();
        let b: Vec<i64> = (0..n).map(|_| (numbers.word() as i64 >> numbers.below(60)) | 1).collect();
        let len = n as usize;
        let (da, db) = (gpu.upload(&a), gpu.upload(&b));
        let (mut q, mut r, mut u) = (gpu.unwritten::<i64>(len), gpu.unwritten::<i64>(len), gpu.unwritten::<u32>(len));
        module.expect(launch!(gpu, module.kernel("divisions"), (1, 1, 1), (64, 1, 1), 0; &n, &da, &db, &mut q, &mut r, &mut u));
        let each = |f: fn(i64, i64) -> i64| a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect::<Vec<_>>();
        assert_eq!(gpu.download(&q), each(i64::wrapping_div), "{}", module.compiler);
        assert_eq!(gpu.download(&r), each(i64::wrapping_rem), "{}", module.compiler);
        let expected: Vec<u32> = a.iter().zip(&b).map(|(&a, &b)| a as u32 % (b as u32 | 1)).collect();
        assert_eq!(gpu.download(&u), expected, "{}", module.compiler);
    });
}

#[test]
fn lanes_leave_a_loop_at_different_times() {
    FUNCTIONS.each(|module| {
        let gpu = &module.gpu;
        let (n, limit) = (100u32, 60u32);
        let expected: Vec<u32> = (1..=u64::from(n))
            .map(|start| {
                let mut value = start;
                (0..limit)
                    .find(|_| {
                        let done = value == 1;
                        value = if value % 2 == 1 { 3 * value + 1 } else { value / 2 };
                        done
                    })
                    .unwrap_or(limit)
            })
            .collect();
        let mut to = gpu.unwritten::<u32>(n as usize);
        module.expect(launch!(gpu, module.kernel("collatz"), (4, 1, 1), (32, 1, 1), 0; &n, &limit, &mut to));
        assert_eq!(gpu.download(&to), expected, "{}", module.compiler);
    });
}
