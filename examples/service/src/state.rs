//! The state on the device: of each user with a slot, the newest behaviours and the SDIM table of the whole history.
//!
//! Everything here belongs to one thread. What a slot holds is a function of the user's events in their order, not of how they were
//! grouped into requests, loads or snapshots: tables take one behaviour of a user per call.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use longseq::prelude::*;
use longseq::{AnyBackend, Buffer, Hash, Jagged, Lookup, Sdim, UserSlots};
use longseq::{Bags, LookupInputs, SdimEncodeInputs, SdimQueryInputs, Table, TableData};
use longseq::{TargetAttention, TargetAttentionInputs};

use crate::Outcome;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::snapshot;
use crate::store::{Snapshot, Store, Written};

/// The longest history that one call reads. `Cpu` cuts none that is as short, so that an answer does not depend on the batch that it
/// was computed in: where a history is cut depends on the batch.
pub(crate) const LONGEST: usize = 2048;

/// What a slot needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Users with a slot.
    pub(crate) slots: usize,
    /// The newest behaviours that are kept of each.
    pub(crate) kept: usize,
}

/// A user with a slot.
struct Resident {
    /// Events in the slot.
    events: u64,
    /// When the user was last active, by a clock that counts.
    active: u64,
    /// Since when the table has events that no snapshot has.
    unsaved: Option<Instant>,
}

/// The state, with the store that it comes from.
pub(crate) struct State {
    backend: AnyBackend,
    model: Arc<Model>,
    fingerprint: u32,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    sizes: Sizes,
    attention: TargetAttention,
    sdim: Sdim,
    slots: UserSlots,
    users: HashMap<u64, Resident>,
    /// Users by when they were last active.
    order: BTreeMap<u64, u64>,
    clock: u64,
    /// Whether snapshots are read.
    snapshots: bool,
    /// `[items, d]`.
    embeddings: Buffer<AnyBackend, f32>,
    /// `[items, G]`: SDIM's signatures of items.
    signatures: Buffer<AnyBackend, u8>,
    /// `[rows, d]`: the kept behaviours of all slots.
    history: Buffer<AnyBackend, f32>,
    /// `[slots, G, 2^τ, d]`. That of slot 0 stays zeros: users without events read it.
    tables: Buffer<AnyBackend, f32>,
    zeros: Vec<f32>,
}

/// The behaviours that are written at a time.
const SPARE: usize = 56;

impl State {
    /// State without users.
    pub(crate) fn new(
        backend: AnyBackend,
        (model, store, metrics): (Arc<Model>, Arc<Store>, Arc<Metrics>),
        sizes: Sizes,
        snapshots: bool,
    ) -> Outcome<Self> {
        let (sdim, width) = (model.arrays.sdim(), model.arrays.width);
        let slots = UserSlots::new(sizes.slots, sizes.kept, SPARE)?;
        Ok(Self {
            attention: TargetAttention::new(width),
            fingerprint: model.arrays.fingerprint(),
            embeddings: backend.upload(&model.arrays.embeddings)?,
            signatures: backend.upload(&model.arrays.signatures)?,
            history: backend.zeros(slots.rows() * width)?,
            tables: backend.zeros(sdim.table_length(slots.slots())?)?,
            zeros: vec![0.0; sdim.table_length(1)?],
            users: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            sdim,
            slots,
            backend,
            model,
            store,
            metrics,
            sizes,
            snapshots,
        })
    }

    /// The device, for people to read.
    pub(crate) fn device(&self) -> String {
        self.backend.device()
    }

    /// Reads back the users who were active last, as many as there are slots.
    pub(crate) fn load_latest(&mut self) -> Outcome<()> {
        for user in self.store.latest_users(self.sizes.slots)? {
            self.ensure(user)?;
        }
        Ok(())
    }

    /// Marks a user as active, and reads the user's state back if there is none here. Users without events get no slot.
    ///
    /// # Errors
    /// Those of the store and of the device. The user has no slot then.
    pub(crate) fn ensure(&mut self, user: u64) -> Outcome<()> {
        if !self.users.contains_key(&user) {
            let events = self.store.count(user)?;
            if events == 0 {
                return Ok(());
            }
            if self.slots.users() == self.sizes.slots
                && let Some((_, &oldest)) = self.order.first_key_value()
            {
                self.forget(oldest);
                self.metrics.evictions.fetch_add(1, Relaxed);
            }
            let loaded = self.load(user);
            if loaded.is_err() {
                self.forget(user);
            }
            loaded?;
        }
        self.touch(user);
        Ok(())
    }

    fn touch(&mut self, user: u64) {
        if let Some(resident) = self.users.get_mut(&user) {
            self.order.remove(&resident.active);
            self.clock += 1;
            resident.active = self.clock;
            self.order.insert(self.clock, user);
        }
        self.metrics.users.store(self.users.len() as u64, Relaxed);
    }

