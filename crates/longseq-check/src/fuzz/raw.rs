//! Calls whose every argument comes from the bytes, on the CPU backend and in the reference.
//!
//! Structures hold what a forward pass and its gradients read, so that the targets of both draw it alike.

use arbitrary::{Result, Unstructured};
use longseq::*;

use super::bytes::*;

/// What the reference and the backend answered, where both accepted the call: they accept the same calls.
pub(super) fn both<E, G>(exact: longseq::Result<E>, got: longseq::Result<G>) -> Option<(E, G)> {
    match (exact, got) {
        (Ok(exact), Ok(got)) => Some((exact, got)),
        (Err(exact), Err(got)) => {
            let kinds = [&exact, &got].map(std::mem::discriminant);
            let are_alike = kinds[0] == kinds[1] || [&exact, &got].into_iter().all(is_beyond_memory);
            assert!(are_alike, "the reference: {exact}; the backend: {got}");
            let operations =
                [&exact, &got].map(|error| error.to_string().split(':').next().map(str::to_owned));
            assert_eq!(operations[0], operations[1], "the reference: {exact}; the backend: {got}");
            None
        }
        (exact, got) => panic!("the reference: {:?}; the backend: {:?}", exact.err(), got.err()),
    }
}

/// Whether no memory has so many bytes: an allocation that fails, or a limit that a backend checks before.
fn is_beyond_memory(error: &Error) -> bool {
    match error {
        Error::OutOfMemory { bytes, .. } => *bytes > isize::MAX as u64,
        Error::Limit { needed, limit, .. } => *limit == isize::MAX as u64 && needed > limit,
        _ => false,
    }
}

/// What is not finite in the reference is not finite in the first `used` numbers; with `mild` inputs, numbers agree.
pub(super) fn alike(exact: &[f64], got: &[f32], used: usize, mild: bool) {
    let largest = exact.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    for (i, (&exact, &got)) in exact.iter().zip(got).take(used).enumerate() {
        if exact.is_nan() || exact.is_infinite() {
            assert!(!got.is_finite(), "element {i}: {exact} in the reference, {got} from the backend");
        } else if mild {
            // Sums of a few dozen terms; the exact bounds are those of the cases.
            let error = (f64::from(got) - exact).abs();
            assert!(error <= 1e-3 * largest, "element {i}: {exact} in the reference, {got} from the backend");
        }
    }
}

/// [`both`], and what they answer is [`alike`].
fn agree(
    exact: longseq::Result<Vec<f64>>,
    got: longseq::Result<impl std::ops::Deref<Target = [f32]>>,
    used: usize,
    mild: bool,
) {
    if let Some((exact, got)) = both(exact, got) {
        alike(&exact, &got, used, mild);
    }
}

/// A call of target attention.
pub(super) struct Attention {
    pub(super) op: TargetAttention,
    pub(super) batch: Batch,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

impl Attention {
    pub(super) fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let Some(batch) = batch(bytes)? else { return Ok(None) };
        let kv_heads = size(bytes)?.min(4);
        let divisor = number(bytes, kind)?;
        let weightings = [Weighting::Softmax, Weighting::Relu, Weighting::silu(divisor), Weighting::Identity];
        let mut op = TargetAttention::new(size(bytes)?)
            .with_heads(kv_heads.saturating_mul(size(bytes)?), kv_heads)
            .with_value_width(size(bytes)?)
            .with_weighting(*bytes.choose(&weightings)?);
        if bytes.arbitrary()? {
            op = op.with_scale(number(bytes, kind)? / if kind == Numbers::Any { 1.0 } else { 8.0 });
        }
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let queries = numbers(bytes, kind, product(&[m, op.heads, op.width]))?;
        let keys = numbers(bytes, kind, product(&[n, op.kv_heads, op.width]))?;
        let values = numbers(bytes, kind, product(&[n, op.kv_heads, op.value_width]))?;
        let bias = numbers(bytes, kind, product(&[n, op.heads]))?;
        let values = bytes.arbitrary::<bool>()?.then_some(values);
        let bias = bytes.arbitrary::<bool>()?.then_some(bias);
        Ok(Some(Self { op, batch, queries, keys, values, bias }))
    }

    pub(super) fn inputs(&self) -> TargetAttentionInputs<'_, Host, f32> {
        let mut inputs = TargetAttentionInputs::new(Host::view(&self.queries), Host::view(&self.keys));
        inputs.values = self.values.as_deref().map(Host::view);
        inputs.bias = self.bias.as_deref().map(Host::view);
        inputs
    }
}

