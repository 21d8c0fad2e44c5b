//! Tensors of burn's Flex on longseq's GPU backends, and those of burn's wgpu backend where they are: software Vulkan and the CUDA emulator, where
//! there is no GPU.

use burn::tensor::{DType, Device, FloatDType, Tensor};
#[cfg(feature = "burn-wgpu")]
use longseq::prelude::*;
use longseq::{Activation, Bags, Din, Lookup, Result, Sdim, TargetAttention};
use longseq_burn::{
    Batch, DinLayerTensors, DinTensors, Longseq, LookupTensors, Place, SdimTensors, TargetAttentionTensors,
};

use crate::common::{Given, assert_near, flat, gradients, ints_of, random, row};

/// Queries, keys, values, a layer's weight, the output's, and a bias.
fn inputs(dtype: FloatDType) -> Vec<Given> {
    let shapes: [&[usize]; 6] = [&[3, 8], &[7, 8], &[7, 8], &[4, 32], &[1, 4], &[7, 2]];
    let given = shapes.iter().zip(1..).map(|(shape, seed)| random(shape, seed));
    given.enumerate().map(|(index, x)| if index < 5 { x.cast(dtype) } else { x }).collect()
}

/// Some operations on tensors of a device, joined.
fn all<P: Place>(longseq: &Longseq<P>, batch: &Batch<P>, x: &[Given], device: &Device) -> Result<Tensor<1>> {
    let [queries, keys, values, weight, out_weight, bias] =
        [0, 1, 2, 3, 4, 5].map(|index: usize| x[index].tensor::<2>());
    let op = TargetAttention::new(4).with_heads(2, 2);
    let given = TargetAttentionTensors::new(&queries, &keys).with_values(&values).with_bias(&bias);
    let attention = longseq.target_attention(&op, batch, given)?;
    let vector = |length, seed| random(&[length], seed).tensor::<1>().to_device(device);
    let (unit_bias, out_bias) = (vector(4, 8), vector(1, 9));
    let hidden = [DinLayerTensors::new(&weight, &unit_bias, Activation::Relu)];
    let din = DinTensors::new(&queries, &keys, &hidden, &out_weight, &out_bias);
    let din = longseq.din(&Din::new(8), batch, din)?;
    let sdim = Sdim::new(8).with_groups(2, 2);
    let rotations = Given::new(sdim.rotations(3)?, &[8, 2, 2]).tensor::<3>().to_device(device);
    let interest = longseq.sdim_attend(&sdim, batch, SdimTensors::new(&queries, &keys, &rotations))?;
    let bags = longseq.jagged(&[0u32, 3, 7][..])?;
    let given = ints_of(vec![1, 6, 0, 2, 2, 5, 1], [7, 1], DType::I32).to_device(device);
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
    let flex = Device::flex();
    for (dtype, bound) in [(FloatDType::F32, 1e-5), (FloatDType::F16, 5e-3), (FloatDType::BF16, 4e-2)] {
        let x = inputs(dtype);
        let what = format!("{dtype:?}");
        let (got, exact) = (all(device, &on_device, &x, &flex)?, all(&cpu, &on_cpu, &x, &flex)?);
        assert_near(&what, &flat(&got), &flat(&exact), bound);
        let got = gradients(&x, |x| all(device, &on_device, x, &flex))?;
        let exact = gradients(&x, |x| all(&cpu, &on_cpu, x, &flex))?;
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

#[cfg(feature = "burn-wgpu")]
#[test]
fn on_the_wgpu_device_of_burn() -> Result<()> {
    let (device, setup) = match Device::wgpu_options().init_with_setup() {
        Ok(both) => both,
        Err(error) if is_required("LONGSEQ_TEST_BURN_WGPU") => panic!("{error:?}"),
        Err(error) => {
            eprintln!("skipped: {error:?}");
            return Ok(());
        }
    };
    let (cpu, longseq) = (Longseq::cpu(), Longseq::on_burn(&device, &setup)?);
    let (histories, targets) = (&[0u32, 3, 7][..], &[0u32, 2, 3][..]);
    let (on_cpu, on_device) = (cpu.batch(histories, targets)?, longseq.batch(histories, targets)?);
    let (x, flex) = (inputs(FloatDType::F32), Device::flex());
    // Twice: memory that burn gives back is used again.
    for _ in 0..2 {
        let got = crate::common::gradients_on(&device, &x, |x| {
            let out = all(&longseq, &on_device, x, &device)?;
            assert_near(
                "out",
                &flat(&out),
                &flat(&all(&cpu, &on_cpu, &inputs(FloatDType::F32), &flex)?),
                1e-5,
            );
            Ok(out)
        })?;
        let exact = gradients(&x, |x| all(&cpu, &on_cpu, x, &flex))?;
        for (index, (got, exact)) in got.iter().zip(&exact).enumerate() {
            assert_near(&format!("gradient {index}"), got, exact, 1e-5);
        }
    }
    let error = Longseq::on_burn(&flex, &setup).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("burn's wgpu backend")));
    longseq.backend().synchronize()
}
