//! Searches, attention over a selection, histograms.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, FloatDType, Tensor};
use longseq::{Result, Search, SelectedAttention, Signs, SimilarityHistogram};
use longseq_burn::{Longseq, SearchTensor, SelectedAttentionTensors, SelectionTensors};

use crate::attention::batch;
use crate::common::{Given, assert_near, check_gradients, flat, flat_ints, ints, ints_of, random, row};
use crate::eager::Users;

const TOP_K: usize = 3;

/// The positions that each candidate keeps.
pub(crate) fn positions(kept: &SelectionTensors) -> Vec<Vec<u32>> {
    let [_, slots] = kept.positions.dims();
    let (rows, counts) = (flat_ints(&kept.positions), flat_ints(&kept.counts));
    rows.chunks(slots).zip(counts).map(|(row, count)| row[..count as usize].to_vec()).collect()
}

fn rows_of<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Given::new(values.to_vec(), &shape).tensor()
}

/// Attention over kept behaviours with similarities, one candidate after the other.
fn eager(op: &SelectedAttention, users: &Users, kept: &[Vec<u32>], x: &[Given]) -> Result<Tensor<1>> {
    let (queries, keys, values) = (x[0].tensor::<3>(), x[1].tensor::<3>(), x[2].tensor::<3>());
    let [bias, gammas, similarities] = [3, 4, 5].map(|index: usize| x[index].tensor::<2>());
    let mut rows = Vec::new();
    for [n, _, m, count] in users.each() {
        for candidate in m..m + count {
            let positions = &kept[candidate];
            if positions.is_empty() {
                let shape = [1, op.heads, op.value_width];
                rows.push(Tensor::<3>::zeros(shape, (&queries.device(), queries.dtype())));
                continue;
            }
            let at = positions.iter().map(|&position| i64::from(position) + n as i64).collect();
            let at = ints(at, [positions.len()]);
            let r = similarities.clone().narrow(0, candidate, 1).narrow(1, 0, positions.len());
            let mut heads = Vec::new();
            for h in 0..op.heads {
                let side = |rows: &Tensor<3>, head| -> Tensor<2> {
                    rows.clone().select(0, at.clone()).narrow(1, head, 1).squeeze_dim(1)
                };
                let (k, v) = (side(&keys, op.kv_head(h)), side(&values, op.kv_head(h)));
                let q: Tensor<2> = queries.clone().narrow(0, candidate, 1).narrow(1, h, 1).squeeze_dim(1);
                let bias = bias.clone().select(0, at.clone()).narrow(1, h, 1).transpose();
                let s = q.matmul(k.transpose()) * f64::from(op.effective_scale()) + bias;
                let gamma = |index| gammas.clone().narrow(0, h, 1).narrow(1, index, 1);
                let alpha = s.clone() * gamma(0) + r.clone() * gamma(1) + s * r.clone() * gamma(2);
                heads.push(softmax(alpha, 1).matmul(v));
            }
            rows.push(Tensor::stack(heads, 1));
        }
    }
    Ok(row(Tensor::cat(rows, 0)))
}

