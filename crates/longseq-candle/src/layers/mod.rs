//! Layers of published systems, whose weights come from a [`VarBuilder`](candle_nn::VarBuilder): a `VarMap` for training, a safetensors
//! file for serving.
//!
//! | system | layer |
//! |---|---|
//! | multi-head target attention | [`TargetAttentionLayer`] |
//! | DIN | [`DinLayer`] |
//! | SDIM | [`SdimLayer`] |
//! | DARE | [`DareLayer`] |
//! | TIN | [`TinLayer`] |
//! | SIM: what comes after its search | [`SelectedAttentionLayer`] |
//! | ETA | [`EtaLayer`] |
//! | TWIN | [`TwinLayer`] |
//! | MUSE | [`MuseLayer`] |
//! | QIN | [`QinLayer`] |
//! | DiffuMIN | [`DiffuMinLayer`] |

mod dare;
mod diffumin;
mod din;
mod eta;
mod muse;
mod qin;
mod sdim;
mod selected_attention;
mod target_attention;
mod tin;
mod twin;

pub use dare::{DareLayer, DareTable};
pub use diffumin::{DiffuMin, DiffuMinInterests, DiffuMinLayer, DiffuMinLosses, DiffuMinNoise};
pub use din::{DinActivation, DinLayer};
pub use eta::EtaLayer;
pub use muse::{MuseInterest, MuseLayer, MuseTensors};
pub use qin::QinLayer;
pub use sdim::SdimLayer;
pub use selected_attention::SelectedAttentionLayer;
pub use target_attention::TargetAttentionLayer;
pub use tin::TinLayer;
pub use twin::{CrossFeatures, TwinLayer};

use candle_core::{DType, Result, Tensor};

use crate::handle::Batch;
use crate::place::Place;
use crate::tensors::Argument;

/// Candidates and behaviours of a batch: rows of `width` numbers, of the type of a layer's weights.
fn sides<B: Place>(
    layer: &'static str,
    batch: &Batch<B>,
    (width, dtype): (usize, DType),
    targets: &Tensor,
    history: &Tensor,
) -> Result<[Tensor; 2]> {
    let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
    let checked = |name, tensor, rows| {
        Argument::new(layer, name, tensor).of_shape(&[&[rows, ("width", width)]])?.float_as(dtype)
    };
    Ok([checked("targets", targets, m)?, checked("history", history, n)?])
}
