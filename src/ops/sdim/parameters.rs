//! Parameters, shape rules and costs of SDIM.

use crate::element::{Element, Signature};
use crate::error::{Error, Result};
use crate::host::reserve;
use crate::jagged::{Batch, Jagged};
use crate::memory::{Memory, View};
use crate::ops::sdim::inputs::{Hash, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};
use crate::ops::shape::{Dim, dim, elements, expect, product, size, sum};

/// Sampling-based deep interest modelling: random hash signatures, a table of bucket sums, and its gather.
///
/// With fixed rotations `R ∈ R^{d×G×τ}`:
///
/// ```text
/// bit[g,t](x) = 1 if ⟨x, R[:,g,t]⟩ > 0 else 0          a projection of exactly 0 gives 0
/// sig[g](x)   = Σ_t bit[g,t]·2^t
/// T[b,g,c,:]  = Σ_{l of user b, sig[g](s_l) = c} w_l·s_l        w_l = 1 without weights
/// out[m,:]    = (1/G) Σ_g normalise(T[b,g,sig[g](q_m),:])
/// ```
///
/// `normalise` divides a bucket row by its L2 length (at least 1e-12) *before* the mean, or does nothing. An empty history
/// gives a row of zeros. A bucket row may hold numbers of any size, though the square of its length exceeds `f32`; projections
/// and the sums of buckets must be within `f32`. A candidate that reads a bucket row with a NaN gets NaN in its
/// whole row if rows are normalised, and in that column only if they are not. The cost of a candidate does not grow with the history. The tables of two spans of a history add
/// up to the table of both. A table that is kept forgets by [`sdim_remove`](crate::SdimOps::sdim_remove) and
/// [`sdim_decay`](crate::SdimOps::sdim_decay).
///
/// Where tables of many users are kept, `[U, G, 2^τ, d]`, one call of encode, append or remove changes those of some:
/// [`Jagged::with_slots`] names the table of each history, and no other is read or written. What `sdim_encode` allocates has all `U` then,
/// the others zeros. Gradients and the table-free form take no slots; queries read kept tables by
/// [`SdimQueryInputs::with_users`]. On `Wgpu` all `U` tables fit one binding, and are copied to scratch memory and back where they are in one buffer with
/// an input.
///
/// Behaviours may have weights ([`SdimEncodeInputs::with_weights`]), of any sign and size: `w·s` is a product of `f32` and is added as
/// one, whatever the storage type. A weight of 0 does not remove a row that is not finite: `0·NaN` and `0·∞` are NaN.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs, SdimQueryInputs};
///
/// let op = Sdim::new(8); // 16 groups of 3 bits, as in the paper
/// let rotations = op.rotations(42)?; // draw once, store with the model
/// let hash = Hash::Rotations(Host::view(&rotations));
/// let backend = Cpu::new();
///
/// // The service that encodes behaviours, whenever the user did something:
/// let history: Vec<f32> = (0..1000 * 8).map(|i| (i as f32).sin()).collect();
/// let histories = backend.jagged(&Jagged::from_lengths(&[1000])?)?;
/// let table = backend.sdim_encode(&op, &histories, SdimEncodeInputs::new(Host::view(&history), hash))?; // [B, G, 2^τ, d]
///
/// // The ranker, whose cost does not depend on the 1000 behaviours:
/// let candidates = vec![1.0_f32; 20 * 8];
/// let targets = backend.jagged(&Jagged::from_lengths(&[20])?)?;
/// let query = SdimQueryInputs::new(Host::view(&table), hash).with_targets(Host::view(&candidates));
/// let interest = backend.sdim_query(&op, &targets, query)?; // [M, d]
/// assert_eq!(interest.len(), 20 * 8);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: Cao et al., "Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction",
/// CIKM 2022, arXiv 2205.10249, eq. 12; online `m = G·τ = 48`, `τ = 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sdim {
    /// `d`: width of a behaviour and of a candidate. Default 64.
    pub width: usize,
    /// `G`: the number of signatures per row. Default 16.
    pub groups: usize,
    /// `τ`: bits per signature, 1 to 16. Default 3.
    pub bits: usize,
    /// Whether to divide each bucket row by its L2 length before the mean. Default true, as in the paper.
    pub normalise: bool,
}

impl Default for Sdim {
    fn default() -> Self {
        Self { width: 64, groups: 16, bits: 3, normalise: true }
    }
}

impl Sdim {
    /// The largest number of bits of a signature.
    pub const MAX_BITS: usize = 16;
    /// The lower bound of the length that a bucket row is divided by.
    pub const MIN_NORM: f32 = 1e-12;

    /// The paper's 16 groups of 3 bits over rows of `width` elements, normalised.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Sets the number of signatures per row and their bits.
    pub fn with_groups(self, groups: usize, bits: usize) -> Self {
        Self { groups, bits, ..self }
    }

