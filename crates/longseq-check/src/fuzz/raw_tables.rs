//! Gradients of tables and steps on their rows, every argument of which comes from the bytes.

use arbitrary::{Result, Unstructured};
use longseq::reference::SparseGradientReference;
use longseq::*;

use super::bytes::*;
use super::raw::{LookUp, RawTable, Search, alike, both, views};
use super::raw_backward::{Outputs, area, narrow, wide};
use crate::lookup::dense;

/// A place for the gradient of a table, of one of the forms, or none.
enum Place {
    None,
    Dense(Vec<f32>),
    Sparse(Vec<u32>, Vec<f32>, [u32; 1]),
}

/// Places for the gradients of tables that are read with up to `ids` ids.
fn places(
    bytes: &mut Unstructured<'_>,
    outputs: &Outputs,
    tables: &[RawTable],
    ids: usize,
) -> Result<Vec<Place>> {
    let place = |(rows, width, _): &RawTable| {
        // More places than a table of no rows needs, of rows that no memory holds, would be refused.
        let spare = bytes.int_in_range(0..=2)?;
        let capacity = ids.min(*rows) + if *width <= 1 << 12 { spare } else { 0 };
        Ok(match bytes.int_in_range(0..=4)? {
            0 => Place::None,
            1 => Place::Dense(outputs.of(area(*rows, *width))),
            _ => {
                let ids = vec![0; capacity.min(1 << 13)];
                Place::Sparse(ids, outputs.of(area(capacity, *width)), [0])
            }
        })
    };
    tables.iter().map(place).collect()
}

fn gradients(places: &mut [Place]) -> Vec<Option<TableGradient<'_, Host>>> {
    places.iter_mut().map(gradient).collect()
}

fn gradient(place: &mut Place) -> Option<TableGradient<'_, Host>> {
    match place {
        Place::None => None,
        Place::Dense(rows) => Some(TableGradient::Dense(Host::view_mut(rows))),
        Place::Sparse(ids, rows, count) => {
            let (ids, rows) = (Host::view_mut(ids), Host::view_mut(rows));
            Some(SparseGradientMut::new(ids, rows, Host::view_mut(count)).into())
        }
    }
}

fn is_any(places: &[Place]) -> bool {
    places.iter().any(|place| !matches!(place, Place::None))
}

fn alike_tables(exact: &[SparseGradientReference], got: &[Place], tables: &[RawTable], mild: bool) {
    for ((exact, got), table) in exact.iter().zip(got).zip(tables) {
        match got {
            Place::None => {}
            Place::Dense(rows) => alike(&dense(exact, rows.len(), table.1), rows, usize::MAX, mild),
            Place::Sparse(ids, rows, [count]) => {
                assert_eq!(ids[..*count as usize], exact.ids);
                alike(&exact.rows, rows, usize::MAX, mild);
            }
        }
    }
}

/// Ids in order that belong to nothing.
fn disorder(bytes: &mut Unstructured<'_>) -> Result<SortedIdsBuffers<Host>> {
    let words = |bytes: &mut Unstructured<'_>, count: usize| -> Result<Vec<u32>> {
        let word = |bytes: &mut Unstructured<'_>| match bytes.arbitrary::<u8>()? {
            255 => bytes.arbitrary(),
            small => Ok(u32::from(small % 24)),
        };
        (0..count).map(|_| word(bytes)).collect()
    };
    let (capacity, positions) = (bytes.int_in_range(0..=20)?, bytes.int_in_range(0..=40)?);
    let (ids, starts) = (words(bytes, capacity)?.into(), words(bytes, capacity + 1)?.into());
    Ok(SortedIdsBuffers::new(ids, starts, words(bytes, positions)?.into(), words(bytes, 1)?.into()))
}

