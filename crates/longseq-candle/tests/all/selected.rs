//! Searches, attention over a selection, histograms.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::softmax;
use longseq::{Search, SelectedAttention, Signs, SimilarityHistogram};
use longseq_candle::{Longseq, SearchTensor, SelectedAttentionTensors, SelectionTensors};

use crate::attention::batch;
use crate::common::{assert_near, check_gradients, flat, random};
use crate::eager::Users;

const TOP_K: usize = 3;

/// The positions that each candidate keeps.
pub(crate) fn positions(kept: &SelectionTensors) -> Result<Vec<Vec<u32>>> {
    let counts = kept.counts.to_vec1::<u32>()?;
    let rows = kept.positions.to_vec2::<u32>()?;
    Ok(rows.into_iter().zip(counts).map(|(row, count)| row[..count as usize].to_vec()).collect())
}

/// Attention over kept behaviours with similarities, one candidate after the other.
pub(crate) fn eager(
    op: &SelectedAttention,
    users: &Users,
    kept: &[Vec<u32>],
    x: &[Tensor],
) -> Result<Tensor> {
    let [queries, keys, values, bias, gammas, similarities] = x else { candle_core::bail!("six inputs") };
    let mut rows = Vec::new();
    for [n, _, m, count] in users.each() {
        for (candidate, positions) in kept.iter().enumerate().skip(m).take(count) {
            if positions.is_empty() {
                rows.push(Tensor::zeros((1, op.heads, op.value_width), queries.dtype(), &Device::Cpu)?);
                continue;
            }
            let at: Vec<u32> = positions.iter().map(|&position| position + n as u32).collect();
            let at = Tensor::from_vec(at, positions.len(), &Device::Cpu)?;
            let r = similarities.narrow(0, candidate, 1)?.narrow(1, 0, positions.len())?;
            let mut heads = Vec::new();
            for h in 0..op.heads {
                let side = |rows: &Tensor, head| {
                    rows.index_select(&at, 0)?.narrow(1, head, 1)?.squeeze(1)?.contiguous()
                };
                let (k, v) = (side(keys, op.kv_head(h))?, side(values, op.kv_head(h))?);
                let q = queries.narrow(0, candidate, 1)?.narrow(1, h, 1)?.squeeze(1)?.contiguous()?;
                let bias = bias.index_select(&at, 0)?.narrow(1, h, 1)?.t()?;
                let s = (q.matmul(&k.t()?)? * f64::from(op.effective_scale()))?.add(&bias)?;
                let gamma = |index| gammas.narrow(0, h, 1)?.narrow(1, index, 1);
                let alpha = s.broadcast_mul(&gamma(0)?)?.add(&r.broadcast_mul(&gamma(1)?)?)?;
                let alpha = alpha.add(&s.mul(&r)?.broadcast_mul(&gamma(2)?)?)?;
                heads.push(softmax(&alpha, D::Minus1)?.matmul(&v)?);
            }
            rows.push(Tensor::stack(&heads, 1)?);
        }
    }
    Tensor::cat(&rows, 0)
}

