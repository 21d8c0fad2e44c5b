//! Gradients of tables: sums by id over the slots that keep a behaviour of that id, as those of behaviours are (`sums.rs`).

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{
    SelectedAttention, SelectedAttentionGradOut, SelectedAttentionGradients, SelectedKeys,
    SelectedTableGradients, SelectedTableInputs, Table,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::backward::{jobs, sorted_runs};
use crate::webgpu::lookup::sort::{IdList, Sort};
use crate::webgpu::lookup::table_gradient::Job;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::selected::backward::call::{AllSlots, Asked, Call, OF_TABLES as NAME};
use crate::webgpu::selected::backward::{all_groups, asked_of, given_of};
use crate::webgpu::selected::inputs::Inputs;
use crate::webgpu::selected::sums::{ByBehaviour, OfBehaviours, SlotNumbers};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/selected/slot_keys.wgsl.
    struct SelectedSlotKeysParams {
        threads: u32,
        features: u32,
        heads: u32,
        first_number: u32,
    }
}

fn keys_kernel() -> Kernel {
    Kernel {
        name: "selected/slot_keys",
        params: &SelectedSlotKeysParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/selected/slot_keys.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("slot_ids", "u32"),
            Slot::plain("numbers", "u32"),
            Slot::write("keys", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![keys_kernel()]
}

/// The kinds of numbers that rows get something from.
const WEIGHTS: usize = 0;
const SCORES: usize = 1;

/// The tables of keys or of values, and where their gradients go.
struct Side<'a> {
    tables: &'a [Table<'a, WgpuMemory>],
    jobs: Vec<Option<Job>>,
    /// The kinds of numbers that they get something from: the first also says which slots count.
    kinds: &'static [usize],
}

impl Side<'_> {
    fn is_any(&self) -> bool {
        self.jobs.iter().any(Option::is_some)
    }

    fn gets(&self, kind: usize) -> bool {
        self.is_any() && self.kinds.contains(&kind)
    }
}

pub(in crate::webgpu::selected) fn backward_of_tables<T: Element, G: GradientOf<T>>(
    gpu: &Wgpu,
    op: &SelectedAttention,
    batch: &WgpuBatch,
    (inputs, grad_out): (
        &SelectedTableInputs<'_, WgpuMemory, T>,
        &SelectedAttentionGradOut<'_, WgpuMemory, T>,
    ),
    grads: SelectedTableGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    op.check_tables_backward(batch.as_ref(), inputs, grad_out, &grads)?;
    batch.check_owner(gpu, NAME)?;
    let own = Inputs::of_tables(inputs);
    let (ids, grad_region) = (Region::of(inputs.history_ids), Region::of(grad_out.out));
    let grad_lse = grad_out.lse.map(Region::of);
    gpu.check_device(NAME, "history_ids", &ids)?;
    let mut read = own.buffers();
    read.push(grad_region.buffer);
    read.extend(grad_lse.map(|grad_lse| grad_lse.buffer));
    let sides = sides(gpu, op, batch, inputs, &grads, &read)?;
    gpu.check_ids(NAME, "history_ids", op.ids, ids, batch.as_ref().histories().total(), inputs.values)?;
    let tables = [SCORES, WEIGHTS].map(|kind| sides.iter().any(|side| side.gets(kind)));
    let others = SelectedAttentionGradients {
        queries: grads.queries,
        keys: grads.keys,
        values: None,
        bias: grads.bias,
        gammas: grads.gammas,
        similarities: grads.similarities,
    };
    let asked = asked_of(&others, tables);
    let (given, parts) = given_of(gpu, (NAME, op), batch, &inputs.selection)?;
    let all = match sides.iter().any(Side::is_any) {
        true => Some(all_slots(gpu, op, batch, asked, &sides)?),
        false => None,
    };
    let call = Call {
        gpu,
        operation: NAME,
        op,
        inputs: own,
        grad_out: grad_region,
        grad_lse,
        asked,
        parts,
        all: all.as_ref(),
    };
    all_groups(&call, batch, given, others)?;
    if let Some(all) = &all {
        let sums = Sums::new(&call, all, batch.as_ref().targets().total())?;
        sides.iter().filter(|side| side.is_any()).try_for_each(|side| sums.write(side))?;
    }
    let jobs = sides.into_iter().flat_map(|side| side.jobs).flatten();
    jobs.into_iter().try_for_each(|job| job.finish(gpu))
}

