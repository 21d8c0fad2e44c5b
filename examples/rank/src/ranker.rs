//! The methods as a ranking service would call them: item ids in, one interest vector per candidate or per user out.

use longseq::prelude::*;

use longseq::{
    AggregateInputs, Bags, Buffer, Decoupled, Hash, Jagged, Lookup, LookupInputs, Sdim, SdimEncodeInputs,
    SdimQueryInputs, SearchInputs, SelectionBuffers, Table, TableData, TargetAttention,
    TargetAttentionInputs,
};

use crate::Outcome;
use crate::embeddings::Embeddings;
use crate::protocol::Batch;

/// The methods compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The mean of the last few behaviours.
    LastMean,
    /// Softmax attention of each candidate over the whole history.
    TargetAttention,
    /// A look-up in prebuilt bucket tables.
    Sdim,
    /// Top-K search by attention embeddings, then aggregation of representation embeddings.
    Decoupled,
}

/// Number of behaviours that [`Method::LastMean`] averages.
pub(crate) const RECENT: usize = 20;

impl Method {
    pub(crate) const ALL: [Self; 4] = [Self::LastMean, Self::TargetAttention, Self::Sdim, Self::Decoupled];
}

/// The model on its device: the embedding tables and the parameters of the operations.
pub(crate) struct Ranker<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) embeddings: &'a Embeddings,
    pub(crate) attention: TargetAttention,
    pub(crate) sdim: Sdim,
    pub(crate) decoupled: Decoupled,
    full: Buffer<B, f32>,
    narrow: Buffer<B, f32>,
    pub(crate) rotations: Vec<f32>,
    device_rotations: Buffer<B, f32>,
}

/// The result of a decoupled search and aggregation.
pub(crate) struct Found<B: Backend> {
    pub(crate) kept: SelectionBuffers<B::Memory>,
    /// `[M, d]`.
    pub(crate) interests: Buffer<B, f32>,
}

/// The interest vectors of a method.
pub(crate) struct Interests {
    /// Row-major, `d` columns.
    pub(crate) rows: Vec<f32>,
    /// Whether there is one row per candidate, `[M, d]`, or one per user, `[B, d]`.
    pub(crate) per_candidate: bool,
}

impl<'a, B: Backend> Ranker<'a, B> {
    /// Uploads the embedding tables and SDIM's rotations.
    pub(crate) fn new(backend: &'a B, embeddings: &'a Embeddings, top_k: usize, seed: u64) -> Outcome<Self> {
        let sdim = Sdim::new(embeddings.width);
        let rotations = sdim.rotations(seed)?;
        let scale = (1.0 / (embeddings.attention_width as f64).sqrt()) as f32;
        Ok(Self {
            backend,
            embeddings,
            attention: TargetAttention::new(embeddings.width),
            sdim,
            decoupled: Decoupled::new([scale]).with_top_k(Some(top_k)),
            full: backend.upload(&embeddings.full)?,
            narrow: backend.upload(&embeddings.attention)?,
            device_rotations: backend.upload(&rotations)?,
            rotations,
        })
    }

    /// Name of a method in the report.
    pub(crate) fn name(&self, method: Method) -> String {
        match method {
            Method::LastMean => format!("mean of the last {RECENT}"),
            Method::TargetAttention => "target attention, full history".into(),
            Method::Sdim => "SDIM, prebuilt bucket table".into(),
            Method::Decoupled => format!("decoupled search + aggregation, top {}", self.top_k()),
        }
    }

    pub(crate) fn top_k(&self) -> usize {
        self.decoupled.top_k.unwrap_or(0)
    }

    /// Scores `[M]`, from ids: the dot product of the interest with the candidate's embedding, for every method.
    /// `tables` are the bucket tables of the users of `batch`; only SDIM reads them.
    pub(crate) fn scores(&self, method: Method, batch: &Batch, tables: &Buffer<B, f32>) -> Outcome<Vec<f32>> {
        let interests = self.interests(method, batch, tables)?;
        let width = self.embeddings.width;
        let mut scores = Vec::with_capacity(batch.candidates.len());
        for (user, candidates) in batch.targets.ranges().enumerate() {
            for candidate in candidates {
                let row = if interests.per_candidate { candidate } else { user };
                let interest = &interests.rows[row * width..(row + 1) * width];
                let item = self.embeddings.row(batch.candidates[candidate]);
                scores.push(interest.iter().zip(item).map(|(a, b)| a * b).sum());
            }
        }
        Ok(scores)
    }

