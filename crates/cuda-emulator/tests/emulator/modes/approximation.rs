//! Approximate instructions at the limits of their documented error.

use cuda_emulator::exec::Approximation;

use crate::support::{Gpu, launch};

/// Instruction, arguments, exact result, and the documented error, relative and absolute.
struct Case {
    instruction: &'static str,
    arguments: Vec<f32>,
    exact: fn(f64) -> f64,
    relative: f64,
    absolute: f64,
}

fn cases() -> Vec<Case> {
    let spread =
        |low: f32, high: f32| (0..200).map(|i| low + (high - low) * i as f32 / 199.3).collect::<Vec<_>>();
    let ulp = f64::from(f32::EPSILON);
    let case = |instruction, arguments, exact, relative, absolute| Case {
        instruction,
        arguments,
        exact,
        relative,
        absolute,
    };
    vec![
        case("ex2.approx.f32", spread(-20.0, 20.0), f64::exp2, 2f64.powi(-22), 0.0),
        case("ex2.approx.ftz.f32", spread(-20.0, 20.0), f64::exp2, 2f64.powi(-22), 0.0),
        case("lg2.approx.f32", spread(0.51, 1.99), f64::log2, 0.0, 2f64.powi(-22)),
        case("rcp.approx.f32", spread(0.3, 80.0), |x| 1.0 / x, ulp, 0.0),
        case("rcp.approx.ftz.f32", spread(0.3, 80.0), |x| 1.0 / x, ulp, 0.0),
        case("rsqrt.approx.f32", spread(0.3, 80.0), |x| 1.0 / x.sqrt(), 2f64.powf(-22.4), 0.0),
        case("sqrt.approx.f32", spread(0.3, 80.0), f64::sqrt, 2f64.powi(-22), 0.0),
        case("sin.approx.f32", spread(-3.1, 3.1), f64::sin, 0.0, 2f64.powf(-20.5)),
        case("cos.approx.f32", spread(-3.1, 3.1), f64::cos, 0.0, 2f64.powf(-20.5)),
        case("tanh.approx.f32", spread(-4.0, 4.0), f64::tanh, 2f64.powi(-10), 0.0),
        case("div.approx.f32 %r, 0f40E00000, %a", spread(0.3, 80.0), |x| 7.0 / x, 2.0 * ulp, 0.0),
        case("div.full.f32 %r, 0f40E00000, %a", spread(0.3, 80.0), |x| 7.0 / x, 2.0 * ulp, 0.0),
    ]
}

fn results(instruction: &str, arguments: &[f32], mode: Approximation) -> Vec<f32> {
    let gpu = Gpu::new();
    gpu.emulator.set_approximation(mode);
    let statement =
        if instruction.contains('%') { instruction.to_owned() } else { format!("{instruction} %r, %a") };
    let ptx = format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{{\n.reg .b64 %p, %o, %at;\n.reg .b32 %t;\n.reg .f32 %a, %r;\n\
         ld.param.u64 %p, [in];\nld.param.u64 %o, [out];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %at, %t, 4;\nadd.u64 %p, %p, %at;\nadd.u64 %o, %o, %at;\n\
         ld.global.f32 %a, [%p];\n{statement};\nst.global.f32 [%o], %r;\nret;\n}}\n"
    );
    let function = gpu.function(&ptx, "k");
    let (from, to) = (gpu.upload(arguments), gpu.zeros::<f32>(arguments.len()));
    launch!(gpu, function, (1, 1, 1), (arguments.len() as u32, 1, 1), 0; &from, &to)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    gpu.download(&to)
}

#[test]
fn perturbed_results_differ_and_stay_within_the_documented_error() {
    for case in cases() {
        let run = |mode| results(case.instruction, &case.arguments, mode);
        let nearest = run(Approximation::Nearest);
        let (lowest, highest) = (run(Approximation::Lowest), run(Approximation::Highest));
        let seeded = run(Approximation::Seeded(11));
        for (i, &a) in case.arguments.iter().enumerate() {
            let exact = (case.exact)(f64::from(a));
            // The result is also rounded to single precision.
            let bound = exact.abs() * (case.relative + f64::from(f32::EPSILON) / 2.0) + case.absolute;
            for (mode, result) in [
                ("nearest", nearest[i]),
                ("lowest", lowest[i]),
                ("highest", highest[i]),
                ("seeded", seeded[i]),
            ] {
                let error = (f64::from(result) - exact).abs();
                assert!(
                    error <= bound,
                    "{} of {a}: {mode} gives {result}, {error} from {exact}, bound {bound}",
                    case.instruction
                );
            }
            assert!(lowest[i] <= nearest[i] && nearest[i] <= highest[i], "{} of {a}", case.instruction);
            assert!(lowest[i] <= seeded[i] && seeded[i] <= highest[i], "{} of {a}", case.instruction);
        }
        let differs = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| a != b).count() * 2 > a.len();
        assert!(differs(&lowest, &highest), "{}: most results have room for error", case.instruction);
        assert!(
            seeded.iter().zip(&nearest).any(|(a, b)| a != b),
            "{}: the seed changes something",
            case.instruction
        );
    }
}

