//! Cases from bytes.

use arbitrary::{Result, Unstructured};
use longseq::{DType, DinPooling, IdPolicy, KeptAmong, Optimiser, SearchScore, Weighting};

use crate::data::{Data, Ids};
use crate::decoupled::{DecoupledBackwardCase, DecoupledCase};
use crate::din::{DinBackwardCase, DinCase, Kind, StatisticsCase};
use crate::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use crate::lookup::{Form, LookupBackwardCase, LookupCase, Pool, Storage, UpdateRowsCase};
use crate::named::AnyCase;
use crate::sdim::{Given, SdimBackwardCase, SdimCase, Weights};
use crate::search::{Compared, NewestCase, SearchCase};
use crate::selected::{Choice, HistogramCase, Mix, SelectedBackwardCase, SelectedCase};
use crate::target_attention::{AttentionBackwardCase, AttentionCase, Bias, MergeBackwardCase};
use crate::tin::{TinBackwardCase, TinCase};

pub(super) use super::selected_tables::case as selected_tables;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];
const DATA: [Data; 5] = [Data::Normal, Data::Large, Data::Tiny, Data::Equal, Data::Zeros];
const FORMS: [Form; 3] = [Form::Sparse, Form::Dense, Form::None];

/// Lengths of histories and numbers of candidates, mostly small: the reference is slow under the address sanitizer.
pub(super) fn requests(bytes: &mut Unstructured<'_>) -> Result<(Vec<usize>, Vec<usize>)> {
    let users = bytes.int_in_range(0..=4)?;
    let request = |bytes: &mut Unstructured<'_>| {
        let (longest, most) = *bytes.choose(&[(3, 20), (3, 4), (12, 20), (40, 4), (70, 18), (600, 2)])?;
        Ok((bytes.int_in_range(0..=longest)?, bytes.int_in_range(0..=most)?))
    };
    (0..users).map(|_| request(bytes)).collect()
}

/// A width, mostly small.
fn width(bytes: &mut Unstructured<'_>) -> Result<usize> {
    let most = *bytes.choose(&[6, 12, 24, 24, 70, 140])?;
    bytes.int_in_range(1..=most)
}

/// Rows and two widths of one to three tables.
fn tables(bytes: &mut Unstructured<'_>) -> Result<(Vec<usize>, Vec<usize>, Vec<usize>)> {
    let features = bytes.int_in_range(1..=3)?;
    let (mut rows, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..features {
        rows.push(bytes.int_in_range(1..=200)?);
        first.push(width(bytes)?);
        second.push(width(bytes)?);
    }
    Ok((rows, first, second))
}

/// The length of a bag.
fn bag(bytes: &mut Unstructured<'_>) -> Result<usize> {
    let most = *bytes.choose(&[3, 20, 200])?;
    bytes.int_in_range(0..=most)
}

/// Bits of a signature: tables of many buckets take the reference long.
fn bits(bytes: &mut Unstructured<'_>) -> Result<usize> {
    let most = *bytes.choose(&[3, 5, 5, 12])?;
    bytes.int_in_range(1..=most)
}

fn top_k(bytes: &mut Unstructured<'_>) -> Result<usize> {
    let most = *bytes.choose(&[4, 20, 80, 1024])?;
    bytes.int_in_range(1..=most)
}

fn policy(bytes: &mut Unstructured<'_>) -> Result<IdPolicy> {
    Ok(*bytes.choose(&[IdPolicy::Error, IdPolicy::Zero])?)
}

fn attention_case(bytes: &mut Unstructured<'_>) -> Result<AttentionCase> {
    let (histories, targets) = requests(bytes)?;
    let (heads, kv_heads) = *bytes.choose(&[(1, 1), (2, 1), (4, 2), (3, 3)])?;
    let divisor = *bytes.choose(&[1.0, 3.0, -7.5])?;
    let weightings = [Weighting::Softmax, Weighting::Relu, Weighting::silu(divisor), Weighting::Identity];
    Ok(AttentionCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        heads,
        kv_heads,
        width: width(bytes)?,
        value_width: if bytes.arbitrary()? { Some(width(bytes)?) } else { None },
        scale: if bytes.arbitrary()? { Some(f32::from(bytes.arbitrary::<i8>()?) / 128.0) } else { None },
        weighting: *bytes.choose(&weightings)?,
        bias: *bytes.choose(&[Bias::None, Bias::Normal])?,
        ..Default::default()
    })
}

pub(super) fn target_attention(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Attention(attention_case(bytes)?))
}

