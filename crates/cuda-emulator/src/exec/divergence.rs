//! Whether a warp that has diverged reaches an `.aligned` instruction, which all its lanes must execute together.
//!
//! This interpreter runs the lanes at the lowest position first, so lanes may get to an instruction at different times
//! although a device would have brought them together before it: at the latest where all paths from the branch meet again.
//! If every path of the lanes that are elsewhere leads to the instruction, that place is no later than the instruction. If
//! one does not, the lanes are there alone.

use super::code::{Action, Code, Step};
use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::machine::Machine;
use super::registers::Guard;

/// The kind of finding for lanes that are absent from an instruction.
pub(crate) fn absence(step: &Step) -> FindingKind {
    match step.action {
        Action::Barrier(_) => FindingKind::DivergentBarrier,
        _ => FindingKind::AbsentLane,
    }
}

/// Fails if lanes `mask` are at an `.aligned` instruction at `pc` without some of the others, which are given by position and
/// mask.
pub(crate) fn check_alone(
    m: &mut Machine<'_>,
    pc: u32,
    mask: u32,
    others: impl Iterator<Item = (u32, u32)>,
) -> Result<(), Fault> {
    let code = m.launch.code;
    for (from, missing) in others {
        if m.bypasses(code, from, pc) {
            let message = format!(
                "lanes {mask:#010x} reach an .aligned instruction without lanes {missing:#010x} of their warp, which have \
                 diverged from them and need not come here"
            );
            let lane = mask.trailing_zeros() as usize;
            return fault(absence(&code.steps[pc as usize]), lane, None, message);
        }
    }
    Ok(())
}

/// Fails where convergence must be explicit: the lanes diverged at the branch in this line, and only the order in which they
/// happened to run has brought them together.
pub(crate) fn check_convergence(m: &Machine<'_>, mask: u32, line: u32) -> Result<(), Fault> {
    if !m.launch.options.explicit_convergence {
        return Ok(());
    }
    let message = format!(
        "an .aligned instruction after the lanes diverged at line {line}: they are together again, but no instruction has \
         made them so"
    );
    fault(FindingKind::AbsentLane, mask.trailing_zeros() as usize, None, message)
}

/// Whether lanes at `from` can get to an end of the kernel without `point`.
pub(crate) fn can_bypass(code: &Code, from: u32, point: u32) -> bool {
    let mut seen = vec![false; code.steps.len()];
    let mut left = vec![from];
    while let Some(pc) = left.pop() {
        if pc == point || std::mem::replace(&mut seen[pc as usize], true) {
            continue;
        }
        let step = &code.steps[pc as usize];
        let mut on = step.guard != Guard::ALWAYS;
        match &step.action {
            Action::Exit => return true,
            Action::Branch(target) => left.push(*target),
            Action::BranchTable { targets, .. } => left.extend(targets),
            // The lanes stop here with a finding of its own.
            Action::Trap => {}
            // Kernels with recursive calls are not judged.
            Action::Call(_) | Action::Return { .. } => return false,
            _ => on = true,
        }
        if on {
            left.push(pc + 1);
        }
    }
    false
}
