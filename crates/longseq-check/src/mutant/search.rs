//! Wrong searches.

use longseq::*;

use super::{Fault, Mutant, removed_if_low};

impl Mutant {
    /// Signs with bits in reverse, where that is the fault.
    fn wrong_bits(&self, words: &[u32]) -> Vec<u32> {
        words
            .iter()
            .map(|word| if self.is(Fault::BitsReversed) { word.reverse_bits() } else { *word })
            .collect()
    }
}

impl SearchOps for Mutant {
    fn search_into(
        &self,
        op: &Search,
        batch: &Batch,
        inputs: SimilarityInputs<'_, Host>,
        out: SelectionMut<'_, Host>,
    ) -> Result<()> {
        let (mut op, mut inputs) = (*op, inputs);
        if self.is(Fault::ScaleDropped) && matches!(op.score, SearchScore::Dot { .. }) {
            op = op.with_scale(1.0);
        }
        if self.is(Fault::PastBitsCounted) && op.score == SearchScore::Hamming {
            op.width = op.words() * 32;
        }
        if self.is(Fault::BiasIgnored) {
            inputs.bias = None;
        }
        let bias: Vec<f32> = inputs.bias.iter().flat_map(|bias| bias.iter()).map(removed_if_low).collect();
        if self.is(Fault::LowScoresRemoved) {
            inputs.bias = Some(Host::view(&bias));
        }
        let no_offsets = vec![0.0; batch.histories().rows()];
        if let (SearchRows::Int8 { offset, .. }, true) = (&mut inputs.keys, self.is(Fault::OffsetsIgnored)) {
            *offset = Host::view(&no_offsets);
        }
        let keys: Vec<i8> = match &inputs.keys {
            // A row of ones where there should be none.
            SearchRows::Codes(codes) => codes
                .chunks(op.width)
                .flat_map(
                    |row| if row.iter().all(|&code| code == 0) { vec![1; row.len()] } else { row.to_vec() },
                )
                .collect(),
            _ => Vec::new(),
        };
        if self.is(Fault::ZerosKept) && op.score == SearchScore::Cosine && !keys.is_empty() {
            inputs.keys = SearchRows::Codes(Host::view(&keys));
        }
        let SelectionMut { mut positions, mut scores, mut counts, .. } = out;
        let kept = SelectionMut::new(positions.reborrow(), scores.reborrow(), counts.reborrow());
        Cpu::new().search_into(&op, batch, inputs, kept)?;
        if self.is(Fault::QueryNotNormalised) {
            scores.iter_mut().for_each(|score| *score *= 2.0);
        }
        let used = batch.targets().total();
        self.spoil_selection(op.top_k, used, (&mut positions[..], &mut scores[..], &mut counts[..]));
        Ok(())
    }

    fn pack_signs_into<T: Element>(
        &self,
        op: &Signs,
        rows: View<'_, Host, T>,
        rotations: View<'_, Host, f32>,
        out: ViewMut<'_, Host, u32>,
    ) -> Result<()> {
        let mut out = out;
        Cpu::new().pack_signs_into(op, rows, rotations, out.reborrow())?;
        let wrong = self.wrong_bits(&out);
        out.copy_from_slice(&wrong);
        Ok(())
    }
}