/// The tables of keys, if there are any, and of values.
fn sides<'a, T: Element, G: Element>(
    gpu: &Wgpu,
    op: &SelectedAttention,
    batch: &WgpuBatch,
    inputs: &SelectedTableInputs<'a, WgpuMemory, T>,
    grads: &SelectedTableGradients<'_, WgpuMemory, G>,
    read: &[&wgpu::Buffer],
) -> Result<[Side<'a>; 2]> {
    let most = op.gradient_capacity(batch.as_ref());
    let (key_tables, of_values): (&[Table<'_, _>], &'static [usize]) = match inputs.keys {
        SelectedKeys::Tables(tables) => (tables, &[WEIGHTS]),
        SelectedKeys::Rows(_) => (&[], &[WEIGHTS]),
        SelectedKeys::Values => (&[], &[WEIGHTS, SCORES]),
    };
    for table in inputs.values {
        // An id is a key; the largest stands for none.
        fit(NAME, "tables", table.rows)?;
    }
    let key_jobs = jobs(gpu, NAME, key_tables, (gpu.nothing(), most), &grads.key_tables, read)?;
    let value_jobs = jobs(gpu, NAME, inputs.values, (gpu.nothing(), most), &grads.values, read)?;
    Ok([
        Side { tables: key_tables, jobs: key_jobs, kinds: &[SCORES] },
        Side { tables: inputs.values, jobs: value_jobs, kinds: of_values },
    ])
}

/// Memory for what the slots of all candidates have. Checks that the device counts and holds what the sums need, before anything is
/// written.
fn all_slots(
    gpu: &Wgpu,
    op: &SelectedAttention,
    batch: &WgpuBatch,
    asked: Asked,
    sides: &[Side<'_>],
) -> Result<AllSlots> {
    let features = sides.iter().map(|side| side.tables.len()).max().unwrap_or(0);
    let slots = batch.as_ref().targets().total().saturating_mul(op.top_k);
    let count = slots.saturating_mul(op.heads);
    let numbers = fit(NAME, "positions", count.saturating_mul(asked.kinds()))?;
    let ids = fit(NAME, "history_ids", slots.saturating_mul(features))?;
    let jobs = sides.iter().flat_map(|side| side.jobs.iter().flatten());
    jobs.into_iter().try_for_each(|job| job.check_room(gpu, slots))?;
    Ok(AllSlots {
        numbers: gpu.scratch(NAME, numbers.into())?,
        count,
        ids: gpu.scratch(NAME, ids.into())?,
        features,
    })
}

/// Sums over the slots of all candidates.
struct Sums<'a, T: Element> {
    call: &'a Call<'a, T>,
    all: &'a AllSlots,
    /// `M·K`.
    slots: usize,
    /// Of all candidates.
    queries: Binding,
    grad_out: Binding,
}

impl<'a, T: Element> Sums<'a, T> {
    fn new(call: &'a Call<'a, T>, all: &'a AllSlots, candidates: usize) -> Result<Self> {
        let Call { gpu, op, .. } = *call;
        let rows = candidates.saturating_mul(op.heads);
        fit(NAME, "queries", rows.saturating_mul(op.width.max(op.value_width)))?;
        let queries = call.inputs.queries.rows(0, rows, op.width);
        let grad_out = call.grad_out.rows(0, rows, op.value_width);
        Ok(Self {
            call,
            all,
            slots: candidates.saturating_mul(op.top_k),
            queries: gpu.bind(NAME, "queries", &queries)?,
            grad_out: gpu.bind(NAME, "grad_out.out", &grad_out)?,
        })
    }

    /// Writes the gradients of the tables of a side.
    fn write(&self, side: &Side<'_>) -> Result<()> {
        let (gpu, features) = (self.call.gpu, self.all.features);
        gpu.part(|| {
            let keys = self.keys(side.kinds[0])?;
            // The scratch memory of a feature serves the next.
            for (feature, (table, job)) in side.tables.iter().zip(&side.jobs).enumerate() {
                let Some(job) = job else { continue };
                gpu.part(|| {
                    let sort = Sort::new(gpu, NAME, self.slots, table.rows)?;
                    let length = self.slots;
                    sort.load(&IdList { ids: &keys, features, feature, first: 0, length, report: None })?;
                    let runs = sorted_runs(&sort, [length, table.rows])?;
                    job.begin(gpu, &runs)?;
                    if job.length == 0 {
                        return Ok(());
                    }
                    self.sum(&ByBehaviour::of_runs(gpu, NAME, runs), job, side.kinds)
                })?;
            }
            Ok(())
        })
    }

    /// The ids of the slots that have a number of a kind.
    fn keys(&self, kind: usize) -> Result<Binding> {
        let (gpu, op, features) = (self.call.gpu, self.call.op, self.all.features);
        let threads = self.slots * features;
        let keys = gpu.scratch(NAME, threads as u64)?;
        let params = SelectedSlotKeysParams {
            threads: threads as u32,
            features: features as u32,
            heads: op.heads as u32,
            first_number: (kind * self.all.count) as u32,
        };
        let bindings = [&self.all.ids, &self.all.numbers, &keys];
        gpu.dispatch(NAME, &keys_kernel(), &params, &bindings, groups_of(threads))?;
        Ok(keys)
    }

    /// Adds up what a table gets from each of some kinds.
    fn sum(&self, order: &ByBehaviour<'_>, job: &Job, kinds: &[usize]) -> Result<()> {
        let Call { gpu, op, .. } = *self.call;
        let nothing = gpu.nothing();
        for (place, &kind) in kinds.iter().enumerate() {
            let numbers = SlotNumbers {
                top_k: op.top_k,
                heads: op.heads,
                kv_heads: op.kv_heads,
                kept: &nothing,
                numbers: &self.all.numbers,
                first: (kind * self.all.count) as u32,
            };
            let (part_width, rows, factor) = match kind {
                WEIGHTS => (op.value_width, &self.grad_out, 1.0),
                _ => (op.width, &self.queries, op.effective_scale()),
            };
            let sum = OfBehaviours {
                width: job.width,
                part_width,
                rows,
                first_row: 0,
                factor,
                adds: place > 0,
                first_column: job.first_column,
                dense: job.sparse.is_none(),
            };
            order.sum::<T>(&numbers, &sum, &job.rows.binding)?;
        }
        Ok(())
    }
}
