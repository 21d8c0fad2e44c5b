//! Bad input: what is said about it.

use candle_core::{DType, Device, Result, Tensor};
use longseq::{Activation, Bags, Din, InterestChannels, Jagged, Lookup, TargetAttention, Tin};
use longseq_candle::{
    DinLayerTensors, DinTensors, InterestChannelsTensors, Longseq, LookupTensors, SparseTable, TableTensor,
    TargetAttentionTensors, TinTensors,
};

use crate::common::random;

/// Checks that a call fails with a message that has all of these parts.
#[track_caller]
fn assert_says<T>(result: Result<T>, parts: &[&str]) {
    let message = result.err().map(|error| error.to_string()).unwrap_or_default();
    for part in parts {
        assert!(message.contains(part), "{part} in: {message}");
    }
}

#[test]
fn tensors_of_another_type_or_shape() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 2][..])?;
    let op = TargetAttention::new(4);
    let (queries, keys) = (random(&[2, 4], 1)?, random(&[3, 4], 2)?);
    let attend = |queries: &Tensor, keys: &Tensor| {
        longseq.target_attention(&op, &batch, TargetAttentionTensors::new(queries, keys))
    };
    attend(&queries, &keys)?;
    let wide = queries.to_dtype(DType::F64)?;
    assert_says(attend(&wide, &keys), &["target_attention: queries", ".to_dtype(DType::F32)", "f64"]);
    let half = keys.to_dtype(DType::F16)?;
    assert_says(attend(&queries, &half), &["keys", "f32 like the other rows", "f16"]);
    let turned = random(&[4, 3], 2)?;
    assert_says(attend(&queries, &turned), &["keys", "[N, heads, width] = [3, 1, 4]", "[4, 3]"]);
    let bias = random(&[2], 3)?;
    let given = TargetAttentionTensors::new(&queries, &keys).with_bias(&bias);
    assert_says(longseq.target_attention(&op, &batch, given), &["bias", "[N, H] = [3, 1]", "[2]"]);
    let values = TargetAttention::new(4).with_value_width(3);
    let given = TargetAttentionTensors::new(&queries, &keys);
    assert_says(longseq.target_attention(&values, &batch, given), &["values of their own"]);
    assert_says(longseq.target_attention(&op.with_heads(3, 2), &batch, given), &["kv_heads", "divisor"]);
    let (positions, half) = (random(&[1, 4], 4)?, keys.to_dtype(DType::BF16)?);
    let given = TinTensors::new(&queries, &half, &positions);
    assert_says(longseq.tin(&Tin::new(4), &batch, given), &["tin: history", "bf16"]);
    let (weight, bias) = (random(&[1, 4], 5)?, random(&[1], 6)?);
    let given = DinTensors::new(&queries, &keys, &[], &weight, &bias);
    assert_says(longseq.din(&Din::new(4), &batch, given), &["0 hidden layers", "1 to 3"]);
    Ok(())
}

#[test]
fn interest_channels() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 2][..])?;
    let op = InterestChannels::new(4).with_channels(2);
    let history = random(&[3, 4], 1)?;
    let pool = |axes: &Tensor, history: &Tensor| {
        longseq.interest_channels(&op, &batch, InterestChannelsTensors::new(axes, history))
    };
    let axes = random(&[2, 2, 4], 2)?;
    pool(&axes, &history)?;
    let many = random(&[2, 3, 4], 2)?;
    assert_says(pool(&many, &history), &["interest_channels: axes", "[M, c, d] = [2, 2, 4]", "[2, 3, 4]"]);
    assert_says(pool(&axes, &history.to_dtype(DType::F16)?), &["history", "f32 like the other rows", "f16"]);
    let alike = axes.narrow(1, 0, 1)?.repeat((1, 2, 1))?;
    assert_says(pool(&alike, &history), &["axes", "depend on each other", "axis 1 of candidate 0"]);
    Ok(())
}

