//! Bad input: what is said about it.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor};
use longseq::{Bags, Din, Jagged, Lookup, Result, TargetAttention, Tin};
use longseq_burn::{DinTensors, Longseq, LookupTensors, TargetAttentionTensors, TinTensors};

use crate::common::{ints, ints_of, random};

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
    let (queries, keys) = (random(&[2, 4], 1).tensor::<2>(), random(&[3, 4], 2).tensor::<2>());
    let attend = |queries: &Tensor<2>, keys: &Tensor<2>| {
        longseq.target_attention(&op, &batch, TargetAttentionTensors::new(queries, keys))
    };
    attend(&queries, &keys)?;
    let wide = queries.clone().cast(FloatDType::F64);
    assert_says(attend(&wide, &keys), &["target_attention: queries", ".cast(FloatDType::F32)", "f64"]);
    let half = keys.clone().cast(FloatDType::F16);
    assert_says(attend(&queries, &half), &["keys", "f32 like the other rows", "f16"]);
    let turned = random(&[4, 3], 2).tensor();
    assert_says(attend(&queries, &turned), &["keys", "[N, heads, width] = [3, 1, 4]", "[4, 3]"]);
    let bias = random(&[2, 1], 3).tensor();
    let given = TargetAttentionTensors::new(&queries, &keys).with_bias(&bias);
    assert_says(longseq.target_attention(&op, &batch, given), &["bias", "[N, H] = [3, 1]", "[2, 1]"]);
    let values = TargetAttention::new(4).with_value_width(3);
    let given = TargetAttentionTensors::new(&queries, &keys);
    assert_says(longseq.target_attention(&values, &batch, given), &["values of their own"]);
    assert_says(longseq.target_attention(&op.with_heads(3, 2), &batch, given), &["kv_heads", "divisor"]);
    let (positions, half) = (random(&[1, 4], 4).tensor(), keys.clone().cast(FloatDType::BF16));
    let given = TinTensors::new(&queries, &half, &positions);
    assert_says(longseq.tin(&Tin::new(4), &batch, given), &["tin: history", "bf16"]);
    let (weight, bias) = (random(&[1, 4], 5).tensor(), random(&[1], 6).tensor());
    let given = DinTensors::new(&queries, &keys, &[], &weight, &bias);
    assert_says(longseq.din(&Din::new(4), &batch, given), &["0 hidden layers", "1 to 3"]);
    Ok(())
}

#[test]
fn offsets() -> Result<()> {
    let longseq = Longseq::cpu();
    let good = ints(vec![0, 2], [2]);
    let batch = |offsets: Tensor<1, Int>| longseq.batch(&offsets, &good);
    batch(ints_of(vec![0, 2], [2], DType::U8))?;
    batch(ints_of(vec![0, 2], [2], DType::U64))?;
    assert_says(batch(ints(vec![0, -2], [2])), &["offsets[1]", "-2"]);
    assert_says(batch(ints(vec![1, 2], [2])), &["offsets[0] = 0"]);
    assert_says(batch(ints(vec![0, 1, 2], [3])), &["2 users", "1 users"]);
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
    let (queries, keys) = (random(&[2, 4], 1).tensor::<2>(), random(&[3, 4], 2).tensor());
    let given = TargetAttentionTensors::new(&queries, &keys);
    let op = TargetAttention::new(4);
    assert_says(longseq.target_attention(&op, &batch, given), &["batch", "another handle"]);
    other.clone().target_attention(&op, &batch, given)?;
    Ok(())
}

#[test]
fn ids() -> Result<()> {
    let longseq = Longseq::cpu();
    let table = random(&[5, 2], 1).tensor();
    let look_up = |ids: Tensor<2, Int>| {
        longseq.lookup(&Lookup::default(), Bags::Each, LookupTensors::new(&ids, &[&table]))
    };
    assert_eq!(look_up(ints(vec![4, 0], [2, 1]))?.dims(), [2, 2]);
    assert_says(look_up(ints_of(vec![4, 5], [2, 1], DType::U32)), &["ids[1] is 5", "below 5"]);
    assert_says(look_up(ints(vec![-1, 0], [2, 1])), &["ids[0] is 4294967295"]);
    assert_says(
        look_up(ints_of(vec![1 << 32], [1, 1], DType::I64)),
        &["below 2^32", "4294967296 at position 0"],
    );
    assert_says(look_up(ints(vec![1, 2], [1, 2])), &["ids", "[N, F] = [1, 1]", "[1, 2]"]);
    Ok(())
}

#[test]
fn two_strategies_of_checkpointing() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 2][..])?;
    let on = |x: Tensor<2>, device: Device| Tensor::<2>::from_data(x.to_data(), &device).require_grad();
    let queries = on(random(&[2, 4], 1).tensor(), Device::flex().autodiff());
    let keys = on(random(&[3, 4], 2).tensor(), Device::flex().autodiff().gradient_checkpointing());
    let given = TargetAttentionTensors::new(&queries, &keys);
    let result = longseq.target_attention(&TargetAttention::new(4), &batch, given);
    assert_says(result, &["one strategy of gradient checkpointing"]);
    Ok(())
}

#[test]
fn a_graph_that_was_used_is_refused_by_burn() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 2][..])?;
    let (queries, keys) = (random(&[2, 4], 1).tensor::<2>(), random(&[3, 4], 2).tensor::<2>());
    let keys = Tensor::<2>::from_data(keys.to_data(), &Device::flex().autodiff()).require_grad();
    let given = TargetAttentionTensors::new(&queries, &keys);
    let loss = longseq.target_attention(&TargetAttention::new(4), &batch, given)?.sum();
    assert!(keys.grad(&loss.backward()).is_some());
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loss.backward()));
    assert!(again.is_err(), "burn has consumed the steps");
    Ok(())
}
