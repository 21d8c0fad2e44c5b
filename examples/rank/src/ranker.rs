//! The methods as a ranking service would call them: item ids in, one interest vector per candidate or per user out.

use longseq::prelude::*;

use longseq::{
    Activation, AggregateInputs, Bags, Buffer, Decoupled, Din, DinInputs, DinLayer, DinPooling, Hash, Jagged,
    Lookup, LookupInputs, Sdim, SdimEncodeInputs, SdimQueryInputs, Search, SearchInputs, SelectionBuffers,
    Table, TableData, TargetAttention, TargetAttentionInputs,
};

use crate::Outcome;
use crate::embeddings::Tables;
use crate::method::{Method, RECENT};
use crate::protocol::Batch;
use crate::report::count;
use crate::trained::{Model, Network, Tower};

/// A model on its device: the embedding tables and the parameters of the operations.
pub(crate) struct Ranker<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) tables: &'a Tables,
    pub(crate) attention: TargetAttention,
    pub(crate) din: Din,
    pub(crate) sdim: Sdim,
    pub(crate) decoupled: Decoupled,
    /// DIN's network, if there is one.
    pub(crate) network: Option<&'a Network>,
    /// How many of the newest behaviours it was trained with, if it was.
    newest: Option<usize>,
    /// Scores candidates with their interests; dot products do if there is none.
    tower: Option<&'a Tower>,
    full: Buffer<B, f32>,
    /// The items' queries of target attention, if they are not the embeddings.
    queries: Option<Buffer<B, f32>>,
    narrow: Buffer<B, f32>,
    pub(crate) rotations: Vec<f32>,
    device_rotations: Buffer<B, f32>,
    device_network: Option<DeviceNetwork<B>>,
}

