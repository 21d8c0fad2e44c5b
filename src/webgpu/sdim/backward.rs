//! The gradients of SDIM.
//!
//! The gradient of a bucket row depends on its candidates only through the sum of their gradients: the gradients of the output
//! are added up by the signatures of the candidates, as behaviours are in `encode`, then each bucket row turns its sum into its
//! gradient. Behaviours gather the gradients of their buckets. Without tables, each candidate has the gradients of the bucket
//! rows that it reads, and behaviours those of the candidates that share a bucket with them.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{AttendCut, fit};
use crate::jagged::Jagged;
use crate::memory::{View, ViewMut};
use crate::ops::{Change, Hash, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};
use crate::webgpu::batch::{UserPart, WgpuBatch, WgpuJagged};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::sdim::attend::sum_buckets;
use crate::webgpu::sdim::encode::{PARTIAL_BYTES, add_up};
use crate::webgpu::sdim::gather::Behaviours;
use crate::webgpu::sdim::items::Items;
use crate::webgpu::sdim::loops::{check_candidates, check_gathered};
use crate::webgpu::sdim::signatures::{Codes, hash_buffers};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// The most bytes of tables, or of what candidates read of them, at a time: partial results of as many candidates fit one binding
/// with them.
const PART_BYTES: usize = PARTIAL_BYTES / 2;