pub(super) fn target_attention(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(call) = Attention::new(bytes, kind)? else { return Ok(()) };
    let (op, batch) = (&call.op, &call.batch);
    let exact = reference::target_attention(op, batch, &call.inputs()).map(|exact| exact.out);
    let used = product(&[batch.targets().total(), op.heads, op.value_width]);
    agree(exact, Cpu::new().target_attention(op, batch, call.inputs()), used, kind == Numbers::Mild);
    Ok(())
}

/// A hidden layer of DIN.
pub(super) struct Layer {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    /// ReLU, sigmoid, PReLU, Dice.
    pub(super) activation: u8,
    /// Each of the activation's vectors.
    pub(super) vector: Vec<f32>,
}

impl Layer {
    fn view(&self) -> DinLayer<'_, Host, f32> {
        let parameter = Host::view(&self.vector);
        let activation = match self.activation {
            0 => Activation::Relu,
            1 => Activation::Sigmoid,
            2 => Activation::Prelu { alpha: parameter },
            _ => Activation::Dice { gain: parameter, shift: parameter, alpha: parameter },
        };
        DinLayer::new(Host::view(&self.weight), Host::view(&self.bias), activation)
    }
}

/// A call of DIN.
pub(super) struct Network {
    pub(super) op: Din,
    pub(super) batch: Batch,
    targets: Vec<f32>,
    history: Vec<f32>,
    pub(super) layers: Vec<Layer>,
    output: [Vec<f32>; 2],
}

impl Network {
    pub(super) fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let Some(batch) = batch(bytes)? else { return Ok(None) };
        let op = Din::new(size(bytes)?).with_pooling(*bytes.choose(&[DinPooling::Sum, DinPooling::Softmax])?);
        let targets = numbers(bytes, kind, product(&[batch.targets().rows(), op.width]))?;
        let history = numbers(bytes, kind, product(&[batch.histories().rows(), op.width]))?;
        let count: usize = bytes.int_in_range(0..=4)?;
        let mut layers = Vec::new();
        let mut inputs = product(&[4, op.width]);
        for _ in 0..count {
            let units = size(bytes)?.min(64);
            let weight = numbers(bytes, kind, product(&[units, inputs]))?;
            let bias = numbers(bytes, kind, units)?;
            let (activation, vector) = (bytes.arbitrary::<u8>()? % 4, numbers(bytes, kind, units)?);
            layers.push(Layer { weight, bias, activation, vector });
            inputs = units;
        }
        let output = [numbers(bytes, kind, inputs)?, numbers(bytes, kind, 1)?];
        Ok(Some(Self { op, batch, targets, history, layers, output }))
    }

    pub(super) fn hidden(&self) -> Vec<DinLayer<'_, Host, f32>> {
        self.layers.iter().map(Layer::view).collect()
    }

    pub(super) fn inputs<'a>(&'a self, hidden: &'a [DinLayer<'a, Host, f32>]) -> DinInputs<'a, Host, f32> {
        let [output_weight, output_bias] = self.output.each_ref().map(|numbers| Host::view(numbers));
        let (targets, history) = (Host::view(&self.targets), Host::view(&self.history));
        DinInputs::new(targets, history, hidden, output_weight, output_bias)
    }
}

pub(super) fn din(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(call) = Network::new(bytes, kind)? else { return Ok(()) };
    let (op, batch, hidden) = (&call.op, &call.batch, call.hidden());
    let inputs = call.inputs(&hidden);
    let used = product(&[batch.targets().total(), op.width]);
    // Layers multiply, and softmax takes errors of large scores for changes of weight: only NaN is compared.
    agree(reference::din(op, batch, &inputs), Cpu::new().din(op, batch, inputs), used, false);
    Ok(())
}

/// Calls of SDIM with given signatures.
pub(super) struct Hashed {
    pub(super) op: Sdim,
    pub(super) batch: Batch,
    history: Vec<f32>,
    signatures: [Vec<u16>; 2],
    /// The items whose signatures these are; none where they are those of rows.
    ids: Option<[Vec<u32>; 2]>,
}

