//! TWIN: two stages with one score.

use candle_core::{Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder, linear_no_bias};
use longseq::{Search, SelectedAttention};

use super::sides;
use crate::error::wrong;
use crate::handle::{Batch, Longseq};
use crate::place::Place;
use crate::search::SearchTensor;
use crate::selected::SelectedAttentionTensors;
use crate::tensors::Argument;

const NAME: &str = "TwinLayer";

/// TWIN: every head keeps the `K` behaviours that it scores best, and attends to those with the same scores.
///
/// With candidates `t`, inherent features `s` of behaviours, and their cross features `x_j`, which depend on user and behaviour alone (such as how often the
/// user has clicked the item), for head `h`:
///
/// ```text
/// score_h[m,l] = ⟨W_Q,h·t_m, W_K,h·s_l⟩/√d + Σ_j β_h,j·⟨w_h,j, x_l,j⟩
/// top_h[m]     = the K behaviours of highest score
/// head_h[m]    = Σ_{l in top_h} softmax(score_h)_l · W_V,h·[s_l ; x_l]
/// out          = W_O·[head_1 ; … ; head_H]
/// ```
///
/// Weights, without biases: `query.weight` `[H·d, width]`, `key.weight` `[H_kv·d, width]`, `value.weight` `[H_kv·d_v, width + J·w]`,
/// `output.weight` `[width, H·d_v]`, and with cross features `cross.weight` `[H, J, w]` and `cross.beta` `[H, J]`. All of them get gradients, as do
/// candidates, behaviours and cross features, through the scores of the second stage; the choice has none.
///
/// Projected keys depend on the item alone and cross features give a number for each behaviour, so that serving keeps both: [`Longseq::search`] takes
/// them as keys and bias.
///
/// Source: Chang et al., "TWIN: TWo-stage Interest Network for Lifelong User Behavior Modeling in CTR Prediction at Kuaishou", KDD 2023, arXiv 2302.02352,
/// §4.2 and §4.3 (eq. 5, the score of both stages; eq. 6, the heads). Each head searches by itself, as FuxiCTR's code does, which this is compared with,
/// without cross features: with them that code mixes up the axes of length and features.
pub struct TwinLayer {
    op: SelectedAttention,
    width: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    cross: Option<Cross>,
}

/// The cross features of a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossFeatures {
    /// `J`: how many.
    pub features: usize,
    /// `w`: the width of each one's embedding.
    pub width: usize,
}

struct Cross {
    shape: CrossFeatures,
    /// `[H, J, w]`.
    weight: Tensor,
    /// `[H, J]`.
    beta: Tensor,
}

impl TwinLayer {
    /// A layer over rows of `width` numbers; heads, their widths, scale and the number of behaviours to keep are those of `op`.
    ///
    /// # Errors
    /// Those of candle, such as a weight that the builder has not.
    pub fn new(
        width: usize,
        op: SelectedAttention,
        cross: Option<CrossFeatures>,
        builder: VarBuilder<'_>,
    ) -> Result<Self> {
        let (of_keys, of_values) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let cross_width = cross.map_or(0, |cross| cross.features * cross.width);
        let weights = |shape: CrossFeatures| {
            let builder = builder.pp("cross");
            let (heads, bound) = (op.heads, 1.0 / (shape.width as f64).sqrt());
            let uniform = Init::Uniform { lo: -bound, up: bound };
            let weight = builder.get_with_hints((heads, shape.features, shape.width), "weight", uniform)?;
            let beta = builder.get_with_hints((heads, shape.features), "beta", Init::Const(1.0))?;
            Ok::<_, candle_core::Error>(Cross { shape, weight, beta })
        };
        Ok(Self {
            op,
            width,
            query: linear_no_bias(width, op.heads * op.width, builder.pp("query"))?,
            key: linear_no_bias(width, of_keys, builder.pp("key"))?,
            value: linear_no_bias(width + cross_width, of_values, builder.pp("value"))?,
            output: linear_no_bias(op.heads * op.value_width, width, builder.pp("output"))?,
            cross: cross.map(weights).transpose()?,
        })
    }