params! {
    /// Twin of the struct in shaders/sdim/bucket_gradients.wgsl.
    struct SdimBucketGradientsParams {
        rows: u32,
        lanes: u32,
        width: u32,
        hash_groups: u32,
        buckets: u32,
        normalise: u32,
        table_base: u32,
        grads_base: u32,
        codes_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/sdim/target_gradients.wgsl.
    struct SdimTargetGradientsParams {
        rows: u32,
        lanes: u32,
        width: u32,
        hash_groups: u32,
        normalise: u32,
        grad_out_base: u32,
    }
}

fn bucket_kernel(bits: u32) -> Kernel {
    Kernel {
        name: "sdim/bucket_gradients",
        params: &SdimBucketGradientsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/sdim/gradient_of_row.wgsl"),
            include_str!("../../../shaders/sdim/bucket_gradients.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("offsets", "u32"),
            Slot::plain("table", "f32"),
            Slot::words("codes", bits),
            Slot::write("grads", "f32"),
        ],
    }
}

fn target_kernel(grad_out: Format) -> Kernel {
    Kernel {
        name: "sdim/target_gradients",
        params: &SdimTargetGradientsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/sdim/gradient_of_row.wgsl"),
            include_str!("../../../shaders/sdim/target_gradients.wgsl"),
        ],
        constants: vec![],
        slots: vec![Slot::read("grad_out", grad_out), Slot::write("sums", "f32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let formats = Format::ALL.into_iter().filter(|format| !format.vectors);
    formats.map(target_kernel).chain([8, 16, 32].map(bucket_kernel)).collect()
}

/// Threads per row of sdim/gradient_of_row.wgsl, and the workgroups of so many rows.
fn lanes_and_groups(op: &Sdim, rows: usize) -> (u32, u64) {
    let lanes = op.width.next_power_of_two().min(THREADS as usize);
    (lanes as u32, rows.div_ceil(THREADS as usize / lanes) as u64)
}

/// Given signatures that kernels read where they are, and those of items, which each part of a batch gathers: their buffers.
fn given<'a>(hash: &Hash<'a, WgpuMemory>) -> Vec<&'a wgpu::Buffer> {
    if matches!(hash, Hash::Rotations(_)) { Vec::new() } else { hash_buffers(hash) }
}

pub(super) fn query<T: Element>(
    gpu: &Wgpu,
    op: &Sdim,
    targets: &WgpuJagged,
    inputs: &SdimQueryInputs<'_, WgpuMemory, T>,
    (grad_out, grad_table): (View<'_, WgpuMemory, T>, ViewMut<'_, WgpuMemory, f32>),
) -> Result<()> {
    const NAME: &str = "sdim_query_backward";
    let jagged = targets.as_ref();
    op.check_query(NAME, jagged, inputs)?;
    Sdim::check_no_users(NAME, inputs)?;
    op.check_grad_out(NAME, jagged, grad_out.len())?;
    op.check_grad_table(NAME, jagged.users(), grad_table.len())?;
    targets.check_owner(gpu, NAME, "targets")?;
    if jagged.users() == 0 {
        return Ok(());
    }
    let (rows, table) = (Region::of(grad_out), Region::of(inputs.table));
    gpu.check_device(NAME, "grad_out", &rows)?;
    let mut read = vec![rows.buffer, table.buffer];
    read.extend(given(&inputs.hash));
    let grads = gpu.output(NAME, "grad_table", &grad_table, grad_table.len(), &read, &[])?;
    let table = gpu.bind(NAME, "table", &table)?;
    let codes = Codes::new(gpu, NAME, op, jagged.total(), ("targets", inputs.targets), &inputs.hash)?;
    bucket_gradients(gpu, NAME, op, targets, (rows, &codes), (&table, &grads.binding))?;
    gpu.finish(grads)
}

/// Writes the gradients of tables, from the bucket rows `table`.
fn bucket_gradients<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    targets: &WgpuJagged,
    (grad_out, codes): (Region<'_, T>, &Codes),
    (table, grads): (&Binding, &Binding),
) -> Result<()> {
    add_up(gpu, operation, op, targets, ("grad_out", grad_out, None), codes, (grads, Change::Encode))?;
    let rows = targets.as_ref().users() * op.groups * op.buckets();
    let (lanes, groups) = lanes_and_groups(op, rows);
    check_candidates(operation, targets.as_ref(), lanes)?;
    let params = SdimBucketGradientsParams {
        rows: fit(operation, "table", rows)?,
        lanes,
        width: op.width as u32,
        hash_groups: op.groups as u32,
        buckets: op.buckets() as u32,
        normalise: op.normalise.into(),
        table_base: table.base,
        grads_base: grads.base,
        codes_base: codes.binding.base,
    };
    let offsets = targets.offsets(gpu, operation, "targets")?;
    let bindings = [&offsets, table, &codes.binding, grads];
    gpu.dispatch(operation, &bucket_kernel(codes.bits), &params, &bindings, groups)
}

pub(super) fn encode<T: Element, G: Element>(
    gpu: &Wgpu,
    op: &Sdim,
    histories: &WgpuJagged,
    inputs: &SdimEncodeInputs<'_, WgpuMemory, T>,
    (grad_table, mut grad_history): (View<'_, WgpuMemory, f32>, ViewMut<'_, WgpuMemory, G>),
) -> Result<()> {
    const NAME: &str = "sdim_encode_backward";
    let jagged = histories.as_ref();
    op.check_encode(NAME, jagged, inputs)?;
    op.check_grad_history(NAME, jagged, grad_history.len())?;
    op.check_grad_table(NAME, jagged.users(), grad_table.len())?;
    check_gathered(NAME, op)?;
    histories.check_owner(gpu, NAME, "histories")?;
    if jagged.total() == 0 {
        return Ok(());
    }
    gpu.check_device(NAME, "grad_history", &Region::of_mut(&grad_history))?;
    // Kernels index its numbers with 32 bits.
    fit(NAME, "grad_table", grad_table.len())?;
    let grads = gpu.bind(NAME, "grad_table", &Region::of(grad_table))?;
    let (name, count) = (("history", Some(inputs.history)), jagged.total());
    let codes = Codes::new(gpu, NAME, op, count, name, &inputs.hash)?;
    let mut read = vec![&grads.buffer];
    read.extend(given(&inputs.hash));
    let weights = inputs.weights.map(Region::of);
    read.extend(weights.map(|weights| weights.buffer));
    let weights = weights.map(|weights| gpu.bind(NAME, "weights", &weights)).transpose()?;
    let codes = &codes;
    let behaviours =
        Behaviours { gpu, operation: NAME, op, histories, codes, weights: weights.as_ref(), read: &read };
    clear_gaps(gpu, NAME, op, jagged, &mut grad_history)?;
    behaviours.gather(&grads, &mut grad_history)
}

/// Behaviours that are nobody's have gradients of zero.
fn clear_gaps<G: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    histories: &Jagged,
    grad_history: &mut ViewMut<'_, WgpuMemory, G>,
) -> Result<()> {
    let mut grads = Some(grad_history.reborrow());
    gpu.clear_rows(operation, "grad_history", &mut grads, &histories.gaps(), op.width)
}

