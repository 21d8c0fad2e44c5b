//! Calls whose every argument comes from the bytes, on the CPU backend and in the reference.

use arbitrary::{Result, Unstructured};
use longseq::*;

/// Numbers that matter to arithmetic.
const SPECIAL: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1e-45,
    1e19,
    -1e-20,
    2.5e38,
    -2.5e38,
    16_777_217.0,
];

/// A size: mostly small.
fn size(bytes: &mut Unstructured<'_>) -> Result<usize> {
    match bytes.arbitrary::<u8>()? {
        255 => bytes.arbitrary(),
        254 => Ok(1 << bytes.int_in_range(0..=63)?),
        small => Ok(usize::from(small % 12)),
    }
}

/// A length: mostly the right one.
fn length(bytes: &mut Unstructured<'_>, right: usize) -> Result<usize> {
    let right = right.min(4096);
    Ok(match bytes.arbitrary::<u8>()? {
        255 => bytes.int_in_range(0..=64)?,
        254 => right + 1,
        253 => right.saturating_sub(1),
        _ => right,
    })
}

/// A product that a small buffer can have.
fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1usize, |product, &size| product.saturating_mul(size))
}

/// A number; `mild` ones are finite and at most 8.
fn number(bytes: &mut Unstructured<'_>, mild: bool) -> Result<f32> {
    let byte: u8 = bytes.arbitrary()?;
    Ok(match byte {
        200..=215 if !mild => SPECIAL[usize::from(byte - 200)],
        216..=220 if !mild => f32::from_bits(bytes.arbitrary()?),
        _ => (f32::from(byte) - 128.0) / 16.0,
    })
}

fn numbers(bytes: &mut Unstructured<'_>, mild: bool, right: usize) -> Result<Vec<f32>> {
    let length = length(bytes, right)?;
    (0..length).map(|_| number(bytes, mild)).collect()
}

/// Ids, mostly below `limit`.
fn ids(bytes: &mut Unstructured<'_>, right: usize, limit: usize) -> Result<Vec<u32>> {
    let id = |bytes: &mut Unstructured<'_>| match bytes.arbitrary::<u8>()? {
        255 => bytes.arbitrary(),
        id => Ok(u32::from(id) % limit.clamp(1, 1 << 20) as u32),
    };
    let length = length(bytes, right)?;
    (0..length).map(|_| id(bytes)).collect()
}

/// Offsets, mostly valid ones.
fn jagged(bytes: &mut Unstructured<'_>, users: usize) -> Result<Option<Jagged>> {
    let mut offsets = vec![0u64];
    for _ in 0..users {
        let next = match bytes.arbitrary::<u8>()? {
            255 => bytes.arbitrary()?,
            length => offsets[offsets.len() - 1].saturating_add(u64::from(length % 9)),
        };
        offsets.push(next);
    }
    let rows = offsets.last().map_or(0, |&last| last.min(4096) as usize) + bytes.int_in_range(0..=2)?;
    Ok(Jagged::new(&offsets, rows).ok())
}

fn batch(bytes: &mut Unstructured<'_>) -> Result<Option<Batch>> {
    let users = bytes.int_in_range(0..=4)?;
    let (histories, targets) = (jagged(bytes, users)?, jagged(bytes, users)?);
    Ok(histories.zip(targets).and_then(|(histories, targets)| Batch::new(histories, targets).ok()))
}

/// The reference and the backend accept the same calls; what they answer agrees.
fn agree(
    exact: longseq::Result<Vec<f64>>,
    got: longseq::Result<impl std::ops::Deref<Target = [f32]>>,
    used: usize,
    mild: bool,
) {
    let (exact, got) = match (exact, got) {
        (Ok(exact), Ok(got)) => (exact, got),
        (Err(exact), Err(got)) => {
            let kinds = [&exact, &got].map(std::mem::discriminant);
            assert_eq!(kinds[0], kinds[1], "the reference: {exact}; the backend: {got}");
            return;
        }
        (exact, got) => panic!("the reference: {:?}; the backend: {:?}", exact.err(), got.err()),
    };
    let largest = exact.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    for (i, (&exact, &got)) in exact.iter().zip(&*got).take(used).enumerate() {
        if exact.is_nan() || exact.is_infinite() {
            assert!(!got.is_finite(), "element {i}: {exact} in the reference, {got} from the backend");
        } else if mild {
            // Sums of a few dozen terms; the exact bounds are those of the cases.
            let error = (f64::from(got) - exact).abs();
            assert!(error <= 1e-3 * largest, "element {i}: {exact} in the reference, {got} from the backend");
        }
    }
}