    /// Sets whether bucket rows are divided by their length.
    pub fn with_normalise(self, normalise: bool) -> Self {
        Self { normalise, ..self }
    }

    /// `2^τ`: the number of buckets per group; `usize::MAX` if it exceeds that, which no call accepts.
    pub fn buckets(&self) -> usize {
        let bits = u32::try_from(self.bits).unwrap_or(u32::MAX);
        1usize.checked_shl(bits).unwrap_or(usize::MAX)
    }

    /// `B·G·2^τ·d`: the number of elements of the tables of `users` users.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Unsupported`] for invalid parameters; [`Error::Limit`] if it exceeds the address
    /// space.
    pub fn table_length(&self, users: usize) -> Result<usize> {
        const NAME: &str = "sdim_encode";
        self.validate(NAME)?;
        elements(NAME, "table", &self.table_shape(users))
    }

    /// `M·d`: the number of elements of the output of `query` and `attend`.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length(&self, targets: &Jagged) -> Result<usize> {
        elements("sdim_query", "out", &[dim("M", targets.rows()), dim("d", self.width)])
    }

    /// Draws rotations `[d, G, τ]` from the standard normal distribution, reproducibly for a seed and shape. Store the
    /// rotations with the model, not the seed: they are computed with the platform's logarithm and cosine, which may
    /// differ in the last bit.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Unsupported`] for invalid parameters; [`Error::Limit`] if `d·G·τ` exceeds the
    /// address space; [`Error::OutOfMemory`].
    pub fn rotations(&self, seed: u64) -> Result<Vec<f32>> {
        const NAME: &str = "sdim_rotations";
        self.validate(NAME)?;
        let count = elements(NAME, "rotations", &self.rotation_shape())?;
        let mut rotations = reserve(NAME, count)?;
        let mut state = seed;
        rotations.extend((0..count).map(|_| standard_normal(&mut state)));
        Ok(rotations)
    }

    /// Checks the parameters alone.
    pub(crate) fn validate(&self, operation: &'static str) -> Result<()> {
        for (argument, size) in [("width", self.width), ("groups", self.groups), ("bits", self.bits)] {
            if size == 0 {
                let (expected, got) = ("at least 1".into(), "0".into());
                return Err(Error::Parameter { operation, argument, expected, got });
            }
        }
        if self.bits > Self::MAX_BITS {
            return Err(Error::Unsupported {
                operation,
                what: format!("a signature of {} bits", self.bits),
                supported: "1 to 16 bits".into(),
            });
        }
        Ok(())
    }

    pub(super) fn rotation_shape(&self) -> [Dim; 3] {
        [dim("d", self.width), dim("G", self.groups), dim("τ", self.bits)]
    }

    pub(super) fn table_shape(&self, users: usize) -> [Dim; 4] {
        [dim("B", users), dim("G", self.groups), dim("2^τ", self.buckets()), dim("d", self.width)]
    }

    fn check_hash<S: Memory>(&self, operation: &'static str, hash: &Hash<'_, S>, rows: Dim) -> Result<()> {
        let shape = [rows, dim("G", self.groups)];
        match hash {
            Hash::Rotations(rotations) => {
                expect(operation, "rotations", rotations.len(), &self.rotation_shape())?
            }
            Hash::Signatures8(given) => {
                self.check_word::<u8>(operation)?;
                expect(operation, "signatures", given.len(), &shape)?
            }
            Hash::Signatures16(given) => expect(operation, "signatures", given.len(), &shape)?,
            Hash::Items8 { signatures, ids } => self.check_items(operation, signatures, ids.len(), rows)?,
            Hash::Items16 { signatures, ids } => self.check_items(operation, signatures, ids.len(), rows)?,
        };
        Ok(())
    }

    fn check_items<S: Memory, W: Signature>(
        &self,
        operation: &'static str,
        signatures: &View<'_, S, W>,
        ids: usize,
        rows: Dim,
    ) -> Result<usize> {
        self.check_word::<W>(operation)?;
        let shape = [dim("items", signatures.len() / self.groups), dim("G", self.groups)];
        expect(operation, "signatures", signatures.len(), &shape)?;
        expect(operation, "ids", ids, &[rows])
    }

    fn check_word<W: Signature>(&self, operation: &'static str) -> Result<()> {
        if self.bits > W::BITS {
            return Err(Error::Unsupported {
                operation,
                what: format!("a signature of {} bits in a {}", self.bits, W::NAME),
                supported: "u8 up to 8 bits, u16 up to 16".into(),
            });
        }
        Ok(())
    }

    fn check_targets<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        targets: &Jagged,
        rows: &Option<View<'_, S, T>>,
        hash: &Hash<'_, S>,
    ) -> Result<()> {
        targets.check_offsets(operation, "targets")?;
        let m = dim("M", targets.rows());
        self.check_hash(operation, hash, m)?;
        match rows {
            Some(rows) => {
                expect(operation, "targets", rows.len(), &[m, dim("d", self.width)])?;
            }
            None if matches!(hash, Hash::Rotations(_)) => {
                let (expected, got) = ("the rows to hash with the rotations".into(), "none".into());
                return Err(Error::Shape { operation, argument: "targets", expected, got });
            }
            None => {}
        }
        Ok(())
    }

    /// Checks the inputs of `signatures` and returns the number of rows.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Unsupported`] and [`Error::Shape`].
    pub fn check_signatures(&self, rows: usize, rotations: usize) -> Result<usize> {
        const NAME: &str = "sdim_signatures";
        self.validate(NAME)?;
        let count = dim("rows", rows / self.width);
        expect(NAME, "rows", rows, &[count, dim("d", self.width)])?;
        expect(NAME, "rotations", rotations, &self.rotation_shape())?;
        Ok(rows / self.width)
    }

    /// Checks the output of `signatures` for `rows` rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not `[rows, G]`; [`Error::Unsupported`] if `τ` bits do not fit in a `W`.
    pub fn check_signatures_output<W: Signature>(&self, rows: usize, out: usize) -> Result<()> {
        const NAME: &str = "sdim_signatures";
        self.check_word::<W>(NAME)?;
        expect(NAME, "out", out, &[dim("rows", rows), dim("G", self.groups)])?;
        Ok(())
    }

    /// Checks the tables of `users` users, or of as many slots.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are not `[B, G, 2^τ, d]`.
    pub fn check_table(&self, operation: &'static str, users: usize, table: usize) -> Result<()> {
        expect(operation, "table", table, &self.table_shape(users))?;
        Ok(())
    }

    /// Checks the output of `query` or `attend` (named by `operation`).
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not `[M, d]`.
    pub fn check_output(&self, operation: &'static str, targets: &Jagged, out: usize) -> Result<()> {
        expect(operation, "out", out, &[dim("M", targets.rows()), dim("d", self.width)])?;
        Ok(())
    }

    /// Checks the inputs of `encode`, `append` or `remove` (named by `operation`).
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Unsupported`], [`Error::Shape`] and [`Error::Limit`].
    pub fn check_encode<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        histories: &Jagged,
        inputs: &SdimEncodeInputs<'_, S, T>,
    ) -> Result<()> {
        self.validate(operation)?;
        let n = dim("N", histories.rows());
        expect(operation, "history", inputs.history.len(), &[n, dim("d", self.width)])?;
        if let Some(weights) = &inputs.weights {
            expect(operation, "weights", weights.len(), &[n])?;
        }
        self.check_hash(operation, &inputs.hash, n)
    }

    /// Checks the inputs of `query` or of its backward pass (named by `operation`), which takes no `users`.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Unsupported`], [`Error::Shape`] and [`Error::Limit`].
    pub fn check_query<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        targets: &Jagged,
        inputs: &SdimQueryInputs<'_, S, T>,
    ) -> Result<()> {
        self.validate(operation)?;
        targets.check_no_slots(operation, "targets")?;
        match &inputs.users {
            None => self.check_table(operation, targets.users(), inputs.table.len())?,
            Some(users) => {
                expect(operation, "users", users.len(), &[dim("B", targets.users())])?;
                let tables = self.tables(operation, inputs.table.len())?;
                if tables == 0 && targets.users() > 0 {
                    self.check_table(operation, 1, 0)?;
                }
            }
        }
        self.check_targets(operation, targets, &inputs.targets, &inputs.hash)
    }

    /// The number of users whose tables have so many numbers.
    pub(crate) fn tables(&self, operation: &'static str, length: usize) -> Result<usize> {
        let tables = length / elements(operation, "table", &self.table_shape(1))?;
        self.check_table(operation, tables, length)?;
        Ok(tables)
    }

    /// Fails where a backward pass is given users: the gradient of a table is of one user's candidates.
    pub(crate) fn check_no_users<S: Memory, T: Element>(
        operation: &'static str,
        inputs: &SdimQueryInputs<'_, S, T>,
    ) -> Result<()> {
        if inputs.users.is_none() {
            return Ok(());
        }
        let (expected, got) = ("none: one table for each user of the batch".into(), "users".into());
        Err(Error::Parameter { operation, argument: "users", expected, got })
    }

    /// Fails for the first of some users, on the host, who has no table.
    pub(crate) fn check_host_users(operation: &'static str, users: &[u32], tables: usize) -> Result<()> {
        let Some(position) = users.iter().position(|&user| user as usize >= tables) else { return Ok(()) };
        let (id, bound) = (users[position].into(), tables as u64);
        Err(Error::IndexOutOfRange { operation, argument: "users", position: position as u64, id, bound })
    }

    /// Checks the inputs of the table-free `attend` or of its backward pass (named by `operation`).
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Unsupported`], [`Error::Shape`] and [`Error::Limit`].
    pub fn check_attend<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &SdimAttendInputs<'_, S, T>,
    ) -> Result<()> {
        self.check_encode(operation, batch.histories(), &inputs.encode())?;
        self.check_targets(operation, batch.targets(), &inputs.targets, &inputs.target_hash)
    }

    /// Checks the addition of one table to another and returns their length.
    ///
    /// # Errors
    /// [`Error::Shape`] if they differ in length or do not hold a whole number of users.
    pub fn check_add(&self, table: usize, other: usize) -> Result<usize> {
        const NAME: &str = "sdim_add_tables";
        self.validate(NAME)?;
        let users = self.tables(NAME, table)?;
        expect(NAME, "other", other, &self.table_shape(users))
    }

    /// Checks the tables and the factors of `decay`, and returns the number of tables.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Unsupported`] for invalid parameters; [`Error::Shape`] if the tables are not those of a whole
    /// number of users, or factors are neither one nor one per user.
    pub fn check_decay(&self, table: usize, factors: usize) -> Result<usize> {
        const NAME: &str = "sdim_decay";
        self.validate(NAME)?;
        let users = self.tables(NAME, table)?;
        if factors != 1 {
            expect(NAME, "factors", factors, &[dim("B", users)])?;
        }
        Ok(users)
    }

    /// Operations of `signatures` over `rows` rows: `2·L·d·G·τ`. This and the other counts are at most `u64::MAX`.
    pub fn signatures_flops(&self, rows: usize) -> u64 {
        product(&[2, rows as u64, self.groups as u64, self.width as u64, self.bits as u64])
    }

    /// The fewest bytes that `signatures` moves for `rows` rows: each row and each signature once.
    pub fn signatures_bytes<T: Element, W: Signature>(&self, rows: usize) -> u64 {
        let row =
            sum([product(&[self.width as u64, size::<T>()]), product(&[self.groups as u64, size::<W>()])]);
        product(&[rows as u64, row])
    }

    /// Operations of `encode` over `rows` behaviours: `2·L·d·G·τ` to hash, `L·G·d` additions.
    pub fn encode_flops(&self, rows: usize) -> u64 {
        let per_number = sum([product(&[2, self.bits as u64]), 1]);
        product(&[rows as u64, self.groups as u64, self.width as u64, per_number])
    }

    /// The fewest bytes that `encode` moves: each behaviour once, each user's table once.
    pub fn encode_bytes<T: Element>(&self, histories: &Jagged) -> u64 {
        let [groups, buckets, width] = [self.groups, self.buckets(), self.width].map(|size| size as u64);
        let table = product(&[histories.users() as u64, groups, buckets, width, size::<f32>()]);
        sum([product(&[histories.total_length() as u64, width, size::<T>()]), table])
    }

    /// Operations of `query` over `rows` candidates: `2·C·d·G·τ` to hash, `C·G·d` additions.
    pub fn query_flops(&self, rows: usize) -> u64 {
        self.encode_flops(rows)
    }

    /// The fewest bytes that `query` moves for `rows` candidates: one bucket row per group, and the candidate.
    pub fn query_bytes<T: Element>(&self, rows: usize) -> u64 {
        let number = sum([product(&[self.groups as u64, size::<f32>()]), size::<T>()]);
        product(&[rows as u64, self.width as u64, number])
    }

    /// Operations of `attend`, as many as with a table: those of `encode` and of `query`.
    pub fn attend_flops(&self, batch: &Batch) -> u64 {
        sum([self.encode_flops(batch.histories().total_length()), self.query_flops(batch.targets().total())])
    }

    /// The fewest bytes that `attend` moves: each behaviour, candidate and output once.
    pub fn attend_bytes<T: Element>(&self, batch: &Batch) -> u64 {
        let rows =
            sum([batch.histories().total_length() as u64, product(&[2, batch.targets().total() as u64])]);
        product(&[rows, self.width as u64, size::<T>()])
    }
}

/// One sample of N(0, 1): SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) and the Box–Muller transform.
fn standard_normal(state: &mut u64) -> f32 {
    let mut uniform = || {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        // 53 bits in (0, 1): never 0, because its logarithm is infinite.
        ((word >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let radius = (-2.0 * uniform().ln()).sqrt();
    (radius * (std::f64::consts::TAU * uniform()).cos()) as f32
}
