//! A sample as longseq reads it, jagged, and as candle's own operations need it, padded.

use candle_core::{Device, Result, Tensor};
use longseq::{Bags, Lookup};
use longseq_candle::{Batch, JaggedRows, Longseq, LookupTensors, TableTensor};

use crate::samples::Sample;
use crate::table::Table;

/// Ids as a tensor.
fn ids(ids: &[u32]) -> Result<Tensor> {
    Tensor::from_slice(ids, ids.len(), &Device::Cpu)
}

/// Where rows of these numbers end.
fn offsets(lengths: &[usize]) -> Vec<usize> {
    let mut end = 0;
    let ends = lengths.iter().map(|&length| {
        end += length;
        end
    });
    std::iter::once(0).chain(ends).collect()
}

/// Rows of a table, `[ids, width]`.
pub(crate) fn rows(longseq: &Longseq, table: &Table, ids: &Tensor) -> Result<Tensor> {
    let tables = [TableTensor::from(table.sparse())];
    longseq.lookup(&Lookup::default(), Bags::Each, LookupTensors::new(ids, &tables))
}

/// A sample for longseq.
pub(crate) struct Inputs<'a> {
    pub(crate) longseq: &'a Longseq,
    pub(crate) batch: Batch,
    pub(crate) items: &'a Table,
    /// `[N]`.
    pub(crate) history_ids: Tensor,
    /// `[M]`.
    pub(crate) target_ids: Tensor,
    /// `[M, d]`: the candidates' embeddings.
    pub(crate) targets: Tensor,
    /// `[M]`: the number of each candidate's user.
    pub(crate) users: Tensor,
    histories: JaggedRows,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(longseq: &'a Longseq, items: &'a Table, sample: &Sample) -> Result<Self> {
        let (histories, targets) = (offsets(&sample.lengths), offsets(&sample.counts));
        let target_ids = ids(&sample.targets)?;
        let of_user = |(user, &count): (usize, &usize)| std::iter::repeat_n(user as u32, count);
        let users: Vec<u32> = sample.counts.iter().enumerate().flat_map(of_user).collect();
        Ok(Self {
            longseq,
            batch: longseq.batch(&histories, &targets)?,
            items,
            history_ids: ids(&sample.history)?,
            targets: rows(longseq, items, &target_ids)?,
            target_ids,
            users: ids(&users)?,
            histories: longseq.jagged(&histories)?,
        })
    }

    /// The behaviours' embeddings, `[N, d]`.
    pub(crate) fn history(&self) -> Result<Tensor> {
        rows(self.longseq, self.items, &self.history_ids)
    }

    /// The means of each user's behaviours, `[B, d]`; no row of a behaviour is stored.
    pub(crate) fn means(&self) -> Result<Tensor> {
        let tables = [TableTensor::from(self.items.sparse())];
        let inputs = LookupTensors::new(&self.history_ids, &tables);
        self.longseq.lookup(&Lookup::default(), Bags::Mean(&self.histories), inputs)
    }
}

/// A sample for candle's own operations: each history as long as the longest, each user with as many candidates.
pub(crate) struct Padded<'a> {
    items: &'a Table,
    pub(crate) users: usize,
    pub(crate) longest: usize,
    pub(crate) real_lengths: &'a [usize],
    /// `[B·L]`: after the end of a history, item 0.
    pub(crate) history_ids: Tensor,
    /// `[B·C]`.
    pub(crate) target_ids: Tensor,
    /// `[B, C, d]`: the candidates' embeddings.
    pub(crate) targets: Tensor,
    /// `[B, 1, L]`: 0 where there is a behaviour, else a number that no softmax lets through.
    pub(crate) mask: Tensor,
    /// `[B, L, 1]`: 1 where there is a behaviour, else 0.
    pub(crate) real: Tensor,
    /// `[B, 1, 1]`: the lengths, at least 1.
    pub(crate) lengths: Tensor,
}

impl<'a> Padded<'a> {
    pub(crate) fn new(items: &'a Table, sample: &'a Sample) -> Result<Self> {
        let (users, candidates) = (sample.users(), sample.counts.first().copied().unwrap_or(0));
        if sample.counts.iter().any(|&count| count != candidates) {
            candle_core::bail!("padded batches need the same number of candidates for each user");
        }
        let longest = sample.lengths.iter().copied().max().unwrap_or(0).max(1);
        let (mut padded, mut real, mut start) = (Vec::with_capacity(users * longest), Vec::new(), 0);
        for &length in &sample.lengths {
            padded.extend(&sample.history[start..start + length]);
            padded.extend(std::iter::repeat_n(0, longest - length));
            real.extend((0..longest).map(|l| if l < length { 1f32 } else { 0.0 }));
            start += length;
        }
        let real = Tensor::from_vec(real, (users, longest, 1), &Device::Cpu)?;
        let mask = ((&real - 1.0)? * 1e9)?.reshape((users, 1, longest))?;
        let lengths: Vec<f32> = sample.lengths.iter().map(|&length| length.max(1) as f32).collect();
        let target_ids = ids(&sample.targets)?;
        let targets = items.values().index_select(&target_ids, 0)?;
        let targets = targets.reshape((users, candidates, items.values().dim(1)?))?;
        Ok(Self {
            items,
            users,
            longest,
            real_lengths: &sample.lengths,
            history_ids: ids(&padded)?,
            target_ids,
            targets,
            mask,
            real,
            lengths: Tensor::from_vec(lengths, (users, 1, 1), &Device::Cpu)?,
        })
    }

    /// Rows of a table for ids of each user, `[B, ids/B, width]`.
    pub(crate) fn rows(&self, table: &Table, ids: &Tensor) -> Result<Tensor> {
        let of_user = ids.elem_count() / self.users.max(1);
        table.values().index_select(ids, 0)?.reshape((self.users, of_user, table.values().dim(1)?))
    }

    /// `[B, L, 1]`: 1 for so many of each user's newest behaviours, else 0.
    pub(crate) fn newest(&self, count: usize) -> Result<Tensor> {
        let mut newest = Vec::with_capacity(self.users * self.longest);
        for &length in self.real_lengths {
            let old = length.saturating_sub(count);
            newest.extend((0..self.longest).map(|l| if (old..length).contains(&l) { 1f32 } else { 0.0 }));
        }
        Tensor::from_vec(newest, (self.users, self.longest, 1), &Device::Cpu)
    }

    /// The behaviours' embeddings, `[B, L, d]`.
    pub(crate) fn history(&self) -> Result<Tensor> {
        self.rows(self.items, &self.history_ids)
    }
}