#[test]
fn statistics_of_a_layer_that_there_is_not() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 2][..])?;
    let (targets, history) = (random(&[2, 4], 1)?, random(&[3, 4], 2)?);
    let (weight, bias) = (random(&[5, 16], 3)?, random(&[5], 4)?);
    let hidden = [DinLayerTensors::new(&weight, &bias, Activation::Relu)];
    let (out_weight, out_bias) = (random(&[1, 5], 5)?, random(&[1], 6)?);
    let given = DinTensors::new(&targets, &history, &hidden, &out_weight, &out_bias);
    longseq.din_statistics(&Din::new(4), &batch, given, 0)?;
    assert_says(longseq.din_statistics(&Din::new(4), &batch, given, 1), &["din_statistics", "layer", "1"]);
    Ok(())
}

#[test]
fn offsets() -> Result<()> {
    let longseq = Longseq::cpu();
    let good = Tensor::new(&[0u32, 2], &Device::Cpu)?;
    let batch = |offsets: &Tensor| longseq.batch(offsets, &good);
    batch(&Tensor::new(&[0i64, 2], &Device::Cpu)?)?;
    assert_says(batch(&Tensor::new(&[0f32, 2.0], &Device::Cpu)?), &["offsets", "integers", "f32"]);
    assert_says(batch(&Tensor::new(&[[0u32, 2]], &Device::Cpu)?), &["offsets", "[users + 1]", "[1, 2]"]);
    assert_says(batch(&Tensor::new(&[0i64, -2], &Device::Cpu)?), &["offsets[1]", "-2"]);
    assert_says(batch(&Tensor::new(&[1u32, 2], &Device::Cpu)?), &["offsets[0] = 0"]);
    assert_says(batch(&Tensor::new(&[0u32, 1, 2], &Device::Cpu)?), &["2 users", "1 users"]);
    Ok(())
}

/// Slots name tables that are written in place.
#[test]
fn ranges_with_slots() -> Result<()> {
    let rows = Jagged::from_lengths(&[2, 1]).and_then(|rows| rows.with_slots(&[1, 0], 2)).expect("two slots");
    assert_says(Longseq::cpu().jagged(&rows), &["jagged: rows", "without slots"]);
    Ok(())
}

#[test]
fn a_batch_of_another_handle() -> Result<()> {
    let (longseq, other) = (Longseq::cpu(), Longseq::cpu());
    let batch = other.batch(&[0_u32, 3][..], &[0_u32, 2][..])?;
    let (queries, keys) = (random(&[2, 4], 1)?, random(&[3, 4], 2)?);
    let given = TargetAttentionTensors::new(&queries, &keys);
    let op = TargetAttention::new(4);
    assert_says(longseq.target_attention(&op, &batch, given), &["batch", "another handle"]);
    other.clone().target_attention(&op, &batch, given)?;
    Ok(())
}

#[test]
fn ids() -> Result<()> {
    let longseq = Longseq::cpu();
    let table = random(&[5, 2], 1)?;
    let tables = [TableTensor::from(&table)];
    let look_up =
        |ids: Tensor| longseq.lookup(&Lookup::default(), Bags::Each, LookupTensors::new(&ids, &tables));
    assert_eq!(look_up(Tensor::new(&[4i64, 0], &Device::Cpu)?)?.dims(), [2, 2]);
    assert_says(look_up(Tensor::new(&[4u32, 5], &Device::Cpu)?), &["ids[1] is 5", "below 5"]);
    assert_says(look_up(Tensor::new(&[-1i64, 0], &Device::Cpu)?), &["ids[0] is 4294967295"]);
    assert_says(
        look_up(Tensor::new(&[1i64 << 32], &Device::Cpu)?),
        &["below 2^32", "4294967296 at position 0"],
    );
    assert_says(look_up(Tensor::new(&[1f32], &Device::Cpu)?), &["ids", "integers", "f32"]);
    assert_says(SparseTable::new(&random(&[4], 1)?), &["[rows, width]", "[4]"]);
    Ok(())
}
