//! The contrastive loss between a user's interests and the generated ones.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::axes::units;
use super::{DiffuMin, counted_mean};

/// Added to what is no negative.
const REMOVED: f32 = -1e9;

/// `g` and `h`.
pub(super) struct Contrast {
    own: [Linear; 2],
    generated: [Linear; 2],
}

impl Contrast {
    pub(super) fn new(op: &DiffuMin, builder: VarBuilder<'_>) -> Result<Self> {
        let width = op.channels.width;
        let network = |name| {
            let builder = builder.pp(name);
            Ok::<_, candle_core::Error>([
                linear(width, 4 * width, builder.pp(0))?,
                linear(4 * width, width, builder.pp(1))?,
            ])
        };
        Ok(Self { own: network("own")?, generated: network("generated")? })
    }

    /// InfoNCE of rows `[M, c, d]`, channel by channel: the same candidate is the positive, those of other users are the negatives.
    pub(super) fn loss(
        &self,
        own: &Tensor,
        generated: &Tensor,
        owners: &[Option<usize>],
        temperature: f64,
    ) -> Result<Tensor> {
        let side = |network: &[Linear; 2], rows: &Tensor| {
            let rows = rows.transpose(0, 1)?.contiguous()?;
            units(&network[1].forward(&network[0].forward(&rows)?.relu()?)?)
        };
        let (own, generated) = (side(&self.own, own)?, side(&self.generated, generated)?);
        // `[c, M, M]`.
        let similarities = (own.matmul(&generated.transpose(1, 2)?.contiguous()?)? * (1.0 / temperature))?;
        let m = owners.len();
        let eye = Tensor::eye(m, similarities.dtype(), &Device::Cpu)?;
        let positive = similarities.broadcast_mul(&eye)?.sum(D::Minus1)?;
        let all = similarities.broadcast_add(&removed(owners)?)?.log_sum_exp(D::Minus1)?;
        counted_mean(&all.sub(&positive)?.mean(0)?, owners)
    }
}

/// `[M, M]`: 0 for a candidate itself and for those of other users, elsewhere a number that leaves no weight.
fn removed(owners: &[Option<usize>]) -> Result<Tensor> {
    let m = owners.len();
    let mut rows = vec![REMOVED; m * m];
    for (row, own) in owners.iter().enumerate() {
        for (column, other) in owners.iter().enumerate() {
            if row == column || (other.is_some() && own != other) {
                rows[row * m + column] = 0.0;
            }
        }
    }
    Tensor::from_vec(rows, (m, m), &Device::Cpu)
}