pub(super) fn target_attention(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mild = bytes.arbitrary()?;
    let Some(batch) = batch(bytes)? else { return Ok(()) };
    let kv_heads = size(bytes)?.min(4);
    let divisor = number(bytes, mild)?;
    let weightings = [Weighting::Softmax, Weighting::Relu, Weighting::Silu { divisor }, Weighting::Identity];
    let mut op = TargetAttention::new(size(bytes)?)
        .with_heads(kv_heads.saturating_mul(size(bytes)?), kv_heads)
        .with_value_width(size(bytes)?)
        .with_weighting(*bytes.choose(&weightings)?);
    if bytes.arbitrary()? {
        op = op.with_scale(number(bytes, mild)? / if mild { 8.0 } else { 1.0 });
    }
    let (n, m) = (batch.histories().rows(), batch.targets().rows());
    let queries = numbers(bytes, mild, product(&[m, op.heads, op.width]))?;
    let keys = numbers(bytes, mild, product(&[n, op.kv_heads, op.width]))?;
    let values = numbers(bytes, mild, product(&[n, op.kv_heads, op.value_width]))?;
    let bias = numbers(bytes, mild, product(&[n, op.heads]))?;
    let mut inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys));
    if bytes.arbitrary()? {
        inputs = inputs.with_values(Host::view(&values));
    }
    if bytes.arbitrary()? {
        inputs = inputs.with_bias(Host::view(&bias));
    }
    let exact = reference::target_attention(&op, &batch, &inputs).map(|exact| exact.out);
    let used = product(&[batch.targets().total(), op.heads, op.value_width]);
    agree(exact, Cpu::new().target_attention(&op, &batch, inputs), used, mild);
    Ok(())
}

pub(super) fn din(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mild = bytes.arbitrary()?;
    let Some(batch) = batch(bytes)? else { return Ok(()) };
    let op = Din::new(size(bytes)?).with_pooling(*bytes.choose(&[DinPooling::Sum, DinPooling::Softmax])?);
    let targets = numbers(bytes, mild, product(&[batch.targets().rows(), op.width]))?;
    let history = numbers(bytes, mild, product(&[batch.histories().rows(), op.width]))?;
    let layers: usize = bytes.int_in_range(0..=4)?;
    let (mut weights, mut biases, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    let mut inputs = product(&[4, op.width]);
    for _ in 0..layers {
        let units = size(bytes)?.min(64);
        weights.push(numbers(bytes, mild, product(&[units, inputs]))?);
        biases.push(numbers(bytes, mild, units)?);
        kinds.push((bytes.arbitrary::<u8>()?, numbers(bytes, mild, units)?));
        inputs = units;
    }
    let layer = |i: usize| {
        let parameter = Host::view(&kinds[i].1);
        let activation = match kinds[i].0 % 4 {
            0 => Activation::Relu,
            1 => Activation::Sigmoid,
            2 => Activation::Prelu { alpha: parameter },
            _ => Activation::Dice { gain: parameter, shift: parameter, alpha: parameter },
        };
        DinLayer::new(Host::view(&weights[i]), Host::view(&biases[i]), activation)
    };
    let hidden: Vec<DinLayer<'_, Host, f32>> = (0..layers).map(layer).collect();
    let (output_weight, output_bias) = (numbers(bytes, mild, inputs)?, numbers(bytes, mild, 1)?);
    let inputs = DinInputs::new(
        Host::view(&targets),
        Host::view(&history),
        &hidden,
        Host::view(&output_weight),
        Host::view(&output_bias),
    );
    let used = product(&[batch.targets().total(), op.width]);
    // Layers multiply, and softmax takes errors of large scores for changes of weight: only NaN is compared.
    agree(reference::din(&op, &batch, &inputs), Cpu::new().din(&op, &batch, inputs), used, false);
    Ok(())
}

pub(super) fn sdim(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mild = bytes.arbitrary()?;
    let Some(batch) = batch(bytes)? else { return Ok(()) };
    let op =
        Sdim::new(size(bytes)?).with_groups(size(bytes)?, size(bytes)?).with_normalise(bytes.arbitrary()?);
    let bits = op.bits.min(12) as u32;
    let history = numbers(bytes, mild, product(&[batch.histories().rows(), op.width]))?;
    let signatures = |bytes: &mut Unstructured<'_>, rows: usize| -> Result<Vec<u16>> {
        Ok(ids(bytes, product(&[rows, op.groups]), 1 << bits)?.into_iter().map(|id| id as u16).collect())
    };
    let (of_history, of_targets) =
        (signatures(bytes, batch.histories().rows())?, signatures(bytes, batch.targets().rows())?);
    let hashes = [&of_history, &of_targets].map(|given| Hash::Signatures16(Host::view(given)));
    let [history_hash, target_hash] = hashes;
    let cpu = Cpu::new();
    let inputs = SdimEncodeInputs::new(Host::view(&history), history_hash);
    if op.table_length(batch.users()).map_or(true, |length| length <= 1 << 16) {
        let exact = reference::sdim_encode(&op, batch.histories(), &inputs);
        agree(exact, cpu.sdim_encode(&op, batch.histories(), inputs), usize::MAX, mild);
        let inputs = SdimAttendInputs::new(Host::view(&history), history_hash, target_hash);
        let used = product(&[batch.targets().total(), op.width]);
        let exact = reference::sdim_attend(&op, &batch, &inputs);
        agree(exact, cpu.sdim_attend(&op, &batch, inputs), used, mild);
    }
    let rotations = numbers(bytes, mild, product(&[op.width, op.groups, op.bits]))?;
    let exact = reference::sdim_signatures(&op, &history, &rotations);
    let mut out = vec![0u16; exact.as_ref().map_or(0, Vec::len)];
    let (rows, rotations) = (Host::view(&history), Host::view(&rotations));
    let got = cpu.sdim_signatures_into::<f32, u16>(&op, rows, rotations, Host::view_mut(&mut out));
    assert_eq!(exact.is_ok() && op.bits <= 16, got.is_ok(), "{:?}; {:?}", exact.err(), got.err());
    Ok(())
}