fn din_case(bytes: &mut Unstructured<'_>) -> Result<DinCase> {
    let (histories, targets) = requests(bytes)?;
    let layers = bytes.int_in_range(1..=3)?;
    Ok(DinCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: Data::Normal,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        width: width(bytes)?,
        hidden: (0..layers).map(|_| width(bytes)).collect::<Result<_>>()?,
        activation: *bytes.choose(&[Kind::Relu, Kind::Sigmoid, Kind::Prelu, Kind::Dice])?,
        pooling: *bytes.choose(&[DinPooling::Sum, DinPooling::Softmax])?,
        ..Default::default()
    })
}

pub(super) fn din(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Din(din_case(bytes)?))
}

fn sdim_case(bytes: &mut Unstructured<'_>) -> Result<SdimCase> {
    let (histories, targets) = requests(bytes)?;
    let mut case = SdimCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        width: width(bytes)?,
        groups: bytes.int_in_range(1..=20)?,
        bits: bits(bytes)?,
        normalise: bytes.arbitrary()?,
        shared: bytes.arbitrary()?,
        weights: *bytes.choose(&[Weights::None, Weights::Fading, Weights::Signed])?,
        slots: bytes.arbitrary()?,
        given: Given::Rows,
    };
    if bytes.arbitrary()? {
        let items = bytes.int_in_range(1..=40)?;
        let eight = case.bits <= 8 && bytes.arbitrary()?;
        case.given = if eight { Given::Items8(items) } else { Given::Items16(items) };
    }
    Ok(case)
}

pub(super) fn sdim(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Sdim(sdim_case(bytes)?))
}

fn lookup_case(bytes: &mut Unstructured<'_>) -> Result<LookupCase> {
    let (table_rows, widths, second_widths) = tables(bytes)?;
    let bags = bytes.int_in_range(0..=10)?;
    let mut case = LookupCase {
        seed: bytes.arbitrary()?,
        storage: *bytes.choose(&Storage::ALL)?,
        table_rows,
        widths,
        second_widths: if bytes.arbitrary()? { second_widths } else { Vec::new() },
        bags: (0..bags).map(|_| bag(bytes)).collect::<Result<_>>()?,
        tail: bytes.int_in_range(0..=3)?,
        pool: *bytes.choose(&[Pool::Each, Pool::Sum, Pool::Mean])?,
        ids: *bytes.choose(&[Ids::Skewed, Ids::Uniform])?,
        policy: *bytes.choose(&[IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip])?,
        ..Default::default()
    };
    if case.pool == Pool::Sum && bytes.arbitrary()? {
        case.weights = Some(Data::Normal);
    }
    Ok(case)
}

pub(super) fn lookup(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Lookup(lookup_case(bytes)?))
}

fn decoupled_case(bytes: &mut Unstructured<'_>) -> Result<DecoupledCase> {
    let (histories, targets) = requests(bytes)?;
    let (table_rows, attention_widths, representation_widths) = tables(bytes)?;
    Ok(DecoupledCase {
        seed: bytes.arbitrary()?,
        storage: *bytes.choose(&Storage::ALL)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        table_rows,
        attention_widths,
        representation_widths,
        top_k: top_k(bytes)?,
        multiply_target: bytes.arbitrary()?,
        ids: *bytes.choose(&[Ids::Skewed, Ids::Uniform])?,
        policy: policy(bytes)?,
        ..Default::default()
    })
}

pub(super) fn decoupled(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Decoupled(decoupled_case(bytes)?))
}

pub(super) fn search(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Search(search_case(bytes)?))
}

fn search_case(bytes: &mut Unstructured<'_>) -> Result<SearchCase> {
    let (histories, targets) = requests(bytes)?;
    let dot = SearchScore::Dot { scale: f32::from(bytes.arbitrary::<i8>()?) / 128.0 };
    let score = *bytes.choose(&[dot, SearchScore::Cosine, SearchScore::Hamming, SearchScore::Match])?;
    let stored = match score {
        SearchScore::Dot { .. } => *bytes.choose(&Compared::ALL)?,
        SearchScore::Cosine => *bytes.choose(&Compared::WITH_COSINES)?,
        _ => *bytes.choose(&[Compared::F32, Compared::F16, Compared::Bf16])?,
    };
    Ok(SearchCase {
        seed: bytes.arbitrary()?,
        score,
        stored,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        width: width(bytes)?,
        top_k: top_k(bytes)?,
        bias: bytes.arbitrary::<bool>()? && score == dot,
        zeros: bytes.arbitrary()?,
        repeated: bytes.arbitrary()?,
    })
}

