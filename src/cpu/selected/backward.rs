//! Gradients of attention over a selection on the CPU.
//!
//! A task computes some candidates: their weights again, the gradients of their scores, and of what belongs to a candidate alone. What
//! a behaviour gets from a candidate is a number times a row of the candidate, so only the number is kept, with the two row numbers; these are
//! sorted by behaviour, and each behaviour adds up its rows (`history.rs`).

use std::ops::Range;

use crate::cpu::selected::history::{HistoryGradients, sort, wide, write_history};
use crate::cpu::selected::kept::{CANDIDATES, Candidate, Kept, WideInputs, term};
use crate::cpu::selected::pass::{Asked, Found, Pass};
use crate::cpu::selected::tables::TableGradients;
use crate::cpu::softmax::PART;
use crate::cpu::sorted_entries::Entry;
use crate::cpu::threads::{map, split_rows};
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, WideRows, dot_lanes};
use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::ViewMut;
use crate::ops::{
    SelectedAttention, SelectedAttentionGradOut, SelectedAttentionGradients, SelectedAttentionInputs,
    SelectedKeys, SelectedTableGradients, SelectedTableInputs, TableGradient,
};

pub(super) fn backward<T: Element, G: Element>(
    instructions: Instructions,
    op: &SelectedAttention,
    batch: &Batch,
    given: (&SelectedAttentionInputs<'_, Host, T>, &SelectedAttentionGradOut<'_, Host, T>),
    grads: SelectedAttentionGradients<'_, Host, G>,
) -> Result<()> {
    let (inputs, grad_out) = given;
    const NAME: &str = "selected_attention_backward";
    op.check_backward(batch, inputs, grad_out, &grads)?;
    inputs.selection.check_host(NAME, batch, op.top_k)?;
    let is_aliased = inputs.values.is_none();
    let asked = Asked {
        queries: grads.queries.is_some(),
        gammas: grads.gammas.is_some(),
        similarities: grads.similarities.is_some(),
        grads: grads.keys.is_some() || grads.bias.is_some(),
        weights: grads.values.is_some() || is_aliased && grads.keys.is_some(),
    };
    let pass = Pass {
        operation: NAME,
        op,
        inputs: WideInputs::new(inputs),
        grad_out: WideRows::new(grad_out.out.as_slice()),
        grad_lse: grad_out.lse.map(|lse| lse.as_slice()),
        asked,
    };
    let own = CandidateGradients {
        queries: grads.queries.map(|queries| NarrowRows::new(queries.into_slice())),
        similarities: grads.similarities.map(ViewMut::into_slice),
    };
    let history = HistoryGradients {
        keys: grads.keys.map(|keys| NarrowRows::new(keys.into_slice())),
        values: grads.values.map(|values| NarrowRows::new(values.into_slice())),
        bias: grads.bias.map(ViewMut::into_slice),
    };
    let gammas = grads.gammas.map(ViewMut::into_slice);
    write(instructions, batch, &pass, own, gammas, (history, None))
}

/// The same with values from tables.
pub(super) fn backward_of_tables<T: Element, G: Element>(
    instructions: Instructions,
    op: &SelectedAttention,
    batch: &Batch,
    given: (&SelectedTableInputs<'_, Host, T>, &SelectedAttentionGradOut<'_, Host, T>),
    grads: SelectedTableGradients<'_, Host, G>,
) -> Result<()> {
    const NAME: &str = "selected_table_attention_backward";
    let (inputs, grad_out) = given;
    op.check_tables_backward(batch, inputs, grad_out, &grads)?;
    inputs.selection.check_host(NAME, batch, op.top_k)?;
    op.check_history_ids(NAME, batch, inputs)?;
    let is_any = |tables: &[Option<TableGradient<'_, Host>>]| tables.iter().any(Option::is_some);
    let values = is_any(&grads.values);
    let keys = is_any(&grads.key_tables) || values && matches!(inputs.keys, SelectedKeys::Values);
    let asked = Asked {
        queries: grads.queries.is_some(),
        gammas: grads.gammas.is_some(),
        similarities: grads.similarities.is_some(),
        grads: grads.keys.is_some() || keys || grads.bias.is_some(),
        weights: values,
    };
    let pass = Pass {
        operation: NAME,
        op,
        inputs: WideInputs::of_tables(inputs),
        grad_out: WideRows::new(grad_out.out.as_slice()),
        grad_lse: grad_out.lse.map(|lse| lse.as_slice()),
        asked,
    };
    let own = CandidateGradients {
        queries: grads.queries.map(|queries| NarrowRows::new(queries.into_slice())),
        similarities: grads.similarities.map(ViewMut::into_slice),
    };
    let history = HistoryGradients {
        keys: grads.keys.map(|keys| NarrowRows::new(keys.into_slice())),
        values: None,
        bias: grads.bias.map(ViewMut::into_slice),
    };
    let tables = TableGradients::new(inputs, grads.key_tables, grads.values);
    let gammas = grads.gammas.map(ViewMut::into_slice);
    write(instructions, batch, &pass, own, gammas, (history, Some(tables)))
}

/// The gradients of what belongs to candidates.
struct CandidateGradients<'a> {
    queries: Option<NarrowRows<'a>>,
    similarities: Option<&'a mut [f32]>,
}