#[test]
fn similarity_aware_attention() -> Result<()> {
    let users = Users::new(&[5, 0, 2], &[2, 1, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = SelectedAttention::new(4).with_heads(2, 1).with_value_width(3).with_top_k(TOP_K);
    let (content, of_targets) = (random(&[7, 4], 20).tensor(), random(&[4, 4], 21).tensor());
    let (queries, keys) = (SearchTensor::Rows(&of_targets), SearchTensor::Rows(&content));
    let kept = longseq.search(&Search::cosine(4).with_top_k(TOP_K), &batch, queries, keys, None)?;
    let positions = positions(&kept);
    assert_eq!(positions.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 0, 2]);
    // Empty slots have no similarity; finite numbers there have no gradient.
    let similarities = kept.scores.clone().clamp_min(-1.0).to_data().iter().collect();
    let x = [
        random(&[4, 2, 4], 1),
        random(&[7, 1, 4], 2),
        random(&[7, 1, 3], 3),
        random(&[7, 2], 4),
        random(&[2, 3], 5),
        Given::new(similarities, &[4, TOP_K]),
    ];
    check_gradients(
        "selected",
        &x,
        |x| {
            let (queries, keys, values) = (x[0].tensor::<3>(), x[1].tensor(), x[2].tensor());
            let [bias, gammas, scores] = [3, 4, 5].map(|index: usize| x[index].tensor::<2>());
            let kept = SelectionTensors::new(kept.positions.clone(), scores, kept.counts.clone());
            let given = SelectedAttentionTensors::new(&queries, &keys, &kept).with_values(&values);
            let given = given.with_bias(&bias).with_gammas(&gammas);
            Ok(row(longseq.selected_attention(&op, &batch, given)?))
        },
        |x| eager(&op, &users, &positions, x),
    )
}

#[test]
fn searches() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &Users::new(&[4], &[1]))?;
    let history = rows_of(&[1.0, 0.0, 0.0, 1.0, 3.0, 3.0, -1.0, 0.5], [4, 2]);
    let candidate = rows_of(&[2.0, 1.0], [1, 2]);
    type Kept = (Vec<u32>, Vec<f64>);
    let kept = |op: Search,
                queries: SearchTensor<'_>,
                keys: SearchTensor<'_>,
                bias: Option<&Tensor<1>>|
     -> Result<Kept> {
        let kept = longseq.search(&op.with_top_k(2), &batch, queries, keys, bias)?;
        assert!(!kept.scores.is_tracked());
        Ok((flat_ints(&kept.positions), flat(&kept.scores)))
    };
    let (queries, keys) = (SearchTensor::Rows(&candidate), SearchTensor::Rows(&history));
    assert_eq!(kept(Search::dot(2), queries, keys, None)?, (vec![2, 0], vec![9.0, 2.0]));
    let bias = rows_of(&[0.0, 0.0, -9.0, 4.0], [4]);
    assert_eq!(kept(Search::dot(2), queries, keys, Some(&bias))?, (vec![3, 0], vec![2.5, 2.0]));
    for dtype in [FloatDType::F16, FloatDType::BF16] {
        let (candidate, history) = (candidate.clone().cast(dtype), history.clone().cast(dtype));
        let (queries, keys) = (SearchTensor::Rows(&candidate), SearchTensor::Rows(&history));
        assert_eq!(kept(Search::dot(2), queries, keys, None)?, (vec![2, 0], vec![9.0, 2.0]));
    }
    let codes = ints_of(vec![1, 0, -2, 1, 3, 3, 5, 0], [4, 2], DType::I8);
    let candidate = ints_of(vec![-2, 0], [1, 2], DType::I8);
    let (queries, keys) = (SearchTensor::Codes(&candidate), SearchTensor::Codes(&codes));
    assert_eq!(kept(Search::dot(2), queries, keys, None)?, (vec![1, 0], vec![4.0, -2.0]));
    let (candidate, history) = (ints(vec![7], [1]), ints(vec![7, 8, 7, 7], [4]));
    let (queries, keys) = (SearchTensor::Keys(&candidate), SearchTensor::Keys(&history));
    assert_eq!(kept(Search::matching(), queries, keys, None)?.0, [3, 2]);
    // Packed signs of axes: the bits are the signs of the numbers.
    let op = Signs::new(2, 2);
    let axes = rows_of(&[1.0, 0.0, 0.0, 1.0], [2, 2]);
    let rows = rows_of(&[5.0, -1.0, 5.0, 1.0, -5.0, 1.0, 1.0, 2.0], [4, 2]);
    let signs = longseq.pack_signs(&op, &rows, &axes)?;
    assert_eq!(flat_ints(&signs), [1, 3, 2, 3]);
    let candidate = signs.clone().narrow(0, 1, 1);
    let (queries, keys) = (SearchTensor::Signs(&candidate), SearchTensor::Signs(&signs));
    assert_eq!(kept(Search::hamming(2), queries, keys, None)?, (vec![1, 3], vec![2.0, 2.0]));
    Ok(())
}

#[test]
fn histograms() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &Users::new(&[3], &[1]))?;
    let op = SimilarityHistogram::new(2).with_top_k(2);
    let kept =
        SelectionTensors::new(ints(vec![0, 2], [1, 2]), rows_of(&[0.9, -0.3], [1, 2]), ints(vec![2], [1]));
    let bins = |similarities: &[f32]| {
        let mut bins = vec![0.0; op.bins()];
        similarities.iter().filter_map(|&similarity| op.bin(similarity)).for_each(|bin| bins[bin] += 1.0);
        bins
    };
    assert_near("kept", &flat(&longseq.similarity_histogram(&op, &batch, &kept)?), &bins(&[0.9, -0.3]), 0.0);
    let history = rows_of(&[9.0, 0.0, 1.0, 0.0, -3.0, 4.0], [3, 2]);
    let candidate = rows_of(&[1.0, 0.0], [1, 2]);
    let (queries, keys) = (SearchTensor::Rows(&candidate), SearchTensor::Rows(&history));
    let newest = longseq.newest_histogram(&op, &Search::cosine(2), &batch, queries, keys)?;
    assert_near("newest", &flat(&newest), &bins(&[1.0, -0.6]), 0.0);
    Ok(())
}
