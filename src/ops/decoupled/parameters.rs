//! Parameters, shape rules and costs of decoupled embeddings.

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::{Memory, View};
use crate::ops::decoupled::inputs::*;
use crate::ops::lookup::{IdPolicy, Table, check_host_ids, check_tables, total_width};
use crate::ops::selection::{Selection, SelectionMut};
use crate::ops::shape::{dim, elements, expect, product, size, sum};

/// Search in attention embeddings, aggregation of representation embeddings.
///
/// Each behaviour has `F` features (item, category, time, …). Feature `f` has two tables, attention `A_f [V_f, a_f]`
/// and representation `R_f [V_f, r_f]`, which candidates and behaviours share:
///
/// ```text
/// score[m,l] = Σ_f scale_f · ⟨A_f[target_ids[m,f]], A_f[ids[l,f]]⟩
/// top[m]     = the K behaviours of highest score: score descending, then position ascending; NaN last
/// w          = softmax over the kept scores
/// out[m]     = ( Σ_{l∈top} w_l · [R_1[ids[l,1]] ‖ … ‖ R_F[ids[l,F]]] )   optionally ⊙ [R_1[target_ids[m,1]] ‖ …]
/// ```
///
/// If a user has fewer than `K` behaviours, all are kept and only they have weight. A kept score of `-∞` has no weight,
/// whatever its row holds, and nothing else is removed. An empty history, and one without a score above `-∞`, gives a row of
/// zeros. A NaN or `+∞` among the kept scores gives NaN in the candidate's row. Each score must be within `f32`; representations
/// may have any size. Scores, pooled rows and outputs are `f32`, whatever the storage type of the tables.
///
/// A scale times a row may leave the range of `f32`, as long as the score does not: a power of two is applied to the sum of all features'
/// products, which the largest scale decides. So, where a device flushes subnormal numbers (GPUs through WGSL may), a feature whose scale
/// is tiny next to the largest loses numbers of a candidate's row: with scales of 1e-36 and 0.5, a row of 1e-3 counts as zeros. A score
/// loses at most 1.2e-38 times the sum of the behaviour's numbers by that, times the largest scale if it is above 1.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Decoupled, DecoupledInputs, Host, Jagged, Table, TableData};
///
/// let (items, a, r) = (100, 4, 16);
/// let attention: Vec<f32> = (0..items * a).map(|i| (i as f32).sin()).collect();
/// let representation: Vec<f32> = (0..items * r).map(|i| (i as f32).cos()).collect();
/// let attention = [Table::new(items, a, TableData::F32(Host::view(&attention)))];
/// let representation = [Table::new(items, r, TableData::F32(Host::view(&representation)))];
/// let ids: Vec<u32> = (0..50).map(|l| l * 7 % 100).collect(); // the 50 behaviours of one user
///
/// let backend = Cpu::new();
/// let batch = backend.batch(&Jagged::from_lengths(&[50])?, &Jagged::from_lengths(&[2])?)?;
/// let inputs = DecoupledInputs::new(&attention, &representation, Host::view(&ids), Host::view(&[3, 14]));
/// let op = Decoupled::new([0.5]).with_top_k(Some(20)); // one feature, scaled by 1/√4
/// let interest = backend.decoupled_attend(&op, &batch, inputs)?; // [M, Σ r]
/// assert_eq!(interest.len(), 2 * r);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: Feng et al., "Long-Sequence Recommendation Models Need Decoupled Embeddings" (DARE), ICLR 2025,
/// arXiv 2410.02604, §3.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoupled {
    /// `scale_f`, one factor per feature; `F` is their number.
    pub scales: Vec<f32>,
    /// `K`: the number of behaviours to keep; `None` keeps all (for `attend` only). Default 20.
    pub top_k: Option<usize>,
    /// Whether to multiply the aggregate by the candidate's own representation. Default false.
    pub multiply_target: bool,
    /// What happens to ids outside their table.
    pub ids: IdPolicy,
}

