//! Adds up the partial results of the gradients of the queries.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::target_attention::backward::rows::Job;

params! {
    /// Twin of the struct in shaders/target_attention/backward_queries.wgsl.
    struct BackwardQueriesParams {
        threads: u32,
        kv_heads: u32,
        group_heads: u32,
        width: u32,
        out_base: u32,
        first_target: u32,
        tile: u32,
        shares: u32,
    }
}

fn queries_kernel() -> Kernel {
    Kernel {
        name: "target_attention/backward_queries",
        params: &BackwardQueriesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/target_attention/backward_queries.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("partial", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![queries_kernel()]
}

/// Where the gradients of the queries go.
pub(in crate::webgpu) enum QueryGradients<'a, G: Element> {
    View(ViewMut<'a, WgpuMemory, G>),
    /// `f32` rows of all candidates, which the caller goes on with.
    Rows(&'a Binding),
}

/// Writes the gradients of the queries of the candidates that the plan is for.
pub(super) fn add_up<G: Element>(
    job: &Job<'_>,
    partial: &Binding,
    grad: &mut QueryGradients<'_, G>,
) -> Result<()> {
    let Job { gpu, operation, op, plan, .. } = *job;
    match grad {
        QueryGradients::View(grad) => {
            let row = op.heads * op.width;
            let own = grad.reborrow().slice(plan.targets.start * row, plan.targets.len() * row)?;
            let out = gpu.output(operation, "grads.queries", &own, own.len(), &[], &[])?;
            add_up_to(job, partial, &out.binding, plan.targets.start)?;
            gpu.finish(out)
        }
        QueryGradients::Rows(out) => add_up_to(job, partial, out, 0),
    }
}

/// The same to rows from those of candidate `first_target` on.
fn add_up_to(job: &Job<'_>, partial: &Binding, out: &Binding, first_target: usize) -> Result<()> {
    let Job { gpu, operation, op, plan, .. } = *job;
    let threads = plan.tile_count() * op.kv_heads * plan.tile_rows * op.width;
    let params = BackwardQueriesParams {
        threads: fit(operation, "queries", threads)?,
        kv_heads: op.kv_heads as u32,
        group_heads: (op.heads / op.kv_heads) as u32,
        width: op.width as u32,
        out_base: out.base,
        first_target: first_target as u32,
        tile: plan.tile_rows as u32,
        shares: plan.shares as u32,
    };
    gpu.dispatch(operation, &queries_kernel(), &params, &[&job.tiles, partial, out], groups_of(threads))
}
