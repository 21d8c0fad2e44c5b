//! Faults of look-ups, their gradients, and optimisers.

use longseq::*;

use super::{Fault, Mutant, clamped};

impl LookupOps for Mutant {
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Jagged>,
        inputs: LookupInputs<'_, Host>,
        outputs: LookupOutputs<'_, Host>,
    ) -> Result<()> {
        let mut inputs = inputs;
        let ids = clamped(&inputs.ids, inputs.tables);
        if self.is(Fault::IdsClamped) {
            inputs.ids = Host::view(&ids);
        }
        let weights = self.weights(&inputs);
        inputs.weights = weights.as_ref().map(|weights| Host::view(weights));
        let op = &self.counting(op);
        match bags {
            Bags::Mean(bags) if self.is(Fault::LongBagsCut) => {
                let cut: Vec<usize> = bags.ranges().map(|rows| rows.len().min(65_535)).collect();
                let cut = Jagged::from_lengths(&cut)?;
                let cut = Jagged::new(cut.offsets().unwrap_or_default(), bags.rows())?;
                Cpu::new().lookup_into(op, Bags::Mean(&cut), inputs, outputs)
            }
            Bags::Mean(bags) if self.is(Fault::MeanIsSum) => {
                Cpu::new().lookup_into(op, Bags::Sum(bags), inputs, outputs)
            }
            bags => Cpu::new().lookup_into(op, bags, inputs, outputs),
        }
    }

    fn sort_ids_into(&self, column: IdColumn<'_, Host>, mut out: SortedIdsMut<'_, Host>) -> Result<()> {
        let (ids, starts) = (out.ids.reborrow(), out.starts.reborrow());
        let written = SortedIdsMut::new(ids, starts, out.positions.reborrow(), out.count.reborrow());
        Cpu::new().sort_ids_into(column, written)?;
        let count = out.count[0] as usize;
        if self.is(Fault::SortUnstable) {
            for pair in out.starts[..=count].windows(2) {
                out.positions[pair[0] as usize..pair[1] as usize].reverse();
            }
        }
        Ok(())
    }

    fn lookup_backward_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Jagged>,
        inputs: LookupInputs<'_, Host>,
        _: LookupSaved<'_, Host>,
        grad_out: LookupGradOut<'_, Host>,
        grads: LookupGradients<'_, Host>,
    ) -> Result<()> {
        let mut inputs = inputs;
        let ids = clamped(&inputs.ids, inputs.tables);
        if self.is(Fault::IdsClamped) {
            inputs.ids = Host::view(&ids);
        }
        let weights = self.weights(&inputs);
        inputs.weights = weights.as_ref().map(|weights| Host::view(weights));
        let op = &self.counting(op);
        let bags = match bags {
            Bags::Mean(bags) if self.is(Fault::MeanIsSum) => Bags::Sum(bags),
            bags => bags,
        };
        let features = inputs.tables.len();
        let used = match &bags {
            Bags::Sum(bags) | Bags::Mean(bags) => bags.total() * features,
            _ => inputs.ids.len(),
        };
        let mut sorted = Vec::new();
        for (feature, table) in inputs.tables.iter().enumerate() {
            let column = IdColumn::new(inputs.ids.slice(0, used)?, features, feature, table.rows);
            let whole = Cpu::new().sort_ids(column.with_policy(IdPolicy::Zero))?;
            sorted.push(self.shortened(&whole));
        }
        let sorted: Vec<SortedIds<'_, Host>> = sorted.iter().map(|sorted| sorted.sorted()).collect();
        let saved = LookupSaved::new().with_sorted(&sorted);
        Cpu::new().lookup_backward_into(op, bags, inputs, saved, grad_out, grads)
    }

    fn update_rows<T: Element>(
        &self,
        op: &Optimiser,
        table: TableMut<'_, Host, T>,
        state: OptimiserState<'_, Host>,
        gradient: SparseGradient<'_, Host>,
    ) -> Result<()> {
        let (mut op, mut state, mut table) = (*op, state, table);
        if let (OptimiserMethod::Adam { step, .. }, true) =
            (&mut op.method, self.is(Fault::BiasCorrectionLeftOut))
        {
            *step = u64::MAX;
        }
        if self.is(Fault::AllRowsDecay) {
            let kept = 1.0 - op.rate * op.weight_decay;
            table.data.iter_mut().for_each(|w| *w = T::from_f32(kept * w.to_f32()));
            op.weight_decay = 0.0;
        }
        if self.is(Fault::StateIgnored) {
            let width = table.width;
            let ids = &gradient.ids[..gradient.count[0] as usize];
            let clear = |state: &mut ViewMut<'_, Host, f32>, width: usize| {
                let rows = ids.iter().map(|&id| id as usize * width..(id as usize + 1) * width);
                rows.for_each(|row| state[row].fill(0.0));
            };
            match &mut state {
                OptimiserState::Sums(sums) => {
                    let width = sums.len() / table.rows;
                    clear(sums, width);
                }
                OptimiserState::Moments { first, second } => {
                    clear(first, width);
                    clear(second, width);
                }
                _ => {}
            }
        }
        Cpu::new().update_rows(&op, table, state, gradient)
    }
}

impl Mutant {
    /// The weights of ids, as the fault sees them.
    fn weights(&self, inputs: &LookupInputs<'_, Host>) -> Option<Vec<f32>> {
        let mut weights = inputs.weights.as_ref()?.as_slice().to_vec();
        match self.0 {
            Fault::WeightsIgnored => weights.fill(1.0),
            Fault::WeightOfNeighbour if !weights.is_empty() => weights.rotate_left(1),
            _ => {}
        }
        Some(weights)
    }

    /// The look-up, with skipped ids counted if that is the fault.
    fn counting(&self, op: &Lookup) -> Lookup {
        match op.ids {
            IdPolicy::Skip if self.is(Fault::SkippedCounted) => op.with_ids(IdPolicy::Zero),
            _ => *op,
        }
    }

    /// Ids in order of which the fault has left out some.
    fn shortened(&self, whole: &SortedIdsBuffers<Host>) -> SortedIdsBuffers<Host> {
        let count = whole.count[0] as usize;
        let mut starts = vec![0];
        let mut positions = Vec::new();
        for pair in whole.starts[..=count].windows(2) {
            let run = &whole.positions[pair[0] as usize..pair[1] as usize];
            let kept = match self.0 {
                Fault::DuplicatesOverwritten => &run[run.len() - 1..],
                Fault::NewestPartialTaken if run.len() > 512 => &run[run.len() - 256..],
                Fault::LastOfRunDropped if run.len() > 1 => &run[..run.len() - 1],
                _ => run,
            };
            positions.extend_from_slice(kept);
            starts.push(positions.len() as u32);
        }
        let ids = whole.ids[..count].to_vec();
        SortedIdsBuffers::new(ids.into(), starts.into(), positions.into(), vec![count as u32].into())
    }
}
