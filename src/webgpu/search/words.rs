//! Search by words: packed signs, and keys.

use crate::error::Result;
use crate::ops::{Search, SearchScore};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::{MOST_STEPS_OF_ROW, THREADS, check_width};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::numbers::NAME;
use crate::webgpu::search::pack::{Words, pack_words};
use crate::webgpu::selection::{IN_MEMORY, IN_WORKGROUP, Lists, ORDER, PIECES, Pieces, SCORES, SELECT};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/search/words.wgsl.
    struct SearchWordsParams {
        first_piece: u32,
        first_history: u32,
        top_k: u32,
        first_whole: u32,
        words: u32,
        bits: u32,
        last_mask: u32,
        rows_base: u32,
    }
}

fn words_kernel(lists: Lists, is_match: bool) -> Kernel {
    const WORDS: &str = include_str!("../../../shaders/search/words.wgsl");
    let mut slots = vec![
        Slot::plain("pieces", "vec4<u32>"),
        Slot::plain("queries", "vec4<u32>"),
        Slot::words("rows", 32),
    ];
    slots.extend(lists.slots());
    // The newest of equal keys is the best.
    let mut constants = lists.constants(is_match);
    constants.push(("MATCH", u32::from(is_match)));
    let sources: &'static [&'static str] = match lists.in_memory {
        false => &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, WORDS],
        true => &[ORDER, SCORES, SELECT, IN_MEMORY, PIECES, WORDS],
    };
    Kernel {
        name: "search/words",
        params: &SearchWordsParams::BLOCK,
        threads: THREADS,
        sources,
        constants,
        slots,
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Lists::all().flat_map(|lists| [false, true].map(|is_match| words_kernel(lists, is_match))).collect()
}

fn words_of(op: &Search) -> Words {
    if op.score == SearchScore::Match {
        return Words { count: 1, bits: 1, last_mask: u32::MAX };
    }
    let (count, bits) = (op.words(), op.width);
    Words { count, bits, last_mask: u32::MAX >> (count * 32 - bits) }
}

/// Keeps the best behaviours of every piece.
pub(super) fn search(
    gpu: &Wgpu,
    op: &Search,
    batch: &WgpuBatch,
    [queries, keys]: [Region<'_, u32>; 2],
) -> Result<Pieces> {
    let words = words_of(op);
    check_width(NAME, words.bits, 32 * MOST_STEPS_OF_ROW)?;
    let window = gpu.rows_per_binding::<u32>(words.count);
    let pieces = Pieces::new(gpu, NAME, batch, op.top_k, words.count, window)?;
    let candidates = batch.as_ref().targets().total();
    let rows = gpu.bind(NAME, "queries", &queries.rows(0, candidates, words.count))?;
    let packed = pack_words(gpu, &pieces, &rows, &words)?;
    for (range, span) in pieces.plan.plan.windows(window) {
        let rows = gpu.bind(NAME, "keys", &keys.rows(span.start, span.len(), words.count))?;
        let params = SearchWordsParams {
            first_piece: range.start as u32,
            first_history: span.start as u32,
            top_k: op.top_k as u32,
            first_whole: pieces.plan.plan.slots as u32,
            words: words.count as u32,
            bits: words.bits as u32,
            last_mask: words.last_mask,
            rows_base: rows.base,
        };
        let mut bindings = vec![&pieces.plan.pieces, &packed, &rows];
        bindings.extend(pieces.bindings());
        let kernel = words_kernel(pieces.lists, op.score == SearchScore::Match);
        gpu.dispatch(NAME, &kernel, &params, &bindings, range.len() as u64)?;
    }
    Ok(pieces)
}
