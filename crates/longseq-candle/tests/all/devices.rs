//! Tensors of candle's CPU on longseq's GPU backends: software Vulkan and the CUDA emulator, where there is no GPU.

use candle_core::{DType, Result, Tensor, Var};
use longseq::{Bags, Din, Lookup, Sdim, TargetAttention};
use longseq_candle::{
    DinLayerTensors, DinTensors, Longseq, LookupTensors, Place, SdimTensors, SparseTable, TableTensor,
    TargetAttentionTensors,
};

use crate::common::{assert_near, flat, ids, loss, random};

/// The results and gradients of some operations.
fn results<B: Place>(longseq: &Longseq<B>, dtype: DType) -> Result<Vec<Vec<f64>>> {
    let batch = longseq.batch(&[0u32, 3, 7][..], &[0u32, 2, 3][..])?;
    let shapes: [&[usize]; 5] = [&[3, 8], &[7, 8], &[7, 8], &[4, 32], &[1, 4]];
    let vars: Vec<Var> = shapes
        .iter()
        .zip(1..)
        .map(|(shape, seed)| Var::from_tensor(&random(shape, seed)?.to_dtype(dtype)?))
        .collect::<Result<_>>()?;
    let (bias, unit_bias, out_bias) = (random(&[7, 2], 7)?, random(&[4], 8)?, random(&[1], 9)?);
    let bias = Var::from_tensor(&bias)?;
    let [queries, keys, values, weight, out_weight] = &vars[..] else { candle_core::bail!("five") };

    let op = TargetAttention::new(4).with_heads(2, 2);
    let given = TargetAttentionTensors::new(queries, keys).with_values(values).with_bias(&bias);
    let attention = longseq.target_attention(&op, &batch, given)?;
    let hidden = [DinLayerTensors::new(weight, &unit_bias, longseq::Activation::Relu)];
    let din =
        longseq.din(&Din::new(8), &batch, DinTensors::new(queries, keys, &hidden, out_weight, &out_bias))?;
    let sdim = Sdim::new(8).with_groups(2, 2);
    let rotations = sdim.rotations(3).map_err(candle_core::Error::wrap)?;
    let rotations = Tensor::from_vec(rotations, (8, 2, 2), &candle_core::Device::Cpu)?;
    let interest = longseq.sdim_attend(&sdim, &batch, SdimTensors::new(queries, keys, &rotations))?;
    let table = SparseTable::new(&random(&[5, 4], 10)?.to_dtype(dtype)?)?;
    let (tables, bags) = ([TableTensor::from(&table)], longseq.jagged(&[0u32, 3, 7][..])?);
    let given = ids(&[7], 5, 11)?;
    let rows = longseq.lookup(&Lookup::default(), Bags::Mean(&bags), LookupTensors::new(&given, &tables))?;

    let mut results = Vec::new();
    let outs = [attention, din, interest, rows];
    for out in &outs {
        results.push(flat(out)?);
        let grads = loss(&out.to_dtype(DType::F32)?)?.backward()?;
        for var in vars.iter().chain([&bias]) {
            results.extend(grads.get(var).map(flat).transpose()?);
        }
    }
    let gradient = table.gradient()?.expect("a gradient");
    results.push(gradient.rows.iter().map(|&x| x.into()).collect());
    Ok(results)
}

fn compare<B: Place>(device: &Longseq<B>) -> Result<()> {
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::F16, 5e-3), (DType::BF16, 4e-2)] {
        let (got, exact) = (results(device, dtype)?, results(&Longseq::cpu(), dtype)?);
        assert_eq!(got.len(), exact.len());
        assert!(exact.len() > 10);
        for (index, (got, exact)) in got.iter().zip(&exact).enumerate() {
            assert_near(&format!("{dtype:?}: result {index}"), got, exact, bound);
        }
    }
    Ok(())
}

/// Whether a missing device is an error.
fn is_required(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value != "off")
}

/// Runs a test on wgpu, where there is an adapter.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu(test: impl FnOnce(Longseq<longseq::Wgpu>) -> Result<()>) -> Result<()> {
    match longseq::Wgpu::new() {
        Ok(backend) => test(Longseq::on(backend)),
        Err(error) if is_required("LONGSEQ_TEST_WGPU") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            Ok(())
        }
    }
}

/// Runs a test on CUDA, where there is a device.
#[cfg(feature = "cuda")]
pub(crate) fn cuda(test: impl FnOnce(Longseq<longseq::Cuda>) -> Result<()>) -> Result<()> {
    match longseq::Cuda::new(0) {
        Ok(backend) => test(Longseq::on(backend)),
        Err(error) if is_required("LONGSEQ_TEST_CUDA") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            Ok(())
        }
    }
}

#[cfg(feature = "wgpu")]
#[test]
fn on_wgpu() -> Result<()> {
    wgpu(|longseq| compare(&longseq))
}

#[cfg(feature = "cuda")]
#[test]
fn on_cuda() -> Result<()> {
    cuda(|longseq| compare(&longseq))
}