#[test]
fn errors_are_reproducible_by_seed_and_differ_between_seeds() {
    for case in cases() {
        let run = |seed| results(case.instruction, &case.arguments, Approximation::Seeded(seed));
        assert_eq!(run(3), run(3), "{}", case.instruction);
        assert_ne!(run(3), run(4), "{}", case.instruction);
    }
}

/// Values that the PTX ISA specifies exactly have no error.
#[test]
fn listed_values_are_exact_in_every_mode() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for mode in
        [Approximation::Nearest, Approximation::Lowest, Approximation::Highest, Approximation::Seeded(1)]
    {
        for (instruction, table) in [
            ("ex2.approx.f32", vec![(0.0f32, 1.0f32), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan)]),
            ("lg2.approx.f32", vec![(0.0, -inf), (inf, inf), (-1.0, nan), (nan, nan)]),
            ("rcp.approx.f32", vec![(0.0, inf), (-0.0, -inf), (inf, 0.0), (-inf, -0.0), (nan, nan)]),
            ("rsqrt.approx.f32", vec![(0.0, inf), (inf, 0.0), (-1.0, nan), (nan, nan)]),
            ("sqrt.approx.f32", vec![(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-1.0, nan), (nan, nan)]),
            ("sin.approx.f32", vec![(0.0, 0.0), (-0.0, -0.0), (inf, nan), (nan, nan)]),
            ("cos.approx.f32", vec![(0.0, 1.0), (inf, nan), (nan, nan)]),
            ("tanh.approx.f32", vec![(0.0, 0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)]),
        ] {
            let (arguments, expected): (Vec<f32>, Vec<f32>) = table.into_iter().unzip();
            for ((a, expected), got) in
                arguments.iter().zip(expected).zip(results(instruction, &arguments, mode))
            {
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "{instruction} of {a} in {mode:?} is {got}, expected {expected}");
            }
        }
    }
}

/// `ex2` of an integer has no error where the result is a normal number; see `is_power` in `approximate.rs`.
#[test]
fn powers_of_two_are_exact_in_every_mode() {
    let arguments: Vec<f32> = (-126..=127).map(|i| i as f32).collect();
    for instruction in ["ex2.approx.f32", "ex2.approx.ftz.f32"] {
        for mode in [Approximation::Lowest, Approximation::Highest, Approximation::Seeded(1)] {
            let exact: Vec<f32> = arguments.iter().map(|a| a.exp2()).collect();
            assert_eq!(results(instruction, &arguments, mode), exact, "{instruction} in {mode:?}");
            let between: Vec<f32> = arguments.iter().map(|a| a + 0.5).collect();
            let nearest = results(instruction, &between, Approximation::Nearest);
            assert_ne!(results(instruction, &between, mode), nearest, "{instruction} in {mode:?}");
        }
    }
}

/// Rounded instructions have no error either.
#[test]
fn rounded_instructions_are_the_same_in_every_mode() {
    let arguments: Vec<f32> = (1..100).map(|i| i as f32 * 0.37).collect();
    for instruction in [
        "sqrt.rn.f32",
        "rcp.rn.f32",
        "div.rn.f32 %r, 0f40E00000, %a",
        "fma.rn.f32 %r, %a, %a, %a",
        "cvt.rni.f32.f32",
    ] {
        let nearest = results(instruction, &arguments, Approximation::Nearest);
        for mode in [Approximation::Lowest, Approximation::Highest, Approximation::Seeded(1)] {
            assert_eq!(results(instruction, &arguments, mode), nearest, "{instruction} in {mode:?}");
        }
    }
}