/// A table's rows, width and elements.
fn table(bytes: &mut Unstructured<'_>, mild: bool) -> Result<(usize, usize, Vec<f32>)> {
    let (rows, width) = (size(bytes)?, size(bytes)?);
    let data = numbers(bytes, mild, product(&[rows, width]))?;
    Ok((rows, width, data))
}

fn tables(bytes: &mut Unstructured<'_>, mild: bool) -> Result<Vec<(usize, usize, Vec<f32>)>> {
    let count = bytes.int_in_range(0..=3)?;
    (0..count).map(|_| table(bytes, mild)).collect()
}

fn views(tables: &[(usize, usize, Vec<f32>)]) -> Vec<Table<'_, Host>> {
    tables
        .iter()
        .map(|(rows, width, data)| Table::new(*rows, *width, TableData::F32(Host::view(data))))
        .collect()
}

pub(super) fn lookup(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mild = bytes.arbitrary()?;
    let tables = tables(bytes, mild)?;
    let users = bytes.int_in_range(0..=4)?;
    let Some(bags) = jagged(bytes, users)? else { return Ok(()) };
    let limit = tables.iter().map(|table| table.0).min().unwrap_or(1);
    let ids = ids(bytes, product(&[bags.rows(), tables.len()]), limit)?;
    let op = Lookup::default().with_ids(*bytes.choose(&[IdPolicy::Error, IdPolicy::Zero])?);
    let views = views(&tables);
    let inputs = LookupInputs::new(Host::view(&ids), &views);
    let pool: u8 = bytes.arbitrary()?;
    let bags = || match pool % 3 {
        0 => Bags::Each,
        1 => Bags::Sum(&bags),
        _ => Bags::Mean(&bags),
    };
    let exact = reference::lookup(&op, bags(), &inputs).map(|exact| exact.0);
    agree(exact, Cpu::new().lookup(&op, bags(), inputs).map(|got| got.0), usize::MAX, mild);
    Ok(())
}

pub(super) fn decoupled(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mild = bytes.arbitrary()?;
    let Some(batch) = batch(bytes)? else { return Ok(()) };
    let (attention, representation) = (tables(bytes, mild)?, tables(bytes, mild)?);
    let features = if bytes.ratio(1, 32)? { size(bytes)?.min(8) } else { attention.len() };
    let scale = |bytes: &mut Unstructured<'_>| Ok(number(bytes, mild)? / 8.0);
    let scales = (0..features).map(|_| scale(bytes)).collect::<Result<Vec<f32>>>()?;
    let top_k = if bytes.arbitrary()? { Some(size(bytes)?) } else { None };
    let op = Decoupled::new(scales)
        .with_top_k(top_k)
        .with_multiply_target(bytes.arbitrary()?)
        .with_ids(*bytes.choose(&[IdPolicy::Error, IdPolicy::Zero])?);
    let limit = attention.iter().chain(&representation).map(|table| table.0).min().unwrap_or(1);
    let history_ids = ids(bytes, product(&[batch.histories().rows(), features]), limit)?;
    let target_ids = ids(bytes, product(&[batch.targets().rows(), features]), limit)?;
    let width = representation.iter().map(|table| table.1).fold(0, usize::saturating_add);
    let (attention, representation) = (views(&attention), views(&representation));
    let inputs =
        DecoupledInputs::new(&attention, &representation, Host::view(&history_ids), Host::view(&target_ids));
    let used = product(&[batch.targets().total(), width]);
    // A selection may differ where scores are equal up to rounding: with a top-K, only NaN is compared.
    let exact = reference::decoupled_attend(&op, &batch, &inputs);
    agree(exact, Cpu::new().decoupled_attend(&op, &batch, inputs), used, mild && top_k.is_none());
    Ok(())
}
