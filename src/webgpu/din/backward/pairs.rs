//! Computes the network for the pairs of a part, forwards and backwards, and the softmax states of candidates.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{DinPart, activation_code};
use crate::ops::DinPooling;
use crate::webgpu::din::backward::job::{Job, PARTS};
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};

params! {
    /// Twin of the struct in shaders/din/backward_pairs.wgsl.
    struct DinBackwardPairsParams {
        mode: u32,
        pieces: u32,
        layer_0: [u32; 4],
        layer_1: [u32; 4],
        layer_2: [u32; 4],
        place_0: [u32; 4],
        place_1: [u32; 4],
        place_2: [u32; 4],
        layers: u32,
        deepest: u32,
        softmax: u32,
        width: u32,
        history_base: u32,
        candidate: u32,
        tile: u32,
        tile_sums: u32,
        output_sums: u32,
        output_bias: u32,
        first_state: u32,
        first_piece: u32,
    }
}

params! {
    /// Twin of the struct in shaders/din/backward_states.wgsl.
    struct DinBackwardStatesParams {
        threads: u32,
        step: u32,
        pieces: u32,
        first_piece: u32,
        users: u32,
        first_user: u32,
        first_state: u32,
    }
}

/// What to compute of the pairs, as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The scores and the gradients of the weights.
    Scores,
    /// Everything from the last layer down to this one.
    Gradients(usize),
    /// The statistics of this layer.
    Statistics(usize),
}

fn pairs_kernel(history: Format) -> Kernel {
    Kernel {
        name: "din/backward_pairs",
        params: &DinBackwardPairsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../../shaders/din/backward_pairs.wgsl"),
            include_str!("../../../../shaders/din/backward_layers.wgsl"),
            PARTS,
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("candidates", "vec4<f32>"),
            Slot::read("history", history),
            Slot::plain("network", "vec4<f32>"),
            Slot::plain("states", "vec4<f32>"),
            Slot::write("work", "vec4<f32>"),
            Slot::write("pair_numbers", "vec4<f32>"),
            Slot::write("tile_sums", "vec4<f32>"),
        ],
    }
}

fn states_kernel() -> Kernel {
    Kernel {
        name: "din/backward_states",
        params: &DinBackwardStatesParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../../shaders/din/backward_states.wgsl"),
            include_str!("../../../../shaders/din/backward_users.wgsl"),
            PARTS,
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("users", "vec4<u32>"),
            Slot::plain("pair_numbers", "vec4<f32>"),
            Slot::write("run_states", "vec4<f32>"),
            Slot::write("states", "vec4<f32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let formats = Format::ALL.into_iter().filter(|format| !format.vectors);
    formats.map(pairs_kernel).chain([states_kernel()]).collect()
}

impl<T: Element> Job<'_, T> {
    /// Computes the pairs of a part.
    pub(super) fn pairs(&self, part: &DinPart, mode: Mode) -> Result<()> {
        let Self { gpu, operation, layout, .. } = *self;
        let rows = Region::of(self.inputs.history).rows(part.rows.start, part.rows.len(), layout.width);
        let history = gpu.bind(operation, "history", &rows)?;
        let count = self.inputs.hidden.len();
        let (mode, layers, deepest) = match mode {
            Mode::Scores => (0, count, count),
            Mode::Gradients(deepest) => (1, count, deepest),
            Mode::Statistics(layer) => (2, layer + 1, 0),
        };
        let layer = |i: usize| match self.inputs.hidden.get(i) {
            None => [0; 4],
            Some(layer) => {
                let (units, activation) = (layout.units[i] as u32, activation_code(&layer.activation));
                [units, activation, layout.weights[i] as u32, layout.vectors[i] as u32]
            }
        };
        let place = |i: usize| {
            [layout.before[i], layout.after[i], layout.sums[i], layout.units4[i]].map(|at| at as u32)
        };
        let params = DinBackwardPairsParams {
            mode,
            pieces: part.pieces.len() as u32,
            layer_0: layer(0),
            layer_1: layer(1),
            layer_2: layer(2),
            place_0: place(0),
            place_1: place(1),
            place_2: place(2),
            layers: layers as u32,
            deepest: deepest as u32,
            softmax: u32::from(self.op.pooling == DinPooling::Softmax),
            width: layout.width as u32,
            history_base: history.base,
            candidate: layout.candidate as u32,
            tile: layout.tile as u32,
            tile_sums: layout.tile_sums as u32,
            output_sums: layout.output_sums as u32,
            output_bias: layout.output_bias as u32,
            first_state: part.targets.start as u32,
            first_piece: part.pieces.start as u32,
        };
        let bindings = [
            &self.pieces,
            &self.candidates,
            &history,
            &self.network,
            &self.states,
            &self.work,
            &self.pair_numbers,
            &self.tile_sums,
        ];
        let kernel = pairs_kernel(Format::of::<T>(false));
        gpu.dispatch(operation, &kernel, &params, &bindings, part.tiles as u64)
    }

    /// Adds the scores of a part to the softmax states of its candidates.
    pub(super) fn states(&self, part: &DinPart) -> Result<()> {
        for (step, threads) in [part.runs, part.targets.len()].into_iter().enumerate() {
            let params = DinBackwardStatesParams {
                threads: threads as u32,
                step: step as u32,
                pieces: part.pieces.len() as u32,
                first_piece: part.pieces.start as u32,
                users: part.users.len() as u32,
                first_user: part.users.start as u32,
                first_state: part.targets.start as u32,
            };
            let bindings = [&self.pieces, &self.users, &self.pair_numbers, &self.run_states, &self.states];
            self.gpu.dispatch(self.operation, &states_kernel(), &params, &bindings, groups_of(threads))?;
        }
        Ok(())
    }
}