    /// The interest of each candidate's user in it, `[M, width]`, from candidates `[M, width]`, behaviours `[N, width]` and, where the layer has them, cross
    /// features `[N, J, w]` or `[N, J·w]`.
    ///
    /// # Errors
    /// Inputs of another shape or type; cross features where the layer has none, or none where it has some; those of [`Longseq::search`] and
    /// [`Longseq::selected_attention`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
        cross: Option<&Tensor>,
    ) -> Result<Tensor> {
        let dtype = self.query.weight().dtype();
        let [targets, history] = sides(NAME, batch, (self.width, dtype), targets, history)?;
        let cross = self.checked(&history, cross)?;
        let biases = cross.as_ref().map(|cross| self.biases(cross)).transpose()?;
        let (queries, keys) = (self.query.forward(&targets)?, self.key.forward(&history)?);
        let values = match &cross {
            Some(cross) => self.value.forward(&Tensor::cat(&[&history, cross], 1)?)?,
            None => self.value.forward(&history)?,
        };
        let (op, scale) = (&self.op, self.op.effective_scale());
        let search = Search::dot(op.width).with_scale(scale).with_top_k(op.top_k);
        let one = SelectedAttention::new(op.width).with_value_width(op.value_width);
        let one = one.with_scale(scale).with_top_k(op.top_k);
        let mut pooled = Vec::with_capacity(op.heads);
        for head in 0..op.heads {
            let part = |rows: &Tensor, head, width| rows.narrow(1, head * width, width)?.contiguous();
            let kv_head = op.kv_head(head);
            let (queries, keys) = (part(&queries, head, op.width)?, part(&keys, kv_head, op.width)?);
            let values = part(&values, kv_head, op.value_width)?;
            let bias = biases.as_ref().map(|biases| part(biases, head, 1)).transpose()?;
            let sides = [&queries, &keys].map(SearchTensor::Rows);
            let kept = longseq.search(&search, batch, sides[0], sides[1], bias.as_ref())?;
            let mut inputs = SelectedAttentionTensors::new(&queries, &keys, &kept).with_values(&values);
            inputs.bias = bias.as_ref();
            pooled.push(longseq.selected_attention(&one, batch, inputs)?);
        }
        self.output.forward(&Tensor::cat(&pooled, 1)?)
    }

    /// The cross features, `[N, J·w]`.
    fn checked(&self, history: &Tensor, cross: Option<&Tensor>) -> Result<Option<Tensor>> {
        match (&self.cross, cross) {
            (None, None) => Ok(None),
            (None, Some(cross)) => Err(wrong(
                NAME,
                "cross",
                "none, as the layer has no cross features",
                format!("{:?}", cross.dims()),
            )),
            (Some(_), None) => Err(wrong(NAME, "cross", "the cross features of behaviours", "none")),
            (Some(own), Some(cross)) => {
                let (n, shape) = (("N", history.dim(0)?), own.shape);
                let flat = ("J·w", shape.features * shape.width);
                let apart = [n, ("J", shape.features), ("w", shape.width)];
                let cross = Argument::new(NAME, "cross", cross).of_shape(&[&apart, &[n, flat]])?;
                Ok(Some(cross.float_as(history.dtype())?.reshape((n.1, flat.1))?))
            }
        }
    }

    /// What cross features `[N, J·w]` add to the scores, `[N, H]`.
    fn biases(&self, cross: &Tensor) -> Result<Tensor> {
        let Some(own) = &self.cross else { candle_core::bail!("{NAME}: no cross features") };
        let weights = own.weight.broadcast_mul(&own.beta.unsqueeze(2)?)?;
        cross.matmul(&weights.reshape((self.op.heads, cross.dim(1)?))?.t()?)
    }
}