impl Default for Decoupled {
    fn default() -> Self {
        Self { scales: vec![1.0], top_k: Some(20), multiply_target: false, ids: IdPolicy::Error }
    }
}

impl Decoupled {
    /// One feature per scale, the 20 best behaviours, no multiplication by the candidate.
    pub fn new(scales: impl Into<Vec<f32>>) -> Self {
        Self { scales: scales.into(), ..Self::default() }
    }

    /// DARE's own scales for the attention widths of item, category and time: `1/√(a_item + a_category)` for the first
    /// two features, `1/√a_time` for the third.
    pub fn dare(item: usize, category: usize, time: usize) -> Self {
        let inverse_root = |width: f64| (1.0 / width.sqrt()) as f32;
        let semantic = inverse_root(item as f64 + category as f64);
        Self::new([semantic, semantic, inverse_root(time as f64)])
    }

    /// Sets the number of behaviours to keep; `None` keeps all. GPU backends search for at most
    /// [`Search::MAX_TOP_K`](crate::Search::MAX_TOP_K) and answer [`Error::Limit`] for more; on `Cpu` there is no limit. A selection that a
    /// call is given may hold more on every backend, and `decoupled_attend` keeps all behaviours, without a search, where no history is longer than `K`.
    pub fn with_top_k(self, top_k: Option<usize>) -> Self {
        Self { top_k, ..self }
    }

    /// Sets whether the aggregate is multiplied by the candidate's own representation.
    pub fn with_multiply_target(self, multiply_target: bool) -> Self {
        Self { multiply_target, ..self }
    }

    /// Sets what happens to ids outside their table. [`IdPolicy::Skip`] is refused.
    pub fn with_ids(self, ids: IdPolicy) -> Self {
        Self { ids, ..self }
    }

    /// `F`: the number of features.
    pub fn features(&self) -> usize {
        self.scales.len()
    }

    /// The factors on a candidate's attention rows, and the power of two that the sum of the products is multiplied by afterwards. A row
    /// times a large or tiny scale could leave the range of `f32` where the score does not.
    pub(crate) fn split_scales(&self) -> (Vec<f32>, f32) {
        /// A smaller scale is split in half, a larger one than 1 is applied to the sums.
        const SMALL: i32 = -32;
        /// From here on, products that count in the scores (by 2^-24) may be subnormal numbers.
        const LARGE: i32 = 102;
        let largest = self.scales.iter().fold(0.0f32, |largest, scale| largest.max(scale.abs()));
        let exponent = largest.log2().ceil().max(-150.0) as i32;
        let on_sums = match exponent {
            _ if largest == 0.0 => 0,
            ..SMALL => exponent / 2,
            exponent => exponent.clamp(0, LARGE),
        };
        let factor = 2.0f32.powi(on_sums);
        (self.scales.iter().map(|scale| scale / factor).collect(), factor)
    }

    /// As [`split_scales`](Self::split_scales), for the gradients of rows: the power of two is applied to the gradients of scores, which it
    /// must not carry out of the range of `f32` either.
    pub(crate) fn split_scales_of_gradients(&self) -> (Vec<f32>, f32) {
        const LARGEST: f32 = (1u64 << 60) as f32;
        let (scales, factor) = self.split_scales();
        let on_grads = factor.min(LARGEST);
        (scales.into_iter().map(|scale| scale * (factor / on_grads)).collect(), on_grads)
    }