    /// Interest vectors, from ids.
    pub(crate) fn interests(
        &self,
        method: Method,
        batch: &Batch,
        tables: &Buffer<B, f32>,
    ) -> Outcome<Interests> {
        let backend = self.backend;
        let out = match method {
            Method::LastMean => {
                let (ids, bags) = recent(batch)?;
                let bags = backend.jagged(&bags)?;
                self.lookup(&ids, Bags::Mean(&bags))?
            }
            Method::TargetAttention => {
                let queries = self.rows(&batch.candidates)?;
                let keys = self.rows(&batch.history)?;
                let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys));
                let prepared = backend.batch(&batch.histories, &batch.targets)?;
                backend.target_attention(&self.attention, &prepared, inputs)?
            }
            Method::Sdim => {
                let targets = self.rows(&batch.candidates)?;
                let hash = Hash::Rotations(backend.view(&self.device_rotations));
                let inputs =
                    SdimQueryInputs::new(backend.view(tables), hash).with_targets(backend.view(&targets));
                backend.sdim_query(&self.sdim, &backend.jagged(&batch.targets)?, inputs)?
            }
            Method::Decoupled => self.search_and_aggregate(batch)?.interests,
        };
        let rows = backend.download(backend.view(&out))?;
        Ok(Interests { rows, per_candidate: method != Method::LastMean })
    }

    /// Search and aggregation as two separate calls, as when two services run them.
    pub(crate) fn search_and_aggregate(&self, batch: &Batch) -> Outcome<Found<B>> {
        let backend = self.backend;
        let prepared = backend.batch(&batch.histories, &batch.targets)?;
        let (ids, target_ids) = (backend.upload(&batch.history)?, backend.upload(&batch.candidates)?);
        let (ids, target_ids) = (backend.view(&ids), backend.view(&target_ids));
        let attention = [self.table(&self.narrow, self.embeddings.attention_width)];
        let representation = [self.table(&self.full, self.embeddings.width)];
        let search = SearchInputs::new(&attention, ids, target_ids);
        let kept = backend.decoupled_search(&self.decoupled, &prepared, search)?;
        let inputs = AggregateInputs::new(&representation, ids, target_ids);
        let interests = backend.decoupled_aggregate(&self.decoupled, &prepared, inputs, kept.selection())?;
        Ok(Found { kept, interests })
    }

    /// SDIM's bucket tables `[B, G, 2^τ, d]`, which a behaviour-sequence service builds ahead of requests.
    pub(crate) fn bucket_tables(&self, batch: &Batch) -> Outcome<Buffer<B, f32>> {
        let rows = self.rows(&batch.history)?;
        let histories = self.backend.jagged(&batch.histories)?;
        let hash = Hash::Rotations(self.backend.view(&self.device_rotations));
        let tables = self.backend.sdim_encode(
            &self.sdim,
            &histories,
            SdimEncodeInputs::new(self.backend.view(&rows), hash),
        )?;
        self.backend.synchronize()?;
        Ok(tables)
    }

    /// The SDIM signatures of `items`, computed on the device.
    pub(crate) fn signatures(&self, items: &[u32]) -> Outcome<Vec<u8>> {
        let rows = self.rows(items)?;
        let rotations = self.backend.view(&self.device_rotations);
        let mut out = self.backend.zeros(items.len() * self.sdim.groups)?;
        let view = self.backend.view_mut::<u8>(&mut out);
        self.backend.sdim_signatures_into(&self.sdim, self.backend.view(&rows), rotations, view)?;
        Ok(self.backend.download(self.backend.view(&out))?)
    }

    /// The embedding rows of `ids`.
    fn rows(&self, ids: &[u32]) -> Outcome<Buffer<B, f32>> {
        self.lookup(ids, Bags::Each)
    }

    fn lookup(&self, ids: &[u32], bags: Bags<'_, B::Jagged>) -> Outcome<Buffer<B, f32>> {
        let ids = self.backend.upload(ids)?;
        let tables = [self.table(&self.full, self.embeddings.width)];
        let inputs = LookupInputs::new(self.backend.view(&ids), &tables);
        Ok(self.backend.lookup(&Lookup::default(), bags, inputs)?.0)
    }

    fn table<'t>(&self, data: &'t Buffer<B, f32>, width: usize) -> Table<'t, B::Memory> {
        Table::new(self.embeddings.items, width, TableData::F32(self.backend.view(data)))
    }
}

/// Ids and bags of the last [`RECENT`] behaviours of each user.
pub(crate) fn recent(batch: &Batch) -> Outcome<(Vec<u32>, Jagged)> {
    let ranges =
        batch.histories.ranges().map(|range| range.start.max(range.end.saturating_sub(RECENT))..range.end);
    let lengths: Vec<usize> = ranges.clone().map(|range| range.len()).collect();
    let ids = ranges.flat_map(|range| &batch.history[range]).copied().collect();
    Ok((ids, Jagged::from_lengths(&lengths)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Request;

    #[test]
    fn the_mean_is_over_the_last_behaviours_of_each_user() {
        let request =
            |history: std::ops::Range<u32>| Request { history: history.collect(), candidates: vec![0] };
        let batch = Batch::new(&[request(0..25), request(30..33)]).unwrap();
        let (ids, bags) = recent(&batch).unwrap();
        assert_eq!(ids, (5..25).chain(30..33).collect::<Vec<u32>>());
        assert_eq!(bags.offsets(), Some(&[0, 20, 23][..]));
    }
}