pub(super) fn selected_case(bytes: &mut Unstructured<'_>) -> Result<SelectedCase> {
    let (histories, targets) = requests(bytes)?;
    let (heads, kv_heads) = *bytes.choose(&[(1, 1), (2, 1), (4, 2), (3, 3)])?;
    let mut gamma = || -> Result<f32> { Ok(f32::from(*bytes.choose(&[0i8, 0, 1, 2, -1, -3])?) / 2.0) };
    let gammas = [gamma()?, gamma()?, gamma()?];
    Ok(SelectedCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        heads,
        kv_heads,
        width: width(bytes)?,
        value_width: if bytes.arbitrary()? { Some(width(bytes)?) } else { None },
        scale: if bytes.arbitrary()? { Some(f32::from(bytes.arbitrary::<i8>()?) / 128.0) } else { None },
        top_k: top_k(bytes)?,
        choice: *bytes.choose(&[Choice::Some, Choice::Oldest, Choice::Same])?,
        mix: *bytes.choose(&[Mix::None, Mix::Normal, Mix::All(gammas)])?,
        bias: *bytes.choose(&[Bias::None, Bias::Normal, Bias::Mask])?,
        some_removed: bytes.arbitrary()?,
        ..Default::default()
    })
}

pub(super) fn selected(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    if bytes.ratio(1, 4)? {
        let (search, steps) = (search_case(bytes)?, bytes.int_in_range(1..=300)?);
        if matches!(search.score, SearchScore::Dot { .. } | SearchScore::Cosine) {
            return Ok(AnyCase::Newest(NewestCase { search, steps }));
        }
    }
    if bytes.ratio(1, 4)? {
        let (_, targets) = requests(bytes)?;
        return Ok(AnyCase::Histogram(HistogramCase {
            seed: bytes.arbitrary()?,
            targets,
            tail: bytes.int_in_range(0..=3)?,
            steps: bytes.int_in_range(1..=300)?,
            top_k: top_k(bytes)?,
            edges: bytes.arbitrary()?,
            unusual: bytes.arbitrary()?,
        }));
    }
    Ok(AnyCase::Selected(selected_case(bytes)?))
}

pub(super) fn selected_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let forward = selected_case(bytes)?;
    let (asked, narrow, with_grad_lse) = bytes.arbitrary()?;
    Ok(AnyCase::SelectedBackward(SelectedBackwardCase { forward, asked, narrow, with_grad_lse, nan: None }))
}

fn tin_case(bytes: &mut Unstructured<'_>) -> Result<TinCase> {
    let (histories, targets) = requests(bytes)?;
    Ok(TinCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: *bytes.choose(&[Data::Normal, Data::Tiny, Data::Equal, Data::Zeros])?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        width: width(bytes)?,
        positions: bytes.int_in_range(1..=300)?,
        given: bytes.arbitrary()?,
        scale: if bytes.arbitrary()? { Some(f32::from(bytes.arbitrary::<i8>()?) / 128.0) } else { None },
        multiply_target: bytes.arbitrary()?,
        nan: None,
    })
}

pub(super) fn tin(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Tin(tin_case(bytes)?))
}

pub(super) fn tin_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let (asked, narrow) = bytes.arbitrary()?;
    Ok(AnyCase::TinBackward(TinBackwardCase { forward: tin_case(bytes)?, asked, narrow }))
}

fn channels_case(bytes: &mut Unstructured<'_>) -> Result<ChannelsCase> {
    let (histories, targets) = requests(bytes)?;
    let channels = bytes.int_in_range(1..=9)?;
    let dependent = if bytes.ratio(1, 4)? { Some(bytes.int_in_range(0..=channels - 1)?) } else { None };
    Ok(ChannelsCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        data: *bytes.choose(&DATA)?,
        histories,
        targets,
        tail: bytes.int_in_range(0..=3)?,
        // Axes in a space of as many dimensions may be near each other by chance.
        width: channels + 3 + width(bytes)?,
        channels,
        top_k: top_k(bytes)?,
        among: *bytes.choose(&[KeptAmong::Routed, KeptAmong::All])?,
        normalise: bytes.arbitrary()?,
        shared: *bytes.choose(&[0.0, 0.5, 2.0])?,
        dependent,
        ..Default::default()
    })
}

pub(super) fn interest_channels(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    Ok(AnyCase::Channels(channels_case(bytes)?))
}

