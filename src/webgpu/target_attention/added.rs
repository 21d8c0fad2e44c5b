//! What attention adds for each behaviour: nothing, a bias to its scores, or the row of its position to its own.

use std::ops::Range;

use crate::error::Result;
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::Region;
use crate::webgpu::shader::{Format, Slot};
use crate::webgpu::state::Wgpu;

/// What is added for each behaviour.
#[derive(Debug, Clone, Copy)]
pub(in crate::webgpu) enum Added<'a> {
    Nothing,
    /// A number for each head to its scores.
    Bias(Region<'a, f32>),
    /// The row of its position to its own, which is its key and its value.
    Positions(Positions<'a>),
}

/// Positions of behaviours in a table, which is bound in place of values.
#[derive(Debug, Clone, Copy)]
pub(in crate::webgpu) struct Positions<'a> {
    /// Rows of the table.
    pub(in crate::webgpu) rows: usize,
    /// `None`: counted from the newest behaviour of a user.
    pub(in crate::webgpu) given: Option<Region<'a, u32>>,
}

/// The parameters of kernels that depend on what is added.
pub(super) struct AddedParams {
    pub(super) has_bias: u32,
    pub(super) has_places: u32,
    pub(super) last_position: u32,
}

impl Added<'_> {
    pub(super) fn is_positions(&self) -> bool {
        matches!(self, Self::Positions(_))
    }

    /// The rows of the histories that are bound at a time, at most `window`.
    pub(super) fn window(&self, gpu: &Wgpu, heads: usize, window: usize) -> usize {
        match self {
            Self::Bias(_) => window.min(gpu.rows_per_binding::<f32>(heads)),
            Self::Positions(Positions { given: Some(_), .. }) => window.min(gpu.rows_per_binding::<u32>(1)),
            _ => window,
        }
    }

    /// What is bound for a span of the histories. The eighth word of a tile of `tiles` is where its user's history ends.
    pub(super) fn bind(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        heads: usize,
        span: &Range<usize>,
        tiles: &Binding,
    ) -> Result<Binding> {
        match self {
            Self::Nothing => Ok(gpu.nothing()),
            Self::Bias(bias) => gpu.bind(operation, "bias", &bias.rows(span.start, span.len(), heads)),
            Self::Positions(Positions { given: Some(given), .. }) => {
                gpu.bind(operation, "history_positions", &given.rows(span.start, span.len(), 1))
            }
            Self::Positions(Positions { given: None, .. }) => Ok(tiles.clone()),
        }
    }

    pub(super) fn params(&self) -> AddedParams {
        let (has_bias, has_places, last_position) = match self {
            Self::Nothing => (false, false, 0),
            Self::Bias(_) => (true, false, 0),
            Self::Positions(Positions { rows, given }) => (false, given.is_some(), rows - 1),
        };
        AddedParams {
            has_bias: has_bias.into(),
            has_places: has_places.into(),
            last_position: last_position as u32,
        }
    }
}

/// The slots of keys, of values or the table of positions, and of what is added.
pub(super) fn slots(positions: bool, history: Format) -> [Slot; 3] {
    let (second, third) = if positions {
        ("positions", Slot::plain("places", "u32"))
    } else {
        ("values", Slot::read("bias", Format::f32(false)))
    };
    [Slot::read("keys", history), Slot::read(second, history), third]
}
