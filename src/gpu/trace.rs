//! `LONGSEQ_TRACE=1` prints one line to standard error per plan and per launch.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::plan::{Cut, Plan};

const UNREAD: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

/// The state, read from the environment once per process.
static STATE: AtomicU8 = AtomicU8::new(UNREAD);

/// Switches the trace on or off for the whole process, overriding `LONGSEQ_TRACE`.
#[doc(hidden)]
pub fn set_trace(on: bool) {
    STATE.store(if on { ON } else { OFF }, Ordering::Relaxed);
}

/// Whether the trace is on.
fn tracing() -> bool {
    match STATE.load(Ordering::Relaxed) {
        UNREAD => {
            let on = std::env::var("LONGSEQ_TRACE").is_ok_and(|value| value == "1");
            set_trace(on);
            on
        }
        state => state == ON,
    }
}

/// Prints a line if the trace is on; `line` is not called otherwise.
pub(crate) fn trace(line: impl FnOnce() -> String) {
    if tracing() {
        eprintln!("longseq: {}", line());
    }
}

/// Prints how a batch was cut.
pub(crate) fn trace_plan(operation: &'static str, cut: &Cut, plan: &Plan) {
    trace(|| {
        let (tiles, pieces, slots) = (plan.tiles.len(), plan.pieces.len(), plan.slots);
        let Cut { tile_rows, step, .. } = cut;
        format!(
            "{operation}: plan of {tiles} tiles of up to {tile_rows} rows, {pieces} pieces, {slots} slots, step {step}"
        )
    });
}
