//! The memory of a call of DIN's backward pass, and its launches.

use std::cell::Cell;
use std::ops::Range;

use crate::cuda::batch::DinLists;
use crate::cuda::call::Call;
use crate::cuda::din::kernels::{
    BEHAVIOURS, CANDIDATES, CLEAR, COLUMNS, DinBackwardLayer, DinBackwardParams, FIRST, FOLD, HISTORY, OUTER,
    PAIRS, ROWS_PER_SUM, RUN_STATES, STATES, SUMS, TARGETS, THREADS, WRITE,
};
use crate::cuda::din::layout::Places;
use crate::cuda::din::outputs::Out;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::{CudaMemory, Region};
use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::gpu::{DinLayout, DinPart, DinWanted, activation_code, fit};
use crate::ops::{Activation, Din, DinInputs, DinPooling};

/// What to compute of the pairs, as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The scores and the gradients of the weights.
    Scores,
    /// Everything from the last layer down to the first that has a gradient.
    Gradients,
    /// The statistics of this layer.
    Statistics(usize),
}

/// How sums are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    /// Rows of so many numbers, from rows of so many.
    Rows { width: usize, stride: usize },
    /// The weight of the first layer, `[h, 4·width]`, from three matrices of so many numbers in rows of so many.
    First { width: usize, stride: usize, matrix: usize },
    /// The sum of so many numbers.
    One(usize),
}

/// The rows of a call.
pub(super) struct Rows<T: Element> {
    history: Region<T>,
    targets: Region<T>,
    grad_out: Option<Region<T>>,
}

/// What the launches of a call share.
pub(super) struct Job<'a, T: Element> {
    pub(super) call: Call<'a>,
    pub(super) layout: &'a DinLayout,
    places: &'a Places,
    wanted: DinWanted,
    rows: Rows<T>,
    pub(super) params: DinBackwardParams,
    /// The gradients of the network, of the latest parts and of all before.
    recent: u64,
    pub(super) totals: u64,
    pub(super) between: u64,
    /// The candidates and the behaviours that are prepared.
    prepared: [Cell<(usize, usize)>; 2],
}

/// The layers of a network, as kernels take them, with their addresses.
fn network<T: Element>(
    gpu: &Cuda,
    operation: &'static str,
    (layout, places): (&DinLayout, &Places),
    inputs: &DinInputs<'_, CudaMemory, T>,
) -> Result<DinBackwardParams> {
    // Kernels count numbers in 32 bits.
    fit(operation, "weights", places.network.saturating_mul(4))?;
    fit(operation, "width", places.block.max(places.scratch).saturating_mul(4))?;
    let mut params = DinBackwardParams {
        output_weight: gpu.region(operation, &inputs.output_weight)?.pointer,
        output_bias: gpu.region(operation, &inputs.output_bias)?.pointer,
        layer_count: layout.units.len() as u32,
        width: fit(operation, "width", layout.width)?,
        width4: layout.width4 as u32,
        first_weights: places.first_weights as u32,
        difference: places.difference as u32,
        difference_back: places.difference_back as u32,
        tile: places.tile as u32,
        scratch_size: places.scratch as u32,
        inputs_place: places.inputs as u32,
        others_place: places.others as u32,
        block: places.block as u32,
        block_parts: places.block_parts as u32,
        block_turned: places.block_turned as u32,
        block_terms: places.block_terms as u32,
        tile_sums_stride: layout.tile_sums as u32,
        output_sums: layout.output_sums as u32,
        output_bias_place: places.output_bias as u32,
        candidate: layout.candidate as u32,
        ..Default::default()
    };
    for (i, layer) in inputs.hidden.iter().enumerate() {
        let vector = |view| Ok::<u64, crate::error::Error>(gpu.region::<f32>(operation, &view)?.pointer);
        params.weights[i] = gpu.region(operation, &layer.weight)?.pointer;
        params.biases[i] = vector(layer.bias)?;
        let mut alpha_shared = 0;
        match layer.activation {
            Activation::Relu | Activation::Sigmoid => {}
            Activation::Prelu { alpha } => {
                params.alphas[i] = vector(alpha)?;
                alpha_shared = u32::from(alpha.len() == 1);
            }
            Activation::Dice { gain, shift, alpha } => {
                params.gains[i] = vector(gain)?;
                params.shifts[i] = vector(shift)?;
                params.alphas[i] = vector(alpha)?;
            }
        }
        let own = &places.layers[i];
        params.layers[i] = DinBackwardLayer {
            units: layout.units[i] as u32,
            units4: layout.units4[i] as u32,
            activation: activation_code(&layer.activation),
            alpha_shared,
            vectors: own.vectors as u32,
            sums: layout.sums[i] as u32,
            forward: own.forward as u32,
            back: own.back as u32,
            before: own.before as u32,
            grads: own.grads as u32,
            inputs: own.inputs as u32,
        };
    }
    Ok(params)
}