/// Some candidates of one user.
struct Chunk {
    user: usize,
    history: usize,
    targets: Range<usize>,
}

/// Writes the gradients, whatever is stored.
fn write(
    instructions: Instructions,
    batch: &Batch,
    pass: &Pass<'_>,
    own: CandidateGradients<'_>,
    gammas: Option<&mut [f32]>,
    (history, tables): (HistoryGradients<'_>, Option<TableGradients<'_>>),
) -> Result<()> {
    let (op, asked) = (pass.op, pass.asked);
    if !asked.scores() && !asked.weights {
        return Ok(());
    }
    let mut chunks = Vec::new();
    for (user, (history, targets)) in batch.requests().enumerate() {
        for first in targets.clone().step_by(CANDIDATES) {
            let targets = first..targets.end.min(first + CANDIDATES);
            chunks.push(Chunk { user, history: history.start, targets });
        }
    }
    let lengths = || chunks.iter().map(|chunk| chunk.targets.len());
    let mut queries = own.queries.map(|rows| rows.split(lengths(), op.heads * op.width).into_iter());
    let mut similarities = own.similarities.map(|rows| split_rows(lengths(), rows, op.top_k).into_iter());
    let task = |chunk| {
        let queries = queries.as_mut().and_then(Iterator::next);
        let similarities = similarities.as_mut().and_then(Iterator::next);
        Candidates { pass, chunk, own: CandidateGradients { queries, similarities } }
    };
    let tasks: Vec<Candidates<'_>> = chunks.iter().map(task).collect();
    let found = map(tasks, |task: Candidates<'_>| instructions.run(task));
    if let Some(gammas) = gammas {
        for (i, gamma) in gammas.iter_mut().enumerate() {
            *gamma = found.iter().map(|found| found.gammas[i]).sum::<f64>() as f32;
        }
    }
    if !asked.grads && !asked.weights {
        return Ok(());
    }
    let mut users: Vec<Vec<Found>> = (0..batch.users()).map(|_| Vec::new()).collect();
    for (chunk, found) in chunks.iter().zip(found) {
        users[chunk.user].push(found);
    }
    let users = sort(batch, pass, &users)?;
    let targets = batch.targets().total() * op.heads;
    let queries = wide(pass.inputs.queries, targets * op.width);
    let grad_out = wide(pass.grad_out, targets * op.value_width);
    if let Some(tables) = tables {
        tables.write(instructions, batch, pass, &users, [&queries, &grad_out])?;
    }
    write_history(instructions, batch, pass, &users, [&queries, &grad_out], history);
    Ok(())
}

/// The gradients of some candidates.
struct Candidates<'a> {
    pass: &'a Pass<'a>,
    chunk: &'a Chunk,
    own: CandidateGradients<'a>,
}

impl Kernel for Candidates<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Found {
        let Self { pass, chunk, mut own } = self;
        let Pass { op, asked, .. } = *pass;
        let mut kept = Kept::new(op, &pass.inputs, (asked.gammas, asked.scores()));
        let mut found = Found { gammas: vec![0.0; 3 * op.heads], ..Found::default() };
        let mut scratch = Scratch { grad_out: vec![0.0; op.value_width], ..Scratch::default() };
        let mut query = vec![0.0; if asked.queries { op.heads * op.width } else { 0 }];
        let mut unused = Vec::new();
        for (i, m) in chunk.targets.clone().enumerate() {
            kept.load(l, Candidate { m, history: chunk.history });
            let similarities = match &mut own.similarities {
                Some(rows) => &mut rows[i * op.top_k..(i + 1) * op.top_k],
                None => &mut unused[..],
            };
            similarities.fill(0.0);
            for h in 0..op.heads {
                kept.weigh(l, m, h, asked.gammas);
                if asked.scores() {
                    scratch.grads_of_alpha(l, pass, &kept, m, h);
                    let gammas = &mut found.gammas[3 * h..3 * h + 3];
                    scratch.grads_of_scores(pass, &kept, h, gammas, similarities);
                }
                if asked.queries {
                    let query = &mut query[h * op.width..(h + 1) * op.width];
                    scratch.grad_of_query(l, pass, &mut kept, h, query);
                }
                found.add(pass, &kept, (m, h), chunk.history, &scratch.grads);
            }
            if let Some(queries) = &mut own.queries {
                queries.write(l, i * query.len(), &query);
            }
        }
        found
    }
}

