//! Cases from bytes.

use arbitrary::{Result, Unstructured};
use longseq::{DType, DinPooling, IdPolicy, Weighting};

use crate::data::{Data, Ids};
use crate::decoupled::DecoupledCase;
use crate::din::{DinCase, Kind};
use crate::lookup::{LookupCase, Pool, Storage};
use crate::named::AnyCase;
use crate::sdim::SdimCase;
use crate::target_attention::{AttentionCase, Bias};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];
const DATA: [Data; 5] = [Data::Normal, Data::Large, Data::Tiny, Data::Equal, Data::Zeros];

/// Lengths of histories and numbers of candidates, mostly small.
fn requests(bytes: &mut Unstructured<'_>) -> Result<(Vec<usize>, Vec<usize>)> {
    let users = bytes.int_in_range(0..=5)?;
    let request = |bytes: &mut Unstructured<'_>| {
        let longest = *bytes.choose(&[4, 40, 300, 3000])?;
        let most = if longest > 300 { 3 } else { 20 };
        Ok((bytes.int_in_range(0..=longest)?, bytes.int_in_range(0..=most)?))
    };
    (0..users).map(|_| request(bytes)).collect()
}

/// Rows and two widths of one to three tables.
fn tables(bytes: &mut Unstructured<'_>) -> Result<(Vec<usize>, Vec<usize>, Vec<usize>)> {
    let features = bytes.int_in_range(1..=3)?;
    let (mut rows, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..features {
        rows.push(bytes.int_in_range(1..=200)?);
        first.push(bytes.int_in_range(1..=70)?);
        second.push(bytes.int_in_range(1..=70)?);
    }
    Ok((rows, first, second))
}

fn policy(bytes: &mut Unstructured<'_>) -> Result<IdPolicy> {
    Ok(*bytes.choose(&[IdPolicy::Error, IdPolicy::Zero])?)
}

pub(super) fn target_attention(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let (histories, targets) = requests(bytes)?;
    let (heads, kv_heads) = *bytes.choose(&[(1, 1), (2, 1), (4, 2), (3, 3)])?;
    let divisor = *bytes.choose(&[1.0, 3.0, -7.5])?;
    let weightings = [Weighting::Softmax, Weighting::Relu, Weighting::Silu { divisor }, Weighting::Identity];
    let case = AttentionCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        heads,
        kv_heads,
        width: bytes.int_in_range(1..=140)?,
        value_width: if bytes.arbitrary()? { Some(bytes.int_in_range(1..=140)?) } else { None },
        scale: if bytes.arbitrary()? { Some(f32::from(bytes.arbitrary::<i8>()?) / 128.0) } else { None },
        weighting: *bytes.choose(&weightings)?,
        bias: *bytes.choose(&[Bias::None, Bias::Normal])?,
        ..Default::default()
    };
    Ok(AnyCase::Attention(case))
}

pub(super) fn din(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let (histories, targets) = requests(bytes)?;
    let layers = bytes.int_in_range(1..=3)?;
    let case = DinCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: Data::Normal,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        width: bytes.int_in_range(1..=70)?,
        hidden: (0..layers).map(|_| bytes.int_in_range(1..=90)).collect::<Result<_>>()?,
        activation: *bytes.choose(&[Kind::Relu, Kind::Sigmoid, Kind::Prelu, Kind::Dice])?,
        pooling: *bytes.choose(&[DinPooling::Sum, DinPooling::Softmax])?,
        ..Default::default()
    };
    Ok(AnyCase::Din(case))
}

pub(super) fn sdim(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let (histories, targets) = requests(bytes)?;
    let case = SdimCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        width: bytes.int_in_range(1..=140)?,
        groups: bytes.int_in_range(1..=20)?,
        bits: bytes.int_in_range(1..=12)?,
        normalise: bytes.arbitrary()?,
    };
    Ok(AnyCase::Sdim(case))
}

pub(super) fn lookup(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let (table_rows, widths, second_widths) = tables(bytes)?;
    let bags = bytes.int_in_range(0..=10)?;
    let case = LookupCase {
        seed: bytes.arbitrary()?,
        storage: *bytes.choose(&Storage::ALL)?,
        table_rows,
        widths,
        second_widths: if bytes.arbitrary()? { second_widths } else { Vec::new() },
        bags: (0..bags).map(|_| bytes.int_in_range(0..=200)).collect::<Result<_>>()?,
        tail: bytes.int_in_range(0..=3)?,
        pool: *bytes.choose(&[Pool::Each, Pool::Sum, Pool::Mean])?,
        ids: *bytes.choose(&[Ids::Skewed, Ids::Uniform])?,
        policy: policy(bytes)?,
        ..Default::default()
    };
    Ok(AnyCase::Lookup(case))
}

pub(super) fn decoupled(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let (histories, targets) = requests(bytes)?;
    let (table_rows, attention_widths, representation_widths) = tables(bytes)?;
    let case = DecoupledCase {
        seed: bytes.arbitrary()?,
        storage: *bytes.choose(&Storage::ALL)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        table_rows,
        attention_widths,
        representation_widths,
        top_k: bytes.int_in_range(1..=1024)?,
        multiply_target: bytes.arbitrary()?,
        ids: *bytes.choose(&[Ids::Skewed, Ids::Uniform])?,
        policy: policy(bytes)?,
        ..Default::default()
    };
    Ok(AnyCase::Decoupled(case))
}
