//! Tensors of burn's Flex on longseq's GPU backends: software Vulkan and the CUDA emulator, where there is no GPU.

use burn::tensor::{FloatDType, Tensor};
use longseq::{Activation, Bags, Din, Lookup, Result, Sdim, TargetAttention};
use longseq_burn::{
    Batch, DinLayerTensors, DinTensors, Longseq, LookupTensors, Place, SdimTensors, TargetAttentionTensors,
};

use crate::common::{Given, assert_near, flat, gradients, ids, random, row};

/// Queries, keys, values, a layer's weight, the output's, and a bias.
fn inputs(dtype: FloatDType) -> Vec<Given> {
    let shapes: [&[usize]; 6] = [&[3, 8], &[7, 8], &[7, 8], &[4, 32], &[1, 4], &[7, 2]];
    let given = shapes.iter().zip(1..).map(|(shape, seed)| random(shape, seed));
    given.enumerate().map(|(index, x)| if index < 5 { x.cast(dtype) } else { x }).collect()
}

/// Some operations, joined.
fn all<P: Place>(longseq: &Longseq<P>, batch: &Batch<P>, x: &[Given]) -> Result<Tensor<1>> {
    let [queries, keys, values, weight, out_weight, bias] =
        [0, 1, 2, 3, 4, 5].map(|index: usize| x[index].tensor::<2>());
    let op = TargetAttention::new(4).with_heads(2, 2);
    let given = TargetAttentionTensors::new(&queries, &keys).with_values(&values).with_bias(&bias);
    let attention = longseq.target_attention(&op, batch, given)?;
    let (unit_bias, out_bias) = (random(&[4], 8).tensor(), random(&[1], 9).tensor());
    let hidden = [DinLayerTensors::new(&weight, &unit_bias, Activation::Relu)];
    let din = DinTensors::new(&queries, &keys, &hidden, &out_weight, &out_bias);
    let din = longseq.din(&Din::new(8), batch, din)?;
    let sdim = Sdim::new(8).with_groups(2, 2);
    let rotations = Given::new(sdim.rotations(3)?, &[8, 2, 2]).tensor();
    let interest = longseq.sdim_attend(&sdim, batch, SdimTensors::new(&queries, &keys, &rotations))?;
    let (bags, given) = (longseq.jagged(&[0u32, 3, 7][..])?, ids([7, 1], 7, 11));
    let tables = [&values];
    let rows = LookupTensors::new(&given, &tables);
    let rows = longseq.lookup(&Lookup::default(), Bags::Mean(&bags), rows)?;
    let parts = [attention, din, interest, rows].map(|part| row(part).cast(FloatDType::F32));
    Ok(Tensor::cat(parts.into(), 0))
}

fn compare<P: Place>(device: &Longseq<P>) -> Result<()> {
    let cpu = Longseq::cpu();
    let (histories, targets) = (&[0u32, 3, 7][..], &[0u32, 2, 3][..]);
    let (on_cpu, on_device) = (cpu.batch(histories, targets)?, device.batch(histories, targets)?);
    for (dtype, bound) in [(FloatDType::F32, 1e-5), (FloatDType::F16, 5e-3), (FloatDType::BF16, 4e-2)] {
        let x = inputs(dtype);
        let what = format!("{dtype:?}");
        let (got, exact) = (all(device, &on_device, &x)?, all(&cpu, &on_cpu, &x)?);
        assert_near(&what, &flat(&got), &flat(&exact), bound);
        let got = gradients(&x, |x| all(device, &on_device, x))?;
        let exact = gradients(&x, |x| all(&cpu, &on_cpu, x))?;
        for (index, (got, exact)) in got.iter().zip(&exact).enumerate() {
            assert_near(&format!("{what}: gradient {index}"), got, exact, bound);
        }
    }
    Ok(())
}

/// Whether a missing device is an error.
fn is_required(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value != "off")
}

#[cfg(feature = "wgpu")]
#[test]
fn on_wgpu() -> Result<()> {
    match longseq::Wgpu::new() {
        Ok(backend) => compare(&Longseq::on(backend)),
        Err(error) if is_required("LONGSEQ_TEST_WGPU") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            Ok(())
        }
    }
}

#[cfg(feature = "cuda")]
#[test]
fn on_cuda() -> Result<()> {
    match longseq::Cuda::new(0) {
        Ok(backend) => compare(&Longseq::on(backend)),
        Err(error) if is_required("LONGSEQ_TEST_CUDA") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            Ok(())
        }
    }
}