/// Of one head of a candidate.
#[derive(Default)]
struct Scratch {
    /// `[d_v]`.
    grad_out: Vec<f32>,
    /// For each behaviour that counts: the gradient of its `α`, then that of its score.
    grads: Vec<f32>,
}

impl Scratch {
    /// `dα = w·(⟨grad_out, v⟩ − D + grad_lse)`.
    #[inline(always)]
    fn grads_of_alpha<L: Lanes>(&mut self, l: L, pass: &Pass<'_>, kept: &Kept<'_>, m: usize, h: usize) {
        let op = pass.op;
        let (row, width) = (m * op.heads + h, op.value_width);
        pass.grad_out.widen_to(l, row * width..(row + 1) * width, &mut self.grad_out);
        kept.value_products(l, h, &self.grad_out, &mut self.grads);
        let mut mean = 0.0;
        for (weights, grads) in kept.weights.chunks(PART).zip(self.grads.chunks(PART)) {
            mean += dot_lanes(l, weights, grads);
        }
        let grad_lse = pass.grad_lse.map_or(0.0, |grad_lse| grad_lse[row]);
        for (grad, weight) in self.grads.iter_mut().zip(&kept.weights) {
            *grad = weight * (*grad - mean + grad_lse);
        }
    }

    /// Turns the gradients of `α` into those of scores, and adds those of `γ` and of similarities.
    #[inline(always)]
    fn grads_of_scores(
        &mut self,
        pass: &Pass<'_>,
        kept: &Kept<'_>,
        h: usize,
        grad_gammas: &mut [f64],
        grad_similarities: &mut [f32],
    ) {
        let (asked, gammas) = (pass.asked, pass.inputs.gammas(h));
        let adds_similarities = asked.similarities && gammas.use_similarities();
        for (j, grad) in self.grads.iter_mut().enumerate() {
            let one = kept.one(j);
            if asked.gammas {
                let (score, similarity) = (f64::from(one.score), f64::from(one.similarity));
                let factors = [score, similarity, score * similarity];
                let sums = grad_gammas.iter_mut().zip(factors);
                sums.for_each(|(sum, factor)| *sum += f64::from(*grad) * factor);
            }
            if adds_similarities {
                let slope = gammas.similarity + term(gammas.product, one.score);
                grad_similarities[one.slot] += *grad * slope;
            }
            *grad *= gammas.score + term(gammas.product, one.similarity);
        }
    }

    /// `dq = scale·Σ ds·k`: zeros where scores do not count.
    #[inline(always)]
    fn grad_of_query<L: Lanes>(
        &self,
        l: L,
        pass: &Pass<'_>,
        kept: &mut Kept<'_>,
        h: usize,
        query: &mut [f32],
    ) {
        if !pass.inputs.gammas(h).use_scores() {
            return query.fill(0.0);
        }
        kept.sum_of_keys(l, h, &self.grads, query);
        let scale = pass.op.effective_scale();
        query.iter_mut().for_each(|value| *value *= scale);
    }
}

impl Found {
    /// Adds what a head of a candidate gives to the behaviours that count for it.
    fn add(
        &mut self,
        pass: &Pass<'_>,
        kept: &Kept<'_>,
        (m, h): (usize, usize),
        history: usize,
        grads: &[f32],
    ) {
        let op = pass.op;
        let entry = |(j, &factor): (usize, &f32)| {
            let row = (kept.one(j).behaviour - history) * op.kv_heads + op.kv_head(h);
            Entry { row, query: m * op.heads + h, factor }
        };
        if pass.asked.weights {
            self.weights.extend(kept.weights.iter().enumerate().map(entry));
        }
        if pass.asked.grads && pass.inputs.gammas(h).use_scores() {
            self.grads.extend(grads.iter().enumerate().map(entry));
        }
    }
}
