//! The widest rows and the largest layers that DIN's kernels have memory for, and errors beyond.

use longseq::half::bf16;
use longseq::*;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::device;
use longseq_check::din::DinCase;

/// A forward pass of one pair of rows of this width, through layers of so many units.
fn din<T: Element>(gpu: &Cuda, width: usize, units: &[usize]) -> Result<()> {
    let one = Jagged::from_lengths(&[1])?;
    let batch = gpu.batch(&one, &one)?;
    let rows = gpu.zeros::<T>(width)?;
    let mut inputs = 4 * width;
    let mut layers = Vec::new();
    for &units in units {
        layers.push((gpu.zeros::<T>(units * inputs)?, gpu.zeros::<f32>(units)?));
        inputs = units;
    }
    let hidden: Vec<_> = layers
        .iter()
        .map(|(weight, bias)| DinLayer::new(gpu.view(weight), gpu.view(bias), Activation::Sigmoid))
        .collect();
    let (output_weight, output_bias) = (gpu.zeros::<T>(inputs)?, gpu.zeros::<f32>(1)?);
    let (output_weight, output_bias) = (gpu.view(&output_weight), gpu.view(&output_bias));
    let inputs = DinInputs::new(gpu.view(&rows), gpu.view(&rows), &hidden, output_weight, output_bias);
    let out = gpu.din(&Din::new(width), &batch, inputs)?;
    gpu.download(gpu.view(&out)).map(drop)
}

/// The largest width that an error says these layers take.
fn widest<T: Element>(gpu: &Cuda, units: &[usize]) -> usize {
    match din::<T>(gpu, 3000, units) {
        Err(Error::Limit { operation: "din", argument: "width", needed: 3000, limit }) => limit as usize,
        other => panic!("{units:?}: {other:?}"),
    }
}

#[test]
fn rows_as_wide_as_an_error_says_are_taken() {
    let Some(gpu) = device() else { return };
    for units in [vec![8], vec![80, 40], vec![256, 256, 256]] {
        let (wide, narrow) = (widest::<f32>(&gpu, &units), widest::<bf16>(&gpu, &units));
        assert!(16 <= wide && wide < narrow, "{units:?}: {wide}, {narrow}");
        for (dtype, width) in [(DType::F32, wide), (DType::Bf16, narrow)] {
            let beyond = match dtype {
                DType::F32 => din::<f32>(&gpu, width + 1, &units),
                _ => din::<bf16>(&gpu, width + 1, &units),
            };
            let (needed, limit) = (width as u64 + 1, width as u64);
            let expected = Error::Limit { operation: "din", argument: "width", needed, limit };
            assert_eq!(beyond, Err(expected), "{units:?}");
            let (histories, targets) = (vec![20], vec![2]);
            let hidden = units.clone();
            assert_check(&DinCase { dtype, width, hidden, histories, targets, ..Default::default() }, &gpu);
        }
    }
}

#[test]
fn layers_of_more_units_are_refused_by_name() {
    let Some(gpu) = device() else { return };
    for (units, argument) in
        [(vec![257], "hidden[0].bias"), (vec![8, 257], "hidden[1].bias"), (vec![8, 4, 257], "hidden[2].bias")]
    {
        let expected = Error::Limit { operation: "din", argument, needed: 257, limit: 256 };
        assert_eq!(din::<f32>(&gpu, 4, &units), Err(expected));
    }
    gpu.synchronize().expect("nothing was started");
}