impl Hashed {
    pub(super) fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let Some(batch) = batch(bytes)? else { return Ok(None) };
        let op = Sdim::new(size(bytes)?)
            .with_groups(size(bytes)?, size(bytes)?)
            .with_normalise(bytes.arbitrary()?);
        let bits = op.bits.min(12) as u32;
        let history = numbers(bytes, kind, product(&[batch.histories().rows(), op.width]))?;
        let signatures = |bytes: &mut Unstructured<'_>, rows: usize| -> Result<Vec<u16>> {
            Ok(ids(bytes, product(&[rows, op.groups]), 1 << bits)?.into_iter().map(|id| id as u16).collect())
        };
        let (of_history, of_targets) =
            (signatures(bytes, batch.histories().rows())?, signatures(bytes, batch.targets().rows())?);
        let mut call = Self { op, batch, history, signatures: [of_history, of_targets], ids: None };
        if bytes.arbitrary()? {
            let items = bytes.int_in_range(0..=20)?;
            let of_items = [signatures(bytes, items)?, signatures(bytes, items)?];
            let rows = [call.batch.histories().rows(), call.batch.targets().rows()];
            // Also of items that are not there.
            let limit = items.max(1);
            call.signatures = of_items;
            call.ids = Some([ids(bytes, rows[0], limit)?, ids(bytes, rows[1], limit)?]);
        }
        Ok(Some(call))
    }

    /// The signatures of behaviours and of candidates.
    pub(super) fn hashes(&self) -> [Hash<'_, Host>; 2] {
        let given = self.signatures.each_ref().map(|given| Host::view(&given[..]));
        match &self.ids {
            None => given.map(Hash::Signatures16),
            Some(ids) => {
                [0, 1].map(|side| Hash::Items16 { signatures: given[side], ids: Host::view(&ids[side]) })
            }
        }
    }

    pub(super) fn encode(&self) -> SdimEncodeInputs<'_, Host, f32> {
        SdimEncodeInputs::new(Host::view(&self.history), self.hashes()[0])
    }

    pub(super) fn attend(&self) -> SdimAttendInputs<'_, Host, f32> {
        let [history_hash, target_hash] = self.hashes();
        SdimAttendInputs::new(Host::view(&self.history), history_hash, target_hash)
    }

    /// Whether the tables are small, or no tables at all.
    pub(super) fn is_small(&self) -> bool {
        self.op.table_length(self.batch.users()).map_or(true, |length| length <= 1 << 16)
    }
}

pub(super) fn sdim(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(call) = Hashed::new(bytes, kind)? else { return Ok(()) };
    let (op, batch, cpu, mild) = (&call.op, &call.batch, Cpu::new(), kind == Numbers::Mild);
    if call.is_small() {
        let exact = reference::sdim_encode(op, batch.histories(), &call.encode());
        agree(exact, cpu.sdim_encode(op, batch.histories(), call.encode()), usize::MAX, mild);
    }
    in_slots(bytes, &call, mild)?;
    let used = product(&[batch.targets().total(), op.width]);
    let exact = reference::sdim_attend(op, batch, &call.attend());
    agree(exact, cpu.sdim_attend(op, batch, call.attend()), used, mild);
    let rotations = numbers(bytes, kind, product(&[op.width, op.groups, op.bits]))?;
    let exact = reference::sdim_signatures(op, &call.history, &rotations);
    let mut out = vec![0u16; exact.as_ref().map_or(0, Vec::len)];
    let (rows, rotations) = (Host::view(&call.history), Host::view(&rotations));
    let got = cpu.sdim_signatures_into::<f32, u16>(op, rows, rotations, Host::view_mut(&mut out));
    assert_eq!(exact.is_ok() && op.bits <= 16, got.is_ok(), "{:?}; {:?}", exact.err(), got.err());
    Ok(())
}

/// Tables in slots, mostly different ones of few.
fn in_slots(bytes: &mut Unstructured<'_>, call: &Hashed, mild: bool) -> Result<()> {
    let (op, histories) = (&call.op, call.batch.histories().clone());
    let slots = ids(bytes, histories.users(), 8)?;
    let Ok(histories) = histories.with_slots(&slots, size(bytes)?) else { return Ok(()) };
    if op.table_length(histories.slot_count()).is_ok_and(|length| length <= 1 << 16) {
        let exact = reference::sdim_encode(op, &histories, &call.encode());
        agree(exact, Cpu::new().sdim_encode(op, &histories, call.encode()), usize::MAX, mild);
    }
    Ok(())
}

/// A table's rows, width and elements.
pub(super) type RawTable = (usize, usize, Vec<f32>);