pub(super) fn lookup_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = LookUp::new(bytes, kind)? else { return Ok(()) };
    let (op, cpu, features) = (&call.op, Cpu::new(), call.tables.len());
    let first = views(&call.tables);
    let second: Vec<RawTable> = match bytes.arbitrary()? {
        true => call.tables.iter().map(|(rows, _, _)| (*rows, 1, vec![0.0; area(*rows, 1)])).collect(),
        false => Vec::new(),
    };
    let second_views = views(&second);
    let inputs = call.inputs(&first, &second_views);
    let (ids, rows) = call.rows();
    let width = call.tables.iter().map(|table| table.1).fold(0, usize::saturating_add);
    let grad = numbers(bytes, kind, product(&[rows, width]))?;
    let grad_second = numbers(bytes, kind, product(&[rows, features]))?;
    let (mut places_first, mut places_second) =
        (places(bytes, &outputs, &call.tables, ids)?, places(bytes, &outputs, &second, ids)?);
    let outputs = Outputs { is_wrong: outputs.is_wrong && (is_any(&places_first) || is_any(&places_second)) };
    let sort = |feature: usize| {
        let used = Host::view(&call.ids[..(ids * features).min(call.ids.len())]);
        cpu.sort_ids(IdColumn::new(used, features, feature, call.tables[feature].0).with_policy(op.ids))
    };
    let is_disordered = bytes.ratio(1, 8)?;
    let sorted: Vec<SortedIdsBuffers<Host>> = match bytes.arbitrary()? {
        _ if is_disordered => (0..features).map(|_| disorder(bytes)).collect::<Result<_>>()?,
        true => (0..features).map(sort).collect::<longseq::Result<_>>().unwrap_or_default(),
        false => Vec::new(),
    };
    let sorted: Vec<SortedIds<'_, Host>> = sorted.iter().map(|sorted| sorted.sorted()).collect();
    let wide_second = (!second.is_empty()).then(|| wide(&grad_second));
    let exact = reference::lookup_backward(op, call.bags(), &inputs, &wide(&grad), wide_second.as_deref());
    let mut grad_out = LookupGradOut::new(Host::view(&grad));
    grad_out.second = wide_second.is_some().then(|| Host::view(&grad_second));
    let grads = LookupGradients::new()
        .with_tables(gradients(&mut places_first))
        .with_second_tables(gradients(&mut places_second));
    let saved = LookupSaved::new().with_sorted(&sorted);
    let got = cpu.lookup_backward_into(op, call.bags(), inputs, saved, grad_out, grads);
    // Ids of another order give other gradients, or are refused.
    if is_disordered {
        return Ok(());
    }
    if let Some((exact, ())) = outputs.both(exact, got).filter(|_| kind != Numbers::Any) {
        alike_tables(&exact.tables, &places_first, &call.tables, kind == Numbers::Mild);
        alike_tables(&exact.second_tables, &places_second, &second, kind == Numbers::Mild);
    }
    Ok(())
}