#[test]
fn similarity_aware_attention() -> Result<()> {
    let users = Users::new(&[5, 0, 2], &[2, 1, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = SelectedAttention::new(4).with_heads(2, 1).with_value_width(3).with_top_k(TOP_K);
    let (content, of_targets) = (random(&[7, 4], 20)?, random(&[4, 4], 21)?);
    let (queries, keys) = (SearchTensor::Rows(&of_targets), SearchTensor::Rows(&content));
    let kept = longseq.search(&Search::cosine(4).with_top_k(TOP_K), &batch, queries, keys, None)?;
    let positions = positions(&kept)?;
    assert_eq!(positions.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 0, 2]);
    // Empty slots have no similarity; finite numbers there have no gradient.
    let similarities = kept.scores.maximum(-1.0)?;
    let x = [
        random(&[4, 2, 4], 1)?,
        random(&[7, 1, 4], 2)?,
        random(&[7, 1, 3], 3)?,
        random(&[7, 2], 4)?,
        random(&[2, 3], 5)?,
        similarities,
    ];
    check_gradients(
        "selected",
        &x,
        |x| {
            let kept = SelectionTensors::new(kept.positions.clone(), x[5].clone(), kept.counts.clone());
            let given = SelectedAttentionTensors::new(&x[0], &x[1], &kept).with_values(&x[2]);
            longseq.selected_attention(&op, &batch, given.with_bias(&x[3]).with_gammas(&x[4]))
        },
        |x| eager(&op, &users, &positions, x),
    )
}

#[test]
fn searches() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &Users::new(&[4], &[1]))?;
    let history = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [3.0, 3.0], [-1.0, 0.5]], &Device::Cpu)?;
    let candidate = Tensor::new(&[[2f32, 1.0]], &Device::Cpu)?;
    type Kept = (Vec<u32>, Vec<f32>);
    let kept = |op: Search,
                queries: SearchTensor<'_>,
                keys: SearchTensor<'_>,
                bias: Option<&Tensor>|
     -> Result<Kept> {
        let kept = longseq.search(&op.with_top_k(2), &batch, queries, keys, bias)?;
        assert!(!kept.scores.track_op());
        Ok((kept.positions.flatten_all()?.to_vec1()?, kept.scores.flatten_all()?.to_vec1()?))
    };
    let (queries, keys) = (SearchTensor::Rows(&candidate), SearchTensor::Rows(&history));
    assert_eq!(kept(Search::dot(2), queries, keys, None)?, (vec![2, 0], vec![9.0, 2.0]));
    let bias = Tensor::new(&[0f32, 0.0, -9.0, 4.0], &Device::Cpu)?;
    assert_eq!(kept(Search::dot(2), queries, keys, Some(&bias))?, (vec![3, 0], vec![2.5, 2.0]));
    for dtype in [DType::F16, DType::BF16] {
        let (candidate, history) = (candidate.to_dtype(dtype)?, history.to_dtype(dtype)?);
        let (queries, keys) = (SearchTensor::Rows(&candidate), SearchTensor::Rows(&history));
        assert_eq!(kept(Search::dot(2), queries, keys, None)?, (vec![2, 0], vec![9.0, 2.0]));
    }
    // -2 as the bits of an 8-bit integer.
    let codes = Tensor::new(&[[1u8, 0], [254, 1], [3, 3], [5, 0]], &Device::Cpu)?;
    let candidate = Tensor::new(&[[254u8, 0]], &Device::Cpu)?;
    let (queries, keys) = (SearchTensor::Codes(&candidate), SearchTensor::Codes(&codes));
    assert_eq!(kept(Search::dot(2), queries, keys, None)?, (vec![1, 0], vec![4.0, -2.0]));
    let (candidate, history) =
        (Tensor::new(&[7i64], &Device::Cpu)?, Tensor::new(&[7i64, 8, 7, 7], &Device::Cpu)?);
    let (queries, keys) = (SearchTensor::Keys(&candidate), SearchTensor::Keys(&history));
    assert_eq!(kept(Search::matching(), queries, keys, None)?.0, [3, 2]);
    // Packed signs of axes: the bits are the signs of the numbers.
    let op = Signs::new(2, 2);
    let axes = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu)?;
    let rows = Tensor::new(&[[5f32, -1.0], [5.0, 1.0], [-5.0, 1.0], [1.0, 2.0]], &Device::Cpu)?;
    let signs = longseq.pack_signs(&op, &rows, &axes)?;
    assert_eq!(signs.to_vec2::<u32>()?, [[1], [3], [2], [3]]);
    let candidate = signs.narrow(0, 1, 1)?;
    let (queries, keys) = (SearchTensor::Signs(&candidate), SearchTensor::Signs(&signs));
    assert_eq!(kept(Search::hamming(2), queries, keys, None)?, (vec![1, 3], vec![2.0, 2.0]));
    Ok(())
}

#[test]
fn histograms() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &Users::new(&[3], &[1]))?;
    let op = SimilarityHistogram::new(2).with_top_k(2);
    let kept = SelectionTensors::new(
        Tensor::new(&[[0u32, 2]], &Device::Cpu)?,
        Tensor::new(&[[0.9f32, -0.3]], &Device::Cpu)?,
        Tensor::new(&[2u32], &Device::Cpu)?,
    );
    let bins = |similarities: &[f32]| {
        let mut bins = vec![0.0; op.bins()];
        similarities.iter().filter_map(|&similarity| op.bin(similarity)).for_each(|bin| bins[bin] += 1.0);
        bins
    };
    assert_near("kept", &flat(&longseq.similarity_histogram(&op, &batch, &kept)?)?, &bins(&[0.9, -0.3]), 0.0);
    let history = Tensor::new(&[[9f32, 0.0], [1.0, 0.0], [-3.0, 4.0]], &Device::Cpu)?;
    let candidate = Tensor::new(&[[1f32, 0.0]], &Device::Cpu)?;
    let (queries, keys) = (SearchTensor::Rows(&candidate), SearchTensor::Rows(&history));
    let newest = longseq.newest_histogram(&op, &Search::cosine(2), &batch, queries, keys)?;
    assert_near("newest", &flat(&newest)?, &bins(&[1.0, -0.6]), 0.0);
    Ok(())
}
