//! The launches that merge the statistics of a layer.

use crate::cuda::din::job::Job;
use crate::cuda::din::kernels::{DinBackwardParams, MOMENTS, ROWS_PER_SUM};
use crate::element::Element;
use crate::error::Result;
use crate::gpu::din_moments::Place;
use crate::gpu::{CHAIN, DinPart};

impl<T: Element> Job<'_, T> {
    /// Takes memory for the entries of so many levels.
    pub(super) fn kept_moments(&mut self, levels: usize, layer: usize) -> Result<u64> {
        let bytes = levels.saturating_mul(CHAIN * self.bytes_of_entry(layer));
        self.call.scratch(bytes)
    }

    /// Bytes of the means, sums and count of a layer.
    fn bytes_of_entry(&self, layer: usize) -> usize {
        (2 * self.layout.units4[layer] + 1) * 16
    }

    /// The address of an entry.
    pub(super) fn place(&self, kept: u64, place: Place, layer: usize) -> u64 {
        match place {
            Place::Total => self.totals,
            Place::Kept { level, entry } => {
                kept + ((level * CHAIN + entry) * self.bytes_of_entry(layer)) as u64
            }
        }
    }

    /// Merges the statistics of the tiles of a part with those of `pairs` pairs at `to`.
    pub(super) fn moments(
        &self,
        part: &DinPart,
        layer: usize,
        params: DinBackwardParams,
        (to, pairs): (u64, f64),
    ) -> Result<()> {
        if part.tiles <= ROWS_PER_SUM {
            return self.merge(layer, params, (params.tile_sums, part.tiles), (to, pairs));
        }
        self.merge(layer, params, (params.tile_sums, part.tiles), (self.between, 0.0))?;
        self.merge(layer, params, (self.between, part.tiles.div_ceil(ROWS_PER_SUM)), (to, pairs))
    }

    /// Merges the first entries of a level.
    pub(super) fn merge_moments(
        &self,
        kept: u64,
        (level, rows, to): (usize, usize, Place),
        layer: usize,
    ) -> Result<()> {
        let from = self.place(kept, Place::Kept { level, entry: 0 }, layer);
        self.merge(layer, self.params, (from, rows), (self.place(kept, to, layer), 0.0))
    }

    fn merge(
        &self,
        layer: usize,
        params: DinBackwardParams,
        (from, rows): (u64, usize),
        (to, pairs): (u64, f64),
    ) -> Result<()> {
        let threads = rows.div_ceil(ROWS_PER_SUM) * self.layout.units4[layer];
        let (rows, before, layer) = (rows as u32, pairs as f32, layer as u32);
        self.launch(&MOMENTS, threads, DinBackwardParams { from, to, rows, before, layer, ..params })
    }
}