/// An optimiser, mostly a valid one.
fn optimiser(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<Optimiser> {
    let rate = number(bytes, kind)?;
    let op = match bytes.int_in_range(0..=3)? {
        0 => Optimiser::sgd(rate),
        1 => Optimiser::row_wise_adagrad(rate),
        2 => Optimiser::adagrad(rate),
        _ => Optimiser::adam(
            rate,
            if bytes.ratio(1, 16)? { bytes.arbitrary()? } else { 1 + u64::from(bytes.arbitrary::<u8>()?) },
        ),
    };
    let mut beta = || -> Result<f32> {
        Ok(match bytes.arbitrary::<u8>()? {
            255 => number(bytes, kind)?,
            small => f32::from(small) / 256.0,
        })
    };
    let op = op.with_betas(beta()?, beta()?);
    let op = if bytes.ratio(1, 4)? { op.with_eps(number(bytes, kind)?) } else { op };
    Ok(if bytes.arbitrary()? { op.with_weight_decay(number(bytes, kind)?) } else { op })
}

pub(super) fn update_rows(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let op = optimiser(bytes, kind)?;
    let (rows, width) = (size(bytes)?, size(bytes)?);
    let mut table = numbers(bytes, kind, product(&[rows, width]))?;
    let is_strange = bytes.ratio(1, 16)?;
    let method = if is_strange { bytes.int_in_range(0..=2)? } else { 3 };
    let mut state = match (method, op.method) {
        (0, _) | (3, OptimiserMethod::Sgd) => vec![],
        (3, OptimiserMethod::RowWiseAdagrad { .. }) => vec![numbers(bytes, kind, rows)?],
        (1, _) | (3, OptimiserMethod::Adagrad { .. }) => vec![numbers(bytes, kind, product(&[rows, width]))?],
        _ => {
            let moments = product(&[rows, width]);
            vec![numbers(bytes, kind, moments)?, numbers(bytes, kind, moments)?]
        }
    };
    // Ascending, mostly.
    let (mut ids, mut next) = (Vec::new(), 0u32);
    for _ in 0..bytes.int_in_range(0..=6)? {
        match bytes.arbitrary::<u8>()? {
            255 => ids.push(bytes.arbitrary()?),
            step => {
                next = next.saturating_add(u32::from(step % 3));
                ids.push(next);
                next = next.saturating_add(u32::from(step < 250));
            }
        }
    }
    let count = if bytes.ratio(1, 16)? { bytes.arbitrary()? } else { ids.len() as u32 };
    let gradient_rows = numbers(bytes, kind, product(&[ids.len(), width]))?;
    let count = [count];
    let gradient = SparseGradient::new(Host::view(&ids), Host::view(&gradient_rows), Host::view(&count));
    let before = (bits(&table), state.iter().map(|state| bits(state)).collect::<Vec<_>>());
    let exact = {
        let mut table = table.clone();
        let mut state = state.clone();
        let table = TableMut::new(rows, width, Host::view_mut(&mut table));
        reference::update_rows(&op, &table, &views_of(&mut state), gradient)
    };
    let target = TableMut::new(rows, width, Host::view_mut(&mut table));
    let got = Cpu::new().update_rows(&op, target, views_of(&mut state), gradient);
    let is_refused = got.is_err();
    let Some((exact, ())) = both(exact, got).filter(|_| kind != Numbers::Any) else {
        let after = (bits(&table), state.iter().map(|state| bits(state)).collect::<Vec<_>>());
        assert!(!is_refused || after == before, "a call that was refused changed something");
        return Ok(());
    };
    alike(&exact.table, &table, usize::MAX, false);
    for (exact, got) in exact.state.iter().zip(&state) {
        alike(exact, got, usize::MAX, kind == Numbers::Mild);
    }
    Ok(())
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn views_of(state: &mut [Vec<f32>]) -> OptimiserState<'_, Host> {
    match state {
        [] => OptimiserState::Empty,
        [sums] => OptimiserState::Sums(Host::view_mut(sums)),
        [first, second, ..] => {
            OptimiserState::Moments { first: Host::view_mut(first), second: Host::view_mut(second) }
        }
    }
}

/// Positions, scores and counts `[M, K]`, mostly valid ones.
struct Kept {
    positions: Vec<u32>,
    scores: Vec<f32>,
    counts: Vec<u32>,
}

impl Kept {
    fn new(bytes: &mut Unstructured<'_>, kind: Numbers, call: &Search) -> Result<Self> {
        let (rows, top_k) = (call.batch.targets().rows(), call.op.top_k.unwrap_or(1));
        // Positions and counts of candidates of a user, which has so many behaviours; rows of nobody have any.
        let lengths = call.batch.requests().flat_map(|(history, targets)| vec![history.len(); targets.len()]);
        let lengths: Vec<usize> = lengths.collect();
        let mut positions = ids(bytes, product(&[rows, top_k]), 1 << 8)?;
        let mut counts = ids(bytes, rows, 1 << 8)?;
        let is_bent = bytes.ratio(1, 8)?;
        for (m, &length) in lengths.iter().enumerate().filter(|_| !is_bent) {
            let slots = m.saturating_mul(top_k)..m.saturating_add(1).saturating_mul(top_k);
            for position in positions.get_mut(slots).into_iter().flatten() {
                *position %= length.max(1) as u32;
            }
            if let Some(count) = counts.get_mut(m) {
                *count %= length.min(top_k).saturating_add(1) as u32;
            }
        }
        Ok(Self { positions, scores: numbers(bytes, kind, product(&[rows, top_k]))?, counts })
    }

    /// What the reference keeps; nothing of so many candidates and so large a `K` that their slots would not fit into memory.
    fn best(call: &Search, inputs: &SearchInputs<'_, Host>) -> Option<Self> {
        call.op.selection_length(&call.batch).ok().filter(|&slots| slots <= 1 << 20)?;
        let best = reference::decoupled_search(&call.op, &call.batch, inputs).ok()?;
        Some(Self { positions: best.positions, scores: narrow(best.scores), counts: best.counts })
    }

    fn selection(&self) -> Selection<'_, Host> {
        Selection::new(Host::view(&self.positions), Host::view(&self.scores), Host::view(&self.counts))
    }
}

pub(super) fn decoupled_backward(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (kind, outputs) = (Numbers::new(bytes)?, Outputs::new(bytes)?);
    let Some(call) = Search::new(bytes, kind)? else { return Ok(()) };
    match bytes.int_in_range(0..=2)? {
        0 => search_backward(bytes, kind, &outputs, &call),
        1 => aggregate_backward(bytes, kind, &outputs, &call),
        _ => attend_backward(bytes, kind, &outputs, &call),
    }
}