pub(super) fn table(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<RawTable> {
    let (rows, width) = (size(bytes)?, size(bytes)?);
    let data = numbers(bytes, kind, product(&[rows, width]))?;
    Ok((rows, width, data))
}

fn tables(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Vec<RawTable>> {
    let count = bytes.int_in_range(0..=3)?;
    (0..count).map(|_| table(bytes, kind)).collect()
}

pub(super) fn views(tables: &[RawTable]) -> Vec<Table<'_, Host>> {
    tables
        .iter()
        .map(|(rows, width, data)| Table::new(*rows, *width, TableData::F32(Host::view(data))))
        .collect()
}

/// A call of a look-up.
pub(super) struct LookUp {
    pub(super) op: Lookup,
    pub(super) tables: Vec<RawTable>,
    bags: Jagged,
    pool: u8,
    pub(super) ids: Vec<u32>,
    weights: Option<Vec<f32>>,
}

impl LookUp {
    pub(super) fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let tables = tables(bytes, kind)?;
        let users = bytes.int_in_range(0..=4)?;
        let Some(bags) = jagged(bytes, users)? else { return Ok(None) };
        let limit = tables.iter().map(|table| table.0).min().unwrap_or(1);
        let ids = ids(bytes, product(&[bags.rows(), tables.len()]), limit)?;
        let policies = [IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip];
        let op = Lookup::default().with_ids(*bytes.choose(&policies)?);
        let pool = bytes.arbitrary::<u8>()? % 3;
        // Mostly where they are defined.
        let is_weighted = if pool == 1 { bytes.arbitrary()? } else { bytes.ratio(1, 16)? };
        let weights = if is_weighted { Some(numbers(bytes, kind, ids.len())?) } else { None };
        Ok(Some(Self { op, tables, bags, pool, ids, weights }))
    }

    /// The inputs of the call, with first and second tables.
    pub(super) fn inputs<'a>(
        &'a self,
        first: &'a [Table<'a, Host>],
        second: &'a [Table<'a, Host>],
    ) -> LookupInputs<'a, Host> {
        let inputs = LookupInputs::new(Host::view(&self.ids), first).with_second_tables(second);
        match &self.weights {
            Some(weights) => inputs.with_weights(Host::view(weights)),
            None => inputs,
        }
    }

    pub(super) fn bags(&self) -> Bags<'_, Jagged> {
        match self.pool {
            0 => Bags::Each,
            1 => Bags::Sum(&self.bags),
            _ => Bags::Mean(&self.bags),
        }
    }

    /// Rows of ids that are read, and rows of the output.
    pub(super) fn rows(&self) -> (usize, usize) {
        let rows = self.ids.len() / self.tables.len().max(1);
        if self.pool == 0 { (rows, rows) } else { (self.bags.total(), self.bags.users()) }
    }
}

pub(super) fn lookup(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(call) = LookUp::new(bytes, kind)? else { return Ok(()) };
    let views = views(&call.tables);
    let inputs = call.inputs(&views, &[]);
    let exact = reference::lookup(&call.op, call.bags(), &inputs).map(|exact| exact.0);
    let got = Cpu::new().lookup(&call.op, call.bags(), inputs).map(|got| got.0);
    agree(exact, got, usize::MAX, kind == Numbers::Mild);
    Ok(())
}

/// A call of decoupled embeddings.
pub(super) struct Search {
    pub(super) op: Decoupled,
    pub(super) batch: Batch,
    pub(super) attention: Vec<RawTable>,
    pub(super) representation: Vec<RawTable>,
    pub(super) history_ids: Vec<u32>,
    pub(super) target_ids: Vec<u32>,
}

impl Search {
    pub(super) fn new(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Option<Self>> {
        let Some(batch) = batch(bytes)? else { return Ok(None) };
        let (attention, representation) = (tables(bytes, kind)?, tables(bytes, kind)?);
        let features = if bytes.ratio(1, 32)? { size(bytes)?.min(8) } else { attention.len() };
        let scale = |bytes: &mut Unstructured<'_>| Ok(number(bytes, kind)? / 8.0);
        let scales = (0..features).map(|_| scale(bytes)).collect::<Result<Vec<f32>>>()?;
        let top_k = if bytes.arbitrary()? { Some(size(bytes)?) } else { None };
        let op = Decoupled::new(scales)
            .with_top_k(top_k)
            .with_multiply_target(bytes.arbitrary()?)
            .with_ids(*bytes.choose(&[IdPolicy::Error, IdPolicy::Zero])?);
        let limit = attention.iter().chain(&representation).map(|table| table.0).min().unwrap_or(1);
        let history_ids = ids(bytes, product(&[batch.histories().rows(), features]), limit)?;
        let target_ids = ids(bytes, product(&[batch.targets().rows(), features]), limit)?;
        Ok(Some(Self { op, batch, attention, representation, history_ids, target_ids }))
    }

    /// The width of the output.
    pub(super) fn width(&self) -> usize {
        self.representation.iter().map(|table| table.1).fold(0, usize::saturating_add)
    }
}

pub(super) fn decoupled(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(call) = Search::new(bytes, kind)? else { return Ok(()) };
    let (op, batch) = (&call.op, &call.batch);
    let (attention, representation) = (views(&call.attention), views(&call.representation));
    let ids = [&call.history_ids, &call.target_ids].map(|ids| Host::view(ids));
    let inputs = DecoupledInputs::new(&attention, &representation, ids[0], ids[1]);
    let used = product(&[batch.targets().total(), call.width()]);
    // A selection may differ where scores are equal up to rounding: with a top-K, only NaN is compared.
    let exact = reference::decoupled_attend(op, batch, &inputs);
    let mild = kind == Numbers::Mild && op.top_k.is_none();
    agree(exact, Cpu::new().decoupled_attend(op, batch, inputs), used, mild);
    Ok(())
}