/// DIN's network on the device: weight, bias, alpha, the output's weight and bias.
struct DeviceNetwork<B: Backend>([Buffer<B, f32>; 5]);

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
    /// Uploads the embedding tables and draws SDIM's rotations.
    pub(crate) fn new(backend: &'a B, tables: &'a Tables, top_k: usize, seed: u64) -> Outcome<Self> {
        Self::with(backend, tables, top_k, Sdim::new(tables.width).rotations(seed)?)
    }

    /// Uploads a trained model for histories of up to `longest` behaviours, all of which its search keeps, as far as searches can.
    pub(crate) fn trained(backend: &'a B, model: &'a Model, longest: usize) -> Outcome<Self> {
        let top_k = longest.clamp(1, Search::MAX_TOP_K);
        let rotations = match &model.rotations {
            Some(rotations) => rotations.clone(),
            None => Sdim::new(model.tables.width).rotations(0)?,
        };
        let mut ranker = Self::with(backend, &model.tables, top_k, rotations)?;
        ranker.newest = Some(model.newest);
        ranker.tower = Some(&model.tower);
        ranker.network = model.network.as_ref();
        if let Some(Network { weight, bias, alpha, output_weight, output_bias }) = &model.network {
            let [weight, bias, alpha] = [weight, bias, alpha].map(|numbers| backend.upload(numbers));
            let [output_weight, output_bias] =
                [output_weight, output_bias].map(|numbers| backend.upload(numbers));
            ranker.device_network =
                Some(DeviceNetwork([weight?, bias?, alpha?, output_weight?, output_bias?]));
        }
        Ok(ranker)
    }

    fn with(backend: &'a B, tables: &'a Tables, top_k: usize, rotations: Vec<f32>) -> Outcome<Self> {
        let scale = (1.0 / (tables.attention_width.max(1) as f64).sqrt()) as f32;
        Ok(Self {
            backend,
            tables,
            attention: TargetAttention::new(tables.width),
            din: Din::new(tables.width).with_pooling(DinPooling::Softmax),
            sdim: Sdim::new(tables.width),
            decoupled: Decoupled::new([scale]).with_top_k(Some(top_k)),
            network: None,
            newest: None,
            tower: None,
            full: backend.upload(&tables.full)?,
            queries: tables.queries.as_ref().map(|queries| backend.upload(queries)).transpose()?,
            narrow: backend.upload(&tables.attention)?,
            device_rotations: backend.upload(&rotations)?,
            rotations,
            device_network: None,
        })
    }

    /// Name of a method in the report.
    pub(crate) fn name(&self, method: Method) -> String {
        let history = self.newest.map_or("full history".into(), |newest| format!("last {}", count(newest)));
        match method {
            Method::LastMean => format!("mean of the last {RECENT}"),
            Method::TargetAttention => format!("target attention, {history}"),
            Method::Din => format!("DIN, {history}"),
            Method::Sdim => "SDIM, prebuilt bucket table".into(),
            Method::Decoupled => format!("decoupled search + aggregation, top {}", self.top_k()),
        }
    }

    pub(crate) fn top_k(&self) -> usize {
        self.decoupled.top_k.unwrap_or(0)
    }

    /// Scores `[M]`, from ids: the tower's, or else the dot product of the interest with the candidate's embedding, for every method.
    /// `tables` are the bucket tables of the users of `batch`; only SDIM reads them.
    pub(crate) fn scores(&self, method: Method, batch: &Batch, tables: &Buffer<B, f32>) -> Outcome<Vec<f32>> {
        let interests = self.interests(method, batch, tables)?;
        let width = self.tables.width;
        let mut scores = Vec::with_capacity(batch.candidates.len());
        for (user, candidates) in batch.targets.ranges().enumerate() {
            for candidate in candidates {
                let row = if interests.per_candidate { candidate } else { user };
                let interest = &interests.rows[row * width..(row + 1) * width];
                let item = batch.candidates[candidate];
                let target = self.tables.row(item);
                scores.push(match self.tower {
                    Some(tower) => tower.score(item, target, interest),
                    None => interest.iter().zip(target).map(|(a, b)| a * b).sum(),
                });
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
                self.lookup(&self.full, &ids, Bags::Mean(&bags))?
            }
            Method::TargetAttention => {
                let queries =
                    self.lookup(self.queries.as_ref().unwrap_or(&self.full), &batch.candidates, Bags::Each)?;
                let keys = self.rows(&batch.history)?;
                let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys));
                let prepared = backend.batch(&batch.histories, &batch.targets)?;
                backend.target_attention(&self.attention, &prepared, inputs)?
            }
            Method::Din => self.din(batch)?,
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

    fn din(&self, batch: &Batch) -> Outcome<Buffer<B, f32>> {
        let backend = self.backend;
        let Some(DeviceNetwork(network)) = &self.device_network else {
            return Err("DIN needs a trained network".into());
        };
        let [weight, bias, alpha, output_weight, output_bias] =
            network.each_ref().map(|numbers| backend.view(numbers));
        let (targets, history) = (self.rows(&batch.candidates)?, self.rows(&batch.history)?);
        let hidden = [DinLayer::new(weight, bias, Activation::Prelu { alpha })];
        let (targets, history) = (backend.view(&targets), backend.view(&history));
        let inputs = DinInputs::new(targets, history, &hidden, output_weight, output_bias);
        Ok(backend.din(&self.din, &backend.batch(&batch.histories, &batch.targets)?, inputs)?)
    }

    /// Search and aggregation as two separate calls, as when two services run them.
    pub(crate) fn search_and_aggregate(&self, batch: &Batch) -> Outcome<Found<B>> {
        let backend = self.backend;
        let prepared = backend.batch(&batch.histories, &batch.targets)?;
        let (ids, target_ids) = (backend.upload(&batch.history)?, backend.upload(&batch.candidates)?);
        let (ids, target_ids) = (backend.view(&ids), backend.view(&target_ids));
        let attention = [self.table(&self.narrow, self.tables.attention_width)];
        let representation = [self.table(&self.full, self.tables.width)];
        let search = SearchInputs::new(&attention, ids, target_ids);
        let kept = backend.decoupled_search(&self.decoupled, &prepared, search)?;
        let inputs = AggregateInputs::new(&representation, ids, target_ids);
        let interests = backend.decoupled_aggregate(&self.decoupled, &prepared, inputs, kept.selection())?;
        Ok(Found { kept, interests })
    }

    /// SDIM's bucket tables where one of the methods reads them, else nothing.
    pub(crate) fn tables_for(&self, methods: &[Method], batch: &Batch) -> Outcome<Buffer<B, f32>> {
        if methods.contains(&Method::Sdim) {
            self.bucket_tables(batch)
        } else {
            Ok(self.backend.upload(&[])?)
        }
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
        self.lookup(&self.full, ids, Bags::Each)
    }

    fn lookup(
        &self,
        table: &Buffer<B, f32>,
        ids: &[u32],
        bags: Bags<'_, B::Jagged>,
    ) -> Outcome<Buffer<B, f32>> {
        let ids = self.backend.upload(ids)?;
        let tables = [self.table(table, self.tables.width)];
        let inputs = LookupInputs::new(self.backend.view(&ids), &tables);
        Ok(self.backend.lookup(&Lookup::default(), bags, inputs)?.0)
    }

    fn table<'t>(&self, data: &'t Buffer<B, f32>, width: usize) -> Table<'t, B::Memory> {
        Table::new(self.tables.items, width, TableData::F32(self.backend.view(data)))
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