fn search_backward(
    bytes: &mut Unstructured<'_>,
    kind: Numbers,
    outputs: &Outputs,
    call: &Search,
) -> Result<()> {
    let (op, batch, attention) = (&call.op, &call.batch, views(&call.attention));
    let kept = Kept::new(bytes, kind, call)?;
    let grad = numbers(bytes, kind, product(&[batch.targets().rows(), op.top_k.unwrap_or(1)]))?;
    let mut places = places(bytes, outputs, &call.attention, op.gradient_capacity(batch))?;
    let outputs = Outputs { is_wrong: outputs.is_wrong && is_any(&places) };
    let inputs = SearchInputs::new(&attention, Host::view(&call.history_ids), Host::view(&call.target_ids));
    let exact = reference::decoupled_search_backward(op, batch, &inputs, &kept.selection(), &wide(&grad));
    let grads = SearchGradients::new().with_attention(gradients(&mut places));
    let (selection, grad) = (kept.selection(), Host::view(&grad));
    let got = Cpu::new().decoupled_search_backward_into(op, batch, inputs, selection, grad, grads);
    if let Some((exact, ())) = outputs.both(exact, got).filter(|_| kind != Numbers::Any) {
        alike_tables(&exact, &places, &call.attention, kind == Numbers::Mild);
    }
    Ok(())
}

fn aggregate_backward(
    bytes: &mut Unstructured<'_>,
    kind: Numbers,
    outputs: &Outputs,
    call: &Search,
) -> Result<()> {
    let (op, batch, representation) = (&call.op, &call.batch, views(&call.representation));
    let (kept, rows) = (Kept::new(bytes, kind, call)?, batch.targets().rows());
    let grad = numbers(bytes, kind, product(&[rows, call.width()]))?;
    let mut places = places(bytes, outputs, &call.representation, op.gradient_capacity(batch))?;
    let mut scores = outputs.of(area(rows, op.top_k.unwrap_or(1)));
    let inputs =
        AggregateInputs::new(&representation, Host::view(&call.history_ids), Host::view(&call.target_ids));
    let exact = reference::decoupled_aggregate_backward(op, batch, &inputs, &kept.selection(), &wide(&grad));
    let grads = AggregateGradients::new()
        .with_representation(gradients(&mut places))
        .with_scores(Host::view_mut(&mut scores));
    let (selection, grad) = (kept.selection(), Host::view(&grad));
    let got = Cpu::new().decoupled_aggregate_backward_into(op, batch, inputs, selection, grad, grads);
    if let Some((exact, ())) = outputs.both(exact, got).filter(|_| kind != Numbers::Any) {
        alike_tables(&exact.representation, &places, &call.representation, false);
        let used = product(&[batch.targets().total(), op.top_k.unwrap_or(1)]);
        alike(&exact.scores, &scores, used, false);
    }
    Ok(())
}

fn attend_backward(
    bytes: &mut Unstructured<'_>,
    kind: Numbers,
    outputs: &Outputs,
    call: &Search,
) -> Result<()> {
    let (op, batch) = (&call.op, &call.batch);
    let (attention, representation) = (views(&call.attention), views(&call.representation));
    let ids = [&call.history_ids, &call.target_ids].map(|ids| Host::view(ids));
    let inputs = DecoupledInputs::new(&attention, &representation, ids[0], ids[1]);
    let grad = numbers(bytes, kind, product(&[batch.targets().rows(), call.width()]))?;
    let capacity = op.gradient_capacity(batch);
    let mut first = places(bytes, outputs, &call.attention, capacity)?;
    let mut second = places(bytes, outputs, &call.representation, capacity)?;
    let outputs = Outputs { is_wrong: outputs.is_wrong && (is_any(&first) || is_any(&second)) };
    let best = match op.top_k {
        Some(_) if bytes.arbitrary()? => Kept::best(call, &SearchInputs::new(&attention, ids[0], ids[1])),
        _ => None,
    };
    let saved = best
        .as_ref()
        .map_or_else(DecoupledSaved::new, |best| DecoupledSaved::new().with_selection(best.selection()));
    let exact = reference::decoupled_attend_backward(op, batch, &inputs, &wide(&grad));
    let grads = DecoupledGradients::new()
        .with_attention(gradients(&mut first))
        .with_representation(gradients(&mut second));
    let got = Cpu::new().decoupled_attend_backward_into(op, batch, inputs, saved, Host::view(&grad), grads);
    // The backend's own selection may differ where scores are equal up to rounding.
    let is_same = op.top_k.is_none() || best.is_some();
    if let Some((exact, ())) = outputs.both(exact, got).filter(|_| kind != Numbers::Any && is_same) {
        alike_tables(&exact.attention, &first, &call.attention, false);
        alike_tables(&exact.representation, &second, &call.representation, false);
    }
    Ok(())
}