/// What the parts of a call of `attend_backward` share.
struct Attend<'a, T: Element> {
    gpu: &'a Wgpu,
    op: &'a Sdim,
    history: Region<'a, T>,
    grad_out: Region<'a, T>,
    codes: &'a Codes,
    target_codes: &'a Codes,
    /// The caller's buffers that are read while gradients are written.
    read: &'a [&'a wgpu::Buffer],
}

const ATTEND: &str = "sdim_attend_backward";

pub(super) fn attend<T: Element, G: Element>(
    gpu: &Wgpu,
    op: &Sdim,
    batch: &WgpuBatch,
    inputs: &SdimAttendInputs<'_, WgpuMemory, T>,
    (grad_out, mut grad_history): (View<'_, WgpuMemory, T>, ViewMut<'_, WgpuMemory, G>),
) -> Result<()> {
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    op.check_attend(ATTEND, batch.as_ref(), inputs)?;
    op.check_grad_out(ATTEND, targets, grad_out.len())?;
    op.check_grad_history(ATTEND, histories, grad_history.len())?;
    check_gathered(ATTEND, op)?;
    batch.check_owner(gpu, ATTEND)?;
    gpu.check_device(ATTEND, "grad_history", &Region::of_mut(&grad_history))?;
    let (history, grad_out) = (Region::of(inputs.history), Region::of(grad_out));
    gpu.check_device(ATTEND, "history", &history)?;
    gpu.check_device(ATTEND, "grad_out", &grad_out)?;
    let [codes, target_codes] = [
        Signatures::new(gpu, op, histories.total(), ("history", Some(inputs.history)), inputs.history_hash)?,
        Signatures::new(gpu, op, targets.total(), ("targets", inputs.targets), inputs.target_hash)?,
    ];
    let most = PART_BYTES.min(gpu.limits().max_storage_buffer_binding_size as usize / 2);
    let cut = AttendCut::new(op, batch.as_ref(), most, [codes.bytes(op), target_codes.bytes(op)]);
    let parts = batch.user_parts(&cut)?;
    clear_gaps(gpu, ATTEND, op, histories, &mut grad_history)?;
    let read: Vec<&wgpu::Buffer> =
        [&inputs.history_hash, &inputs.target_hash].into_iter().flat_map(given).collect();
    parts.iter().try_for_each(|part| {
        gpu.part(|| {
            let (first, rows) = (part.first_behaviour, part.batch.as_ref().histories().total());
            let (first_target, candidates) = (part.first_candidate, part.batch.as_ref().targets().total());
            let grads = grad_history.reborrow().slice(first * op.width, rows * op.width)?;
            let attend = Attend {
                gpu,
                op,
                history: history.rows(first, rows, op.width),
                grad_out: grad_out.rows(first_target, candidates, op.width),
                codes: &codes.of(gpu, op, (first, rows))?,
                target_codes: &target_codes.of(gpu, op, (first_target, candidates))?,
                read: &read,
            };
            match cut.by_tables {
                true => attend.through_tables(part, grads),
                false => attend.through_candidates(part, grads),
            }
        })
    })?;
    codes.finish(gpu, op)?;
    target_codes.finish(gpu, op)
}

