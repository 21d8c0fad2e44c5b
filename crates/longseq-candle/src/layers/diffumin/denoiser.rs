//! The denoiser: a transformer over a candidate's channels.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::softmax;
use candle_nn::{Init, Linear, Module, VarBuilder, linear, linear_no_bias};

use super::DiffuMin;

/// Added to the variance of a row in layer normalisation.
const EPSILON: f64 = 1e-6;
/// The longest period of a level's embedding, over 2π.
const LONGEST: f64 = 10_000.0;

pub(super) struct Denoiser {
    width: usize,
    time: [Linear; 2],
    blocks: Vec<Block>,
}

struct Block {
    heads: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    condition: [Linear; 2],
    feed: [Linear; 2],
    norms: [Norm; 3],
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Denoiser {
    pub(super) fn new(op: &DiffuMin, builder: VarBuilder<'_>) -> Result<Self> {
        let width = op.channels.width;
        let blocks = builder.pp("blocks");
        let time = builder.pp("time");
        Ok(Self {
            width,
            time: [linear(width, 4 * width, time.pp(0))?, linear(4 * width, width, time.pp(1))?],
            blocks: (0..op.blocks).map(|index| Block::new(op, &blocks.pp(index))).collect::<Result<_>>()?,
        })
    }

    /// The embeddings of levels, `[levels, 1, d]`: sines and cosines of rising periods, and a network over them.
    pub(super) fn times(&self, levels: &[u32]) -> Result<Tensor> {
        let half = self.width / 2;
        let rate = |index: usize| (-LONGEST.ln() * index as f64 / (half.max(2) - 1) as f64).exp();
        let mut rows = Vec::with_capacity(levels.len() * self.width);
        for &level in levels {
            let angle = |index: usize| f64::from(level) * rate(index);
            rows.extend((0..half).map(|index| angle(index).sin() as f32));
            rows.extend((0..half).map(|index| angle(index).cos() as f32));
            // Of an odd width.
            rows.extend((2 * half..self.width).map(|_| 0.0_f32));
        }
        let rows = Tensor::from_vec(rows, (levels.len(), self.width), &Device::Cpu)?;
        self.time[1].forward(&self.time[0].forward(&rows)?.silu()?)?.unsqueeze(1)
    }

    /// The rows `[P, c, d]`, denoised, from axes `[P, 1, d]` and embeddings of levels `[P, 1, d]` or `[1, 1, d]`.
    pub(super) fn forward(&self, rows: &Tensor, axes: &Tensor, times: &Tensor) -> Result<Tensor> {
        let rows = rows.broadcast_add(times)?;
        self.blocks.iter().try_fold(rows, |rows, block| block.forward(&rows, axes))
    }
}

impl Block {
    fn new(op: &DiffuMin, builder: &VarBuilder<'_>) -> Result<Self> {
        let width = op.channels.width;
        let square = |name| linear_no_bias(width, width, builder.pp(name));
        let (feed, norms, units) = (builder.pp("feed"), builder.pp("norms"), op.feed_forward * width);
        let norm = |index: usize| Norm::new(width, &norms.pp(index));
        Ok(Self {
            heads: op.heads,
            query: square("query")?,
            key: square("key")?,
            value: square("value")?,
            output: square("output")?,
            condition: [square("condition_value")?, square("condition_output")?],
            feed: [linear(width, units, feed.pp(0))?, linear(units, width, feed.pp(1))?],
            norms: [norm(0)?, norm(1)?, norm(2)?],
        })
    }

    fn forward(&self, rows: &Tensor, axes: &Tensor) -> Result<Tensor> {
        let rows = self.norms[0].forward(&rows.add(&self.attention(rows)?)?)?;
        let condition = self.condition[1].forward(&self.condition[0].forward(axes)?)?;
        let rows = self.norms[1].forward(&rows.broadcast_add(&condition)?)?;
        let fed = self.feed[1].forward(&self.feed[0].forward(&rows)?.relu()?)?;
        self.norms[2].forward(&rows.add(&fed)?)
    }

    /// Self-attention among the channels of each candidate.
    fn attention(&self, rows: &Tensor) -> Result<Tensor> {
        let (p, c, d) = rows.dims3()?;
        let heads = |projection: &Linear| {
            let rows = projection.forward(rows)?.reshape((p, c, self.heads, d / self.heads))?;
            rows.transpose(1, 2)?.contiguous()
        };
        let (queries, keys, values) = (heads(&self.query)?, heads(&self.key)?, heads(&self.value)?);
        let scale = 1.0 / ((d / self.heads) as f64).sqrt();
        let scores = (queries.matmul(&keys.transpose(2, 3)?.contiguous()?)? * scale)?;
        let pooled = softmax(&scores, D::Minus1)?.matmul(&values)?;
        self.output.forward(&pooled.transpose(1, 2)?.reshape((p, c, d))?)
    }
}

impl Norm {
    fn new(width: usize, builder: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: builder.get_with_hints(width, "weight", Init::Const(1.0))?,
            bias: builder.get_with_hints(width, "bias", Init::Const(0.0))?,
        })
    }

    /// Layer normalisation, in operations that have gradients (candle's own layer of contiguous rows has none).
    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}