pub(super) fn interest_channels_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let forward = channels_case(bytes)?;
    let (asked, narrow) = bytes.arbitrary()?;
    Ok(AnyCase::ChannelsBackward(ChannelsBackwardCase { forward, asked, narrow }))
}

pub(super) fn target_attention_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    if bytes.ratio(1, 8)? {
        let (seed, rows, value_width) = (bytes.arbitrary()?, bytes.int_in_range(0..=800)?, width(bytes)?);
        let (dead_parts, asked) = (bytes.arbitrary()?, bytes.arbitrary()?);
        return Ok(AnyCase::MergeBackward(MergeBackwardCase {
            seed,
            dtype: DType::F32,
            rows,
            value_width,
            dead_parts,
            asked,
        }));
    }
    let forward = attention_case(bytes)?;
    let (asked, narrow, with_grad_lse) = bytes.arbitrary()?;
    Ok(AnyCase::AttentionBackward(AttentionBackwardCase {
        forward,
        asked,
        narrow,
        with_grad_lse,
        ..Default::default()
    }))
}

pub(super) fn din_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let forward = din_case(bytes)?;
    if bytes.ratio(1, 4)? {
        return Ok(AnyCase::DinStatistics(StatisticsCase { forward }));
    }
    let asked = if bytes.arbitrary()? { u32::MAX } else { bytes.arbitrary()? };
    Ok(AnyCase::DinBackward(DinBackwardCase { forward, asked, narrow: bytes.arbitrary()?, nan: None }))
}

pub(super) fn sdim_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let forward = sdim_case(bytes)?;
    let (narrow, hashed, eight): (_, _, bool) = bytes.arbitrary()?;
    let bytes = eight && forward.bits <= 8;
    Ok(AnyCase::SdimBackward(SdimBackwardCase { forward, narrow, hashed, bytes, nan: None }))
}

fn forms(bytes: &mut Unstructured<'_>) -> Result<Vec<Form>> {
    let count = bytes.int_in_range(1..=6)?;
    (0..count).map(|_| Ok(*bytes.choose(&FORMS)?)).collect()
}

pub(super) fn lookup_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let case = LookupBackwardCase {
        forward: lookup_case(bytes)?,
        grad: *bytes.choose(&DATA)?,
        nan: None,
        forms: forms(bytes)?,
        sorted: bytes.arbitrary()?,
        spare: bytes.int_in_range(0..=3)?,
        of_weights: bytes.arbitrary()?,
    };
    Ok(AnyCase::LookupBackward(case))
}

pub(super) fn update_rows(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let rate = *bytes.choose(&[0.3, 0.01, -0.1, 0.0])?;
    let step = 1 + u64::from(bytes.arbitrary::<u16>()?);
    let op = match bytes.int_in_range(0..=3)? {
        0 => Optimiser::sgd(rate),
        1 => Optimiser::row_wise_adagrad(rate),
        2 => Optimiser::adagrad(rate),
        _ => {
            let betas: [u8; 2] = bytes.arbitrary()?;
            Optimiser::adam(rate, step).with_betas(f32::from(betas[0]) / 256.0, f32::from(betas[1]) / 256.0)
        }
    };
    let most = *bytes.choose(&[5, 60, 1500])?;
    let case = UpdateRowsCase {
        seed: bytes.arbitrary()?,
        dtype: *bytes.choose(&DTYPES)?,
        rows: bytes.int_in_range(1..=most)?,
        width: width(bytes)?,
        ids: bytes.int_in_range(0..=most)?,
        draw: *bytes.choose(&[Ids::Skewed, Ids::Uniform, Ids::Last])?,
        spare: bytes.int_in_range(0..=2)?,
        optimiser: op
            .with_eps(*bytes.choose(&[1e-8, 1e-3, 1.0])?)
            .with_weight_decay(*bytes.choose(&[0.0, 0.1])?),
        data: *bytes.choose(&[Data::Normal, Data::Scaled(1e3), Data::Scaled(1e-6), Data::Zeros])?,
        fresh: false,
        nan: None,
    };
    Ok(AnyCase::UpdateRows(case))
}

pub(super) fn decoupled_backward(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let case = DecoupledBackwardCase {
        forward: decoupled_case(bytes)?,
        grad: *bytes.choose(&DATA)?,
        nan: None,
        forms: forms(bytes)?,
        scores: bytes.arbitrary()?,
        given: bytes.arbitrary()?,
        spare: bytes.int_in_range(0..=3)?,
    };
    Ok(AnyCase::DecoupledBackward(case))
}