/// The signatures of all rows of a side.
enum Signatures<'a, T: Element> {
    /// Given, and checked.
    Given(Codes),
    /// Computed for the rows of a part at a time.
    Hashed { name: &'static str, rows: Option<View<'a, WgpuMemory, T>>, hash: Hash<'a, WgpuMemory> },
    /// Gathered for the rows of a part at a time.
    Items(Items<'a>),
}

impl<'a, T: Element> Signatures<'a, T> {
    fn new(
        gpu: &Wgpu,
        op: &Sdim,
        count: usize,
        (name, rows): (&'static str, Option<View<'a, WgpuMemory, T>>),
        hash: Hash<'a, WgpuMemory>,
    ) -> Result<Self> {
        match hash {
            Hash::Rotations(_) => Ok(Self::Hashed { name, rows, hash }),
            Hash::Items8 { signatures, ids } => {
                Ok(Self::Items(Items::new(gpu, ATTEND, op, count, (signatures, ids))?))
            }
            Hash::Items16 { signatures, ids } => {
                Ok(Self::Items(Items::new(gpu, ATTEND, op, count, (signatures, ids))?))
            }
            given => Ok(Self::Given(Codes::new(gpu, ATTEND, op, count, (name, rows), &given)?)),
        }
    }

    /// The scratch memory for those of a row.
    fn bytes(&self, op: &Sdim) -> usize {
        match self {
            Self::Given(_) => 0,
            Self::Hashed { .. } | Self::Items(_) => op.groups.saturating_mul(size_of::<u32>()),
        }
    }

    /// Those of so many rows from the first on.
    fn of(&self, gpu: &Wgpu, op: &Sdim, (first, count): (usize, usize)) -> Result<Codes> {
        match self {
            Self::Given(codes) => Ok(codes.rows_from(op, first)),
            Self::Hashed { name, rows, hash } => {
                let own = |rows: &View<'a, WgpuMemory, T>| rows.slice(first * op.width, count * op.width);
                let rows = rows.as_ref().map(own).transpose()?;
                Codes::new(gpu, ATTEND, op, count, (*name, rows), hash)
            }
            Self::Items(items) => Ok(Codes { binding: items.gather(gpu, op, (first, count))?, bits: 32 }),
        }
    }

    /// After all parts.
    fn finish(self, gpu: &Wgpu, op: &Sdim) -> Result<()> {
        match self {
            Self::Items(items) => items.finish(gpu, op),
            Self::Given(_) | Self::Hashed { .. } => Ok(()),
        }
    }
}

impl<T: Element> Attend<'_, T> {
    fn behaviours<'a>(&'a self, histories: &'a WgpuJagged) -> Behaviours<'a> {
        let Self { gpu, op, codes, read, .. } = *self;
        Behaviours { gpu, operation: ATTEND, op, histories, codes, weights: None, read }
    }

    /// Fills the tables of the users, computes their gradients, and gathers these.
    fn through_tables<G: Element>(
        &self,
        part: &UserPart,
        mut grad_history: ViewMut<'_, WgpuMemory, G>,
    ) -> Result<()> {
        let Self { gpu, op, .. } = *self;
        let [histories, targets] = part.batch.sides()?;
        let length = op.table_length(histories.as_ref().users())? as u64;
        let (table, grads) = (gpu.scratch(ATTEND, length)?, gpu.scratch(ATTEND, length)?);
        if op.normalise {
            let rows = ("history", self.history, None);
            add_up(gpu, ATTEND, op, histories, rows, self.codes, (&table, Change::Encode))?;
        }
        let candidates = (self.grad_out, self.target_codes);
        bucket_gradients(gpu, ATTEND, op, targets, candidates, (&table, &grads))?;
        self.behaviours(histories).gather(&grads, &mut grad_history)
    }

    /// Computes the gradient of each bucket row that a candidate reads, and adds these up.
    fn through_candidates<G: Element>(
        &self,
        part: &UserPart,
        mut grad_history: ViewMut<'_, WgpuMemory, G>,
    ) -> Result<()> {
        let Self { gpu, op, .. } = *self;
        let [histories, targets] = part.batch.sides()?;
        let codes = [self.codes, self.target_codes];
        let sums = sum_buckets(gpu, ATTEND, op, &part.batch, self.history, codes)?.binding;
        let grad_out = gpu.bind(ATTEND, "grad_out", &self.grad_out)?;
        let rows = targets.as_ref().total() * op.groups;
        let (lanes, groups) = lanes_and_groups(op, rows);
        let params = SdimTargetGradientsParams {
            rows: fit(ATTEND, "sums of the candidates", rows)?,
            lanes,
            width: op.width as u32,
            hash_groups: op.groups as u32,
            normalise: op.normalise.into(),
            grad_out_base: grad_out.base,
        };
        let kernel = target_kernel(Format::of::<T>(false));
        gpu.dispatch(ATTEND, &kernel, &params, &[&grad_out, &sums], groups)?;
        self.behaviours(histories).add_matches((targets, self.target_codes), &sums, &mut grad_history)
    }
}
