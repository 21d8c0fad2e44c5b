//! The gradients of behaviours and candidates.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::DinPart;
use crate::webgpu::binding::Binding;
use crate::webgpu::din::backward::job::{Job, PARTS};
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};

/// Columns of a workgroup of din/backward_history.wgsl, in vec4s.
const COLUMNS4: usize = 16;

params! {
    /// Twin of the struct in shaders/din/backward_history.wgsl.
    struct DinBackwardHistoryParams {
        pieces: u32,
        first_piece: u32,
        width: u32,
        column_groups: u32,
        units: u32,
        tile: u32,
        grads: u32,
        candidate: u32,
        keys: u32,
        products: u32,
        adds: u32,
        out_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/din/backward_targets.wgsl.
    struct DinBackwardTargetsParams {
        threads: u32,
        width: u32,
        unit_groups: u32,
        padded: u32,
        pieces: u32,
        first_piece: u32,
        users: u32,
        first_user: u32,
        first_target: u32,
        out_base: u32,
    }
}

fn history_kernel() -> Kernel {
    Kernel {
        name: "din/backward_history",
        params: &DinBackwardHistoryParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/din/backward_history.wgsl"), PARTS],
        constants: vec![],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("candidates", "vec4<f32>"),
            Slot::plain("network", "vec4<f32>"),
            Slot::plain("work", "vec4<f32>"),
            Slot::plain("pair_numbers", "vec4<f32>"),
            Slot::write("out", "f32"),
        ],
    }
}

fn targets_kernel() -> Kernel {
    Kernel {
        name: "din/backward_targets",
        params: &DinBackwardTargetsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../../shaders/din/backward_targets.wgsl"),
            include_str!("../../../../shaders/din/backward_users.wgsl"),
            PARTS,
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("users", "vec4<u32>"),
            Slot::plain("target_parts", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![history_kernel(), targets_kernel()]
}

impl<T: Element> Job<'_, T> {
    /// Writes the gradients of the behaviours of a part, or adds them to those of earlier candidates.
    pub(super) fn history(&self, part: &DinPart, out: &Binding) -> Result<()> {
        let layout = self.layout;
        let column_groups = layout.width4.div_ceil(COLUMNS4);
        let matrix = 4 * layout.width4 * layout.units4[0];
        let params = DinBackwardHistoryParams {
            pieces: part.pieces.len() as u32,
            first_piece: part.pieces.start as u32,
            width: layout.width as u32,
            column_groups: column_groups as u32,
            units: layout.units[0] as u32,
            tile: layout.tile as u32,
            grads: layout.before[0] as u32,
            candidate: layout.candidate as u32,
            keys: (layout.weights[0] + 3 * matrix) as u32,
            products: (layout.weights[0] + 4 * matrix) as u32,
            adds: u32::from(!part.first),
            out_base: out.base,
        };
        let bindings = [&self.pieces, &self.candidates, &self.network, &self.work, &self.pair_numbers, out];
        let groups = part.blocks * column_groups;
        self.gpu.dispatch(self.operation, &history_kernel(), &params, &bindings, groups as u64)
    }

    /// Adds a part to the gradients of its candidates.
    pub(super) fn targets(&self, part: &DinPart, out: &Binding) -> Result<()> {
        let layout = self.layout;
        let threads = part.targets.len() * layout.width;
        let params = DinBackwardTargetsParams {
            threads: threads as u32,
            width: layout.width as u32,
            unit_groups: layout.outer_groups(0)[0] as u32,
            padded: 4 * layout.width4 as u32,
            pieces: part.pieces.len() as u32,
            first_piece: part.pieces.start as u32,
            users: part.users.len() as u32,
            first_user: part.users.start as u32,
            first_target: part.targets.start as u32,
            out_base: out.base,
        };
        let bindings = [&self.pieces, &self.users, &self.target_parts, out];
        self.gpu.dispatch(self.operation, &targets_kernel(), &params, &bindings, groups_of(threads))
    }
}