    /// Gives up a user's slot. The events stay in the store.
    pub(crate) fn forget(&mut self, user: u64) {
        self.slots.evict(&[user]);
        if let Some(resident) = self.users.remove(&user) {
            self.order.remove(&resident.active);
        }
    }

    /// Fills a slot: the table from its snapshot and the events after it, the rest from the newest events.
    fn load(&mut self, user: u64) -> Outcome<()> {
        let (saved, table) = self.saved_table(user)?;
        let recent = self.store.count(user)?.saturating_sub(self.sizes.kept as u64);
        let first = saved.min(recent);
        let items: Vec<u32> = self.store.events(user, first)?.into_iter().map(|(item, _)| item).collect();
        if let Some(&item) = items.iter().find(|&&item| item as usize >= self.model.items.len()) {
            return Err(format!("user {user} has an event of item {item}, which there is none of").into());
        }
        let events = first + items.len() as u64;
        let from = |number: u64| &items[(number - first) as usize..];
        self.keep(user, from(events.saturating_sub(self.sizes.kept as u64)))?;
        let slot = self.slots.slot(user);
        let length = self.zeros.len();
        let view = self.backend.view_mut(&mut self.tables).slice(slot as usize * length, length)?;
        self.backend.upload_into(view, table.as_ref().unwrap_or(&self.zeros))?;
        for &item in from(saved) {
            self.append_tables(&[(slot, item)])?;
        }
        self.backend.synchronize()?;
        let unsaved = (events > saved).then(Instant::now);
        self.users.insert(user, Resident { events, active: 0, unsaved });
        self.metrics.loads.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The table of a user's snapshot and how many events it holds; none where there is no snapshot, or one that is refused.
    fn saved_table(&self, user: u64) -> Outcome<(u64, Option<Vec<f32>>)> {
        let bytes = if self.snapshots { self.store.snapshot(user)? } else { None };
        let Some(bytes) = bytes else { return Ok((0, None)) };
        match snapshot::decode(&self.model.arrays, self.fingerprint, &bytes) {
            Ok((events, table)) if events <= self.store.count(user)? => {
                self.metrics.snapshots_read.fetch_add(1, Relaxed);
                Ok((events, Some(table)))
            }
            refused => {
                let why = refused.err().map_or("it has more events than the log".into(), |e| e.to_string());
                eprintln!("snapshot of user {user}: {why}; the table is built from the log");
                self.metrics.snapshots_refused.fetch_add(1, Relaxed);
                Ok((0, None))
            }
        }
    }

    /// Adds events that are on disk to the slots of their users.
    ///
    /// A user whose state cannot be changed loses the slot, and is read back from the log later.
    pub(crate) fn apply(&mut self, events: &[Written]) {
        let mut users: BTreeMap<u64, Vec<Written>> = BTreeMap::new();
        for &event in events {
            users.entry(event.user).or_default().push(event);
        }
        // As many users at a time as have slots: one that is read back has these events already.
        let users: Vec<_> = users.into_iter().collect();
        for users in users.chunks(self.sizes.slots) {
            if let Err(error) = self.apply_users(users) {
                eprintln!("new events: {error}; their users are read back from the log");
                users.iter().for_each(|(user, _)| self.forget(*user));
            }
        }
    }

    fn apply_users(&mut self, users: &[(u64, Vec<Written>)]) -> Outcome<()> {
        let mut new: Vec<(u64, Vec<u32>)> = Vec::new();
        for (user, events) in users {
            self.ensure(*user)?;
            let known = self.users.get(user).map_or(0, |resident| resident.events);
            let items: Vec<u32> =
                events.iter().filter(|event| event.number >= known).map(|event| event.item).collect();
            if !items.is_empty() {
                new.push((*user, items));
            }
        }
        for (user, items) in &new {
            self.keep(*user, &items[items.len().saturating_sub(self.sizes.kept)..])?;
        }
        let longest = new.iter().map(|(_, items)| items.len()).max().unwrap_or(0);
        for round in 0..longest {
            let of = |(user, items): &(u64, Vec<u32>)| Some((self.slots.slot(*user), *items.get(round)?));
            let rows: Vec<(u32, u32)> = new.iter().filter_map(of).collect();
            self.append_tables(&rows)?;
        }
        self.backend.synchronize()?;
        for (user, items) in &new {
            if let Some(resident) = self.users.get_mut(user) {
                resident.events += items.len() as u64;
                resident.unsaved.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    /// Appends the embeddings of items to a user's newest behaviours.
    fn keep(&mut self, user: u64, items: &[u32]) -> longseq::Result<()> {
        let width = self.model.arrays.width;
        for items in items.chunks(SPARE) {
            let rows = self.rows(&self.backend.upload(items)?)?;
            let append = self.slots.append(&[user], &Jagged::from_lengths(&[items.len()])?)?;
            for step in append.copies() {
                let source = self.backend.view(&rows).slice(step.from * width, step.rows * width)?;
                let to =
                    self.backend.view_mut(&mut self.history).slice(step.to * width, step.rows * width)?;
                self.backend.copy(source, to)?;
            }
            self.slots.commit(append)?;
        }
        Ok(())
    }

    /// Adds one item each to the tables of different slots.
    fn append_tables(&mut self, rows: &[(u32, u32)]) -> longseq::Result<()> {
        let (slots, items): (Vec<u32>, Vec<u32>) = rows.iter().copied().unzip();
        let new = Jagged::from_lengths(&vec![1; items.len()])?.with_slots(&slots, self.slots.slots())?;
        let new = self.backend.jagged(&new)?;
        let ids = self.backend.upload(&items)?;
        let rows = self.rows(&ids)?;
        let signatures = self.backend.view(&self.signatures);
        let hash = Hash::Items8 { signatures, ids: self.backend.view(&ids) };
        let inputs = SdimEncodeInputs::new(self.backend.view(&rows), hash);
        self.backend.sdim_append(&self.sdim, &new, inputs, self.backend.view_mut(&mut self.tables))
    }

    /// The embeddings `[n, d]` of items.
    fn rows(&self, ids: &Buffer<AnyBackend, u32>) -> longseq::Result<Buffer<AnyBackend, f32>> {
        let (count, data) = (self.model.items.len(), TableData::F32(self.backend.view(&self.embeddings)));
        let tables = [Table::new(count, self.model.arrays.width, data)];
        let inputs = LookupInputs::new(self.backend.view(ids), &tables);
        Ok(self.backend.lookup(&Lookup::default(), Bags::Each, inputs)?.0)
    }

    /// Scores of each request's candidates, for users that have been [`ensured`](Self::ensure). Each operation is called once.
    ///
    /// ```text
    /// score = ⟨e, a⟩ / d + ⟨e, s⟩ / √d
    /// ```
    ///
    /// with the candidate's embedding `e` (of length `√d`), what target attention makes of the newest behaviours, `a` (a weighted mean
    /// of embeddings), and SDIM's interest `s` (a mean of rows of length 1): both terms are within -1 and 1, but for rounding.
    pub(crate) fn rank(&self, requests: &[(u64, &[u32])]) -> longseq::Result<Vec<Vec<f32>>> {
        let backend = &self.backend;
        let users: Vec<u64> = requests.iter().map(|request| request.0).collect();
        let lengths: Vec<usize> = requests.iter().map(|request| request.1.len()).collect();
        let targets = Jagged::from_lengths(&lengths)?;
        let items: Vec<u32> = requests.iter().flat_map(|request| request.1).copied().collect();
        let ids = backend.upload(&items)?;
        let candidates = self.rows(&ids)?;

        let histories = self.slots.histories(&users, self.sizes.kept)?;
        let batch = backend.batch(&histories, &targets)?;
        let inputs = TargetAttentionInputs::new(backend.view(&candidates), backend.view(&self.history));
        let attended = backend.target_attention(&self.attention, &batch, inputs)?;

        let slots = backend.upload(&users.iter().map(|&user| self.slots.slot(user)).collect::<Vec<u32>>())?;
        let (signatures, ids) = (backend.view(&self.signatures), backend.view(&ids));
        let hash = Hash::Items8 { signatures, ids };
        let inputs = SdimQueryInputs::new(backend.view(&self.tables), hash).with_users(backend.view(&slots));
        let interests = backend.sdim_query::<f32>(&self.sdim, &backend.jagged(&targets)?, inputs)?;

        let attended = backend.download(backend.view(&attended))?;
        let interests = backend.download(backend.view(&interests))?;
        let width = self.model.arrays.width;
        let score = |m: usize| {
            let row = self.model.row(items[m]);
            let dot = |other: &[f32]| -> f64 {
                let other = &other[m * width..(m + 1) * width];
                row.iter().zip(other).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            (dot(&attended) / width as f64 + dot(&interests) / (width as f64).sqrt()) as f32
        };
        Ok(targets.ranges().map(|range| range.map(score).collect()).collect())
    }

    /// Snapshots of up to `most` users whose tables have changed for so long.
    pub(crate) fn unsaved(&mut self, most: usize, age: Duration) -> Outcome<Vec<Snapshot>> {
        let is_old = |resident: &Resident| resident.unsaved.is_some_and(|since| since.elapsed() >= age);
        let old = self.users.iter().filter(|(_, resident)| is_old(resident));
        let users: Vec<u64> = old.map(|(&user, _)| user).take(most).collect();
        users.into_iter().map(|user| self.save(user)).collect()
    }

    /// The snapshot of a user with a slot.
    fn save(&mut self, user: u64) -> Outcome<Snapshot> {
        let length = self.zeros.len();
        let view = self.backend.view(&self.tables).slice(self.slots.slot(user) as usize * length, length)?;
        let table = self.backend.download(view)?;
        let resident = self.users.get_mut(&user).ok_or("a user without a slot")?;
        let bytes = snapshot::encode(&self.model.arrays, self.fingerprint, resident.events, &table)?;
        resident.unsaved = None;
        Ok(Snapshot { user, bytes })
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