impl<'a, T: Element> Job<'a, T> {
    /// Takes the memory of a call, and lays out the network.
    pub(super) fn new(
        gpu: &'a Cuda,
        operation: &'static str,
        (op, layout, places, lists): (&Din, &'a DinLayout, &'a Places, &DinLists),
        (inputs, grad_out): (&DinInputs<'_, CudaMemory, T>, Option<Region<T>>),
        wanted: DinWanted,
    ) -> Result<Self> {
        let network = network(gpu, operation, (layout, places), inputs)?;
        let rows = Rows {
            history: gpu.region(operation, &inputs.history)?,
            targets: gpu.region(operation, &inputs.targets)?,
            grad_out,
        };
        let plan = &lists.parts;
        let mut call = gpu.begin(operation);
        let mut scratch = |numbers: usize| call.scratch(numbers.saturating_mul(size_of::<f32>()));
        let (tiles, runs) = (plan.most(|part| part.tiles), plan.most(|part| part.runs));
        let candidates = plan.most(|part| part.targets.len());
        let softmax = rows.grad_out.is_some() && op.pooling == DinPooling::Softmax;
        let all = plan.parts.last().map_or(0, |part| part.targets.end);
        let target_parts = runs * layout.outer_groups(0)[0] * layout.width4 * 4;
        let carried = if plan.parts.iter().any(|part| !part.last) {
            plan.most(|part| if part.last { 0 } else { part.rows.len() }) * layout.width
        } else {
            0
        };
        let params = DinBackwardParams {
            network: scratch(4 * places.network)?,
            states: scratch(if softmax { all.saturating_mul(4) } else { 0 })?,
            pieces: lists.pieces.pointer(),
            users: lists.users.pointer(),
            candidates: scratch(candidates * layout.candidate * 4)?,
            blocks: scratch(plan.most(|part| part.blocks) * places.block * 4)?,
            work: scratch(tiles * places.tile * 4)?,
            scratch: if places.fits { 0 } else { scratch(tiles * places.scratch * 4)? },
            pair_numbers: scratch(tiles * 32)?,
            tile_sums: scratch(tiles * layout.tile_sums * 4)?,
            run_states: scratch(if softmax { runs * 4 } else { 0 })?,
            target_parts: scratch(if wanted.targets { target_parts } else { 0 })?,
            weight_parts: scratch(layout.part_numbers(&wanted, plan))?,
            carried: scratch(if wanted.history { carried } else { 0 })?,
            softmax: u32::from(op.pooling == DinPooling::Softmax),
            deepest: wanted.deepest as u32,
            wants_targets: wanted.targets.into(),
            ..network
        };
        let between = scratch(tiles.div_ceil(ROWS_PER_SUM) * 4 * layout.tile_sums)?;
        let (recent, totals) = (scratch(layout.total_numbers())?, scratch(layout.total_numbers())?);
        let job = Self {
            call,
            layout,
            places,
            wanted,
            rows,
            params,
            recent,
            totals,
            between,
            prepared: Default::default(),
        };
        for layer in 0..layout.units.len() {
            let threads = 16 * layout.units4[layer] * layout.inputs4(layer);
            job.launch(FOLD.of::<T>(), threads, DinBackwardParams { layer: layer as u32, ..job.params })?;
        }
        job.clear(recent, layout.total_numbers())?;
        job.clear(totals, layout.total_numbers())?;
        Ok(job)
    }

    /// Sets rows of a gradient to zero.
    pub(super) fn clear_rows<G: Scalar>(&self, rows: &[Range<usize>], out: Region<G>, width: usize) {
        self.call.clear_rows(rows, out, width);
    }

    /// Enqueues everything.
    pub(super) fn finish(&self) -> Result<()> {
        self.call.finish()
    }

    /// Adds the recent sums to those of all.
    pub(super) fn take_recent(&self) -> Result<()> {
        let numbers = self.layout.total_numbers();
        let (from, to, stride) = (self.recent, self.totals, (numbers / 4) as u32);
        let params = DinBackwardParams { from, to, rows: 1, stride, adds: 1, ..self.params };
        self.launch(&SUMS, numbers / 4, params)?;
        self.clear(self.recent, numbers)
    }

    /// Takes memory for the gradients of all candidates, and sets them to zero.
    pub(super) fn target_totals(&mut self, candidates: usize) -> Result<u64> {
        let numbers = candidates.saturating_mul(self.layout.width);
        self.params.target_totals = self.call.scratch(numbers.saturating_mul(size_of::<f32>()))?;
        self.clear(self.params.target_totals, numbers)?;
        Ok(self.params.target_totals)
    }

    fn clear(&self, to: u64, numbers: usize) -> Result<()> {
        self.launch(&CLEAR, numbers, DinBackwardParams { to, ..self.params })
    }

    /// Enqueues a kernel that has a thread for each element.
    pub(super) fn launch(&self, kernel: &Kernel, threads: usize, params: DinBackwardParams) -> Result<()> {
        let blocks = threads.div_ceil(THREADS as usize);
        self.call.launch(&kernel.blocks(blocks), &DinBackwardParams { threads: threads as u64, ..params })
    }

    /// The parameters for a part, whose candidates and behaviours are prepared.
    pub(super) fn part(&self, part: &DinPart) -> Result<DinBackwardParams> {
        let from = |rows: Region<T>, first: usize| {
            rows.pointer + (first * self.layout.width * size_of::<T>()) as u64
        };
        let list = |pointer: u64, first: usize, bytes: usize| pointer + (first * bytes) as u64;
        let (rows, first) = (&self.rows, part.targets.start);
        let params = DinBackwardParams {
            pieces: list(self.params.pieces, part.pieces.start, 32),
            users: list(self.params.users, part.users.start, 16),
            piece_count: part.pieces.len() as u32,
            user_count: part.users.len() as u32,
            history: from(rows.history, part.rows.start),
            targets: from(rows.targets, first),
            grad_out: rows.grad_out.map_or(0, |rows| from(rows, first)),
            states: list(self.params.states, first, 16),
            target_totals: list(self.params.target_totals, first * self.layout.width, 4),
            ..self.params
        };
        // Neither is empty where there are tiles.
        let prepares = |index: usize, range: &Range<usize>| {
            let range = (range.start, range.end);
            part.tiles > 0 && self.prepared[index].replace(range) != range
        };
        if prepares(0, &part.targets) {
            self.launch(CANDIDATES.of::<T>(), part.targets.len() * self.layout.candidate, params)?;
        }
        if prepares(1, &part.rows) {
            self.call.launch(&BEHAVIOURS.of::<T>().blocks(part.blocks), &params)?;
        }
        Ok(params)
    }

    /// Computes the pairs of a part.
    pub(super) fn pairs(&self, part: &DinPart, params: DinBackwardParams, mode: Mode) -> Result<()> {
        let (mode, layer) = match mode {
            Mode::Scores => (0, 0),
            Mode::Gradients => (1, 0),
            Mode::Statistics(layer) => (2, layer as u32),
        };
        let params = DinBackwardParams { mode, layer, ..params };
        let launch = PAIRS.of::<T>().blocks(part.tiles).with_shared(self.places.shared);
        self.call.launch(&launch, &params)
    }

    /// Adds the scores of a part to the softmax states of its candidates.
    pub(super) fn states(&self, part: &DinPart, params: DinBackwardParams) -> Result<()> {
        self.launch(&RUN_STATES, part.runs, params)?;
        self.launch(&STATES, part.targets.len(), params)
    }

    /// Adds the gradients of the network over a part to those of all, and the part to the gradients of its candidates.
    pub(super) fn sums(&self, part: &DinPart, params: DinBackwardParams) -> Result<()> {
        let layout = self.layout;
        if self.wanted.vectors {
            self.add_up((params.tile_sums, part.tiles), layout.tile_sums, 0, params)?;
        }
        for layer in (0..layout.units.len()).filter(|&layer| self.wanted.sums(layer)) {
            self.weight(part, layer, params)?;
        }
        if !self.wanted.targets {
            return Ok(());
        }
        let params = DinBackwardParams { unit_groups: layout.outer_groups(0)[0] as u32, ..params };
        self.launch(&TARGETS, part.targets.len() * layout.width, params)
    }

    fn weight(&self, part: &DinPart, layer: usize, params: DinBackwardParams) -> Result<()> {
        let layout = self.layout;
        let (items, kernel) = if layer == 0 { (part.runs, &FIRST) } else { (part.tiles, &OUTER) };
        let kernel = kernel.of::<T>();
        let (splits, per_split) = layout.splits(layer, part);
        let [unit_groups, input_groups] = layout.outer_groups(layer);
        let params = DinBackwardParams {
            layer: layer as u32,
            items: items as u32,
            per_split: per_split as u32,
            unit_groups: unit_groups as u32,
            input_groups: input_groups as u32,
            ..params
        };
        self.call.launch(&kernel.blocks(splits * unit_groups * input_groups), &params)?;
        if !self.wanted.weights[layer] {
            return Ok(());
        }
        let width4 = layout.weight_numbers(layer) / 4;
        self.add_up((params.weight_parts, splits), width4, layout.first_weight(layer), params)
    }

    /// Adds rows of `width4` float4s to the sums of all, from the number `first` on.
    fn add_up(
        &self,
        (from, rows): (u64, usize),
        width4: usize,
        first: usize,
        params: DinBackwardParams,
    ) -> Result<()> {
        let run = |from: u64, rows: usize, to: u64, adds: u32| {
            let (rows, stride) = (rows as u32, width4 as u32);
            let threads = (rows as usize).div_ceil(ROWS_PER_SUM) * width4;
            self.launch(&SUMS, threads, DinBackwardParams { from, to, rows, stride, adds, ..params })
        };
        let to = self.recent + (first * size_of::<f32>()) as u64;
        if rows <= ROWS_PER_SUM {
            return run(from, rows, to, 1);
        }
        run(from, rows, self.between, 0)?;
        run(self.between, rows.div_ceil(ROWS_PER_SUM), to, 1)
    }

    /// Writes the gradients of the behaviours of a part, or leaves them to the part with the user's next candidates.
    pub(super) fn history(&self, part: &DinPart, params: DinBackwardParams, out: Out) -> Result<()> {
        let column_groups = self.layout.width.div_ceil(COLUMNS);
        let size = if out.narrow { size_of::<T>() } else { size_of::<f32>() };
        let params = DinBackwardParams {
            to: out.pointer + (part.rows.start * self.layout.width * size) as u64,
            narrow: out.narrow.into(),
            adds: u32::from(!part.first),
            keeps: u32::from(!part.last),
            input_groups: column_groups as u32,
            ..params
        };
        self.call.launch(&HISTORY.of::<T>().blocks(part.blocks * column_groups), &params)
    }

    /// Writes a gradient, or statistics, from the sums at `from`.
    pub(super) fn write(&self, out: Option<Out>, from: u64, how: Write) -> Result<()> {
        let Some(out) = out else { return Ok(()) };
        let (mode, rows, stride, items) = match how {
            Write::Rows { width, stride } => (0, width, stride, 0),
            Write::First { width, stride, matrix } => (1, 4 * width, stride, matrix),
            Write::One(count) => (2, 1, 1, count),
        };
        let [rows, stride, items] = [rows, stride, items].map(|number| number as u32);
        let (to, narrow) = (out.pointer, out.narrow.into());
        let params = DinBackwardParams { from, to, mode, rows, stride, items, narrow, ..self.params };
        self.launch(WRITE.of::<T>(), out.length, params)
    }
}