    /// `M·Σ r`: the number of elements of the output of `aggregate` and `attend`.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length<S: Memory>(&self, batch: &Batch, representation: &[Table<'_, S>]) -> Result<usize> {
        let shape = [dim("M", batch.targets().rows()), dim("Σ r", total_width(representation))];
        elements("decoupled_aggregate", "out", &shape)
    }

    /// `M·K`: the number of slots of a selection.
    ///
    /// # Errors
    /// As [`check_search`](Self::check_search).
    pub fn selection_length(&self, batch: &Batch) -> Result<usize> {
        const NAME: &str = "decoupled_search";
        let top_k = self.required_top_k(NAME)?;
        elements(NAME, "positions", &[dim("M", batch.targets().rows()), dim("K", top_k)])
    }

    /// Checks the parameters alone.
    fn validate(&self, operation: &'static str) -> Result<()> {
        let wrong = |argument, expected: &str, got: String| {
            Err(Error::Parameter { operation, argument, expected: expected.into(), got })
        };
        if self.scales.is_empty() {
            return wrong("scales", "a factor per feature, at least one", "none".into());
        }
        if let Some(scale) = self.scales.iter().find(|scale| !scale.is_finite()) {
            return wrong("scales", "finite numbers", scale.to_string());
        }
        if self.top_k == Some(0) {
            return wrong("top_k", "at least 1", "0".into());
        }
        if self.ids == IdPolicy::Skip {
            return wrong("ids", "IdPolicy::Error or IdPolicy::Zero", "IdPolicy::Skip".into());
        }
        Ok(())
    }

    /// `K`, for the calls that require it.
    fn required_top_k(&self, operation: &'static str) -> Result<usize> {
        self.validate(operation)?;
        self.top_k.ok_or_else(|| Error::Unsupported {
            operation,
            what: "top_k = None".into(),
            supported: "a top_k; `decoupled_attend` keeps all behaviours with None".into(),
        })
    }

    fn check_id_shapes<S: Memory>(
        &self,
        operation: &'static str,
        batch: &Batch,
        history_ids: &View<'_, S, u32>,
        target_ids: &View<'_, S, u32>,
    ) -> Result<()> {
        let features = dim("F", self.features());
        expect(operation, "history_ids", history_ids.len(), &[dim("N", batch.histories().rows()), features])?;
        expect(operation, "target_ids", target_ids.len(), &[dim("M", batch.targets().rows()), features])?;
        Ok(())
    }

    /// Checks the inputs of `search` and returns `K`.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Shape`] and [`Error::Limit`]; [`Error::Unsupported`] without a `top_k`.
    pub fn check_search<S: Memory>(&self, batch: &Batch, inputs: &SearchInputs<'_, S>) -> Result<usize> {
        self.check_search_in("decoupled_search", batch, inputs)
    }

    /// The same for the call that is named.
    pub(super) fn check_search_in<S: Memory>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &SearchInputs<'_, S>,
    ) -> Result<usize> {
        let top_k = self.required_top_k(operation)?;
        check_tables(operation, "attention", inputs.attention, self.features())?;
        self.check_id_shapes::<S>(operation, batch, &inputs.history_ids, &inputs.target_ids)?;
        Ok(top_k)
    }

    /// Checks the outputs of `search` for `K = top_k`.
    ///
    /// # Errors
    /// [`Error::Shape`] for an output of the wrong size.
    pub fn check_search_outputs<S: Memory>(
        &self,
        batch: &Batch,
        top_k: usize,
        out: &SelectionMut<'_, S>,
    ) -> Result<()> {
        out.check("decoupled_search", batch.targets().rows(), top_k)
    }

    /// Checks the output of `aggregate` or `attend` (named by `operation`).
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not `[M, Σ r]`.
    pub fn check_output<S: Memory>(
        &self,
        operation: &'static str,
        batch: &Batch,
        representation: &[Table<'_, S>],
        out: usize,
    ) -> Result<()> {
        let shape = [dim("M", batch.targets().rows()), dim("Σ r", total_width(representation))];
        expect(operation, "out", out, &shape)?;
        Ok(())
    }

    /// Checks the inputs of `aggregate` and returns `K`.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Shape`] and [`Error::Limit`]; [`Error::Unsupported`] without a `top_k`.
    pub fn check_aggregate<S: Memory>(
        &self,
        batch: &Batch,
        inputs: &AggregateInputs<'_, S>,
        selection: &Selection<'_, S>,
    ) -> Result<usize> {
        self.check_aggregate_in("decoupled_aggregate", batch, inputs, selection)
    }

    /// The same for the call that is named.
    pub(crate) fn check_aggregate_in<S: Memory>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &AggregateInputs<'_, S>,
        selection: &Selection<'_, S>,
    ) -> Result<usize> {
        let top_k = self.required_top_k(operation)?;
        check_tables(operation, "representation", inputs.representation, self.features())?;
        self.check_id_shapes::<S>(operation, batch, &inputs.history_ids, &inputs.target_ids)?;
        selection.check(operation, batch.targets().rows(), top_k)?;
        Ok(top_k)
    }

    /// Checks the inputs of `attend`.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Shape`] and [`Error::Limit`].
    pub fn check_attend<S: Memory>(&self, batch: &Batch, inputs: &DecoupledInputs<'_, S>) -> Result<()> {
        self.check_attend_in("decoupled_attend", batch, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_attend_in<S: Memory>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &DecoupledInputs<'_, S>,
    ) -> Result<()> {
        self.validate(operation)?;
        check_tables(operation, "attention", inputs.attention, self.features())?;
        check_tables(operation, "representation", inputs.representation, self.features())?;
        self.check_id_shapes::<S>(operation, batch, &inputs.history_ids, &inputs.target_ids)?;
        for (attention, representation) in inputs.attention.iter().zip(inputs.representation) {
            if attention.rows != representation.rows {
                return Err(Error::Shape {
                    operation,
                    argument: "representation",
                    expected: format!("{} rows, as in `attention`", attention.rows),
                    got: format!("{} rows", representation.rows),
                });
            }
        }
        Ok(())
    }

    /// Checks on the host that every id is inside its feature's table, if the policy asks for it.
    pub(crate) fn check_host_ids(
        &self,
        operation: &'static str,
        batch: &Batch,
        tables: &[Table<'_, Host>],
        history_ids: &[u32],
        target_ids: &[u32],
    ) -> Result<()> {
        let (behaviours, candidates) = (batch.histories().total(), batch.targets().total());
        check_host_ids(
            operation,
            "history_ids",
            self.ids,
            tables,
            &history_ids[..behaviours * self.features()],
        )?;
        check_host_ids(operation, "target_ids", self.ids, tables, &target_ids[..candidates * self.features()])
    }

    /// Operations of `search`: `2·C·L·Σ a_f`, summed over users. This and the other counts are at most `u64::MAX`.
    pub fn search_flops(&self, batch: &Batch, widths: &[usize]) -> u64 {
        product(&[2, batch.pairs(), total(widths)])
    }

    /// The fewest bytes that `search` moves: each id, and each row that it names in whole 32-byte sectors.
    pub fn search_bytes<T: Scalar>(&self, batch: &Batch, widths: &[usize]) -> u64 {
        let row = sum(widths.iter().map(|&width| product(&[width as u64, size::<T>()]).max(32)));
        product(&[batch.histories().total_length() as u64, sum([product(&[4, widths.len() as u64]), row])])
    }

    /// Operations of `aggregate`: `2·C·K·Σ r_f`, summed over users.
    pub fn aggregate_flops(&self, batch: &Batch, widths: &[usize]) -> u64 {
        product(&[2, self.kept(batch), total(widths)])
    }

    /// The fewest bytes that `aggregate` moves: a position, a score and a row for each behaviour kept.
    pub fn aggregate_bytes<T: Scalar>(&self, batch: &Batch, widths: &[usize]) -> u64 {
        product(&[self.kept(batch), sum([product(&[total(widths), size::<T>()]), 8])])
    }

    /// The number of behaviours kept for all candidates: Σ over users of candidates × behaviours kept.
    pub(super) fn kept(&self, batch: &Batch) -> u64 {
        let top_k = self.top_k.unwrap_or(usize::MAX);
        let kept = |(history, targets): (std::ops::Range<usize>, std::ops::Range<usize>)| {
            product(&[targets.len() as u64, history.len().min(top_k) as u64])
        };
        sum(batch.requests().map(kept))
    }
}

/// The sum of widths.
pub(super) fn total(widths: &[usize]) -> u64 {
    sum(widths.iter().map(|&width| width as u64))
}
