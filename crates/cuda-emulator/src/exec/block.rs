//! Runs one block: its warps take turns until all have exited.

use super::barrier;
use super::code::{Action, Code};
use super::fault::{Fault, FaultInfo};
use super::finding::FindingKind;
use super::groups::Pause;
use super::machine::Machine;
use super::random::Random;
use super::warp::Warp;

/// Instructions that a warp runs before it is the next warp's turn. Long, because most warps reach a barrier first.
const TURN: u64 = 20_000;

/// A fault with the warp and the instruction where it occurred.
pub(crate) struct Located {
    pub(crate) fault: Fault,
    pub(crate) warp: usize,
    pub(crate) pc: usize,
}

/// Runs a block to its end.
pub(crate) fn run(m: &mut Machine<'_>, warps: &mut [Warp], block: u64) -> Result<(), Box<Located>> {
    let launch = m.launch;
    m.start(block);
    for (i, warp) in warps.iter_mut().enumerate() {
        m.warp = i;
        warp.start(m);
    }
    m.counts.blocks += 1;
    m.counts.warps += warps.len() as u64;
    let mut random = launch.options.schedule_seed.map(|seed| Random::new(seed ^ block.rotate_left(32)));
    let mut order: Vec<usize> = (0..warps.len()).collect();
    let limit = launch.options.instruction_limit.unwrap_or(u64::MAX);
    loop {
        if let Some(random) = &mut random {
            random.shuffle(&mut order);
        }
        let mut ran = false;
        let mut left = false;
        for &i in &order {
            let warp = &mut warps[i];
            if warp.live == 0 {
                continue;
            }
            left = true;
            if !warp.can_run() {
                continue;
            }
            ran = true;
            m.warp = i;
            let turn = random.as_mut().map_or(TURN, |r| 1 + r.below(64));
            let live = m.live;
            let mut complete = match warp.run(m, launch.code, turn) {
                Ok(Pause::Complete(number)) => Some(number),
                Ok(Pause::Turn | Pause::Exited | Pause::Blocked) => None,
                Err(fault) => return Err(Box::new(Located { fault, warp: i, pc: m.pc })),
            };
            if complete.is_none() && m.live != live {
                complete = barrier::completed_by_exit(m);
            }
            while let Some(number) = complete {
                let results = barrier::complete(m, number);
                if m.timing {
                    let last = warps.iter().map(|warp| warp.clock.arrival()).max().unwrap_or(0);
                    warps.iter_mut().for_each(|warp| warp.clock.meet(last));
                }
                warps.iter_mut().for_each(|w| w.release(launch.code, number, results));
                complete = barrier::completed_by_exit(m);
            }
        }
        if !left {
            if m.timing {
                let end = warps.iter().map(|warp| warp.clock.end()).max().unwrap_or(0);
                m.counts.block_clocks += end;
                m.counts.longest_block = m.counts.longest_block.max(end);
            }
            return Ok(());
        }
        if !ran {
            return Err(stuck(launch.code, warps));
        }
        if m.executed > limit {
            let message = format!("the block has run {limit} warp instructions and has not finished");
            let i = warps.iter().position(|w| w.live != 0).unwrap_or(0);
            let pc = warps[i].pc as usize;
            return Err(Box::new(Located {
                fault: info(FindingKind::Hang, &warps[i], message),
                warp: i,
                pc,
            }));
        }
    }
}

fn info(kind: FindingKind, warp: &Warp, message: String) -> Fault {
    Box::new(FaultInfo { kind, lane: warp.live.trailing_zeros() as usize % 32, address: None, message })
}

/// No warp can continue: reports who waits where, and for whom.
fn stuck(code: &Code, warps: &[Warp]) -> Box<Located> {
    let mut barrier = None;
    for (i, warp) in warps.iter().enumerate() {
        let Some((lane, pc, at_barrier)) = warp.first_waiting() else { continue };
        let fault = |kind, message| {
            let fault = Box::new(FaultInfo { kind, lane, address: None, message });
            Box::new(Located { fault, warp: i, pc: pc as usize })
        };
        if !at_barrier {
            let message = format!(
                "lanes {:#010x} of the warp wait here for lanes that wait elsewhere",
                warp.waiting_for_lanes()
            );
            let kind = match code.steps[pc as usize].action {
                Action::Barrier(_) => FindingKind::DivergentBarrier,
                _ => FindingKind::AbsentLane,
            };
            return fault(kind, message);
        }
        if barrier.is_none() {
            let other = warps
                .iter()
                .enumerate()
                .find_map(|(j, w)| w.first_waiting().filter(|(_, p, _)| *p != pc).map(|(l, ..)| (j, l)));
            let reason = match other {
                Some((j, l)) => format!("thread {} waits at another instruction", j * 32 + l),
                None => "it expects threads that have exited or are not in the block".to_owned(),
            };
            let message = format!("not all threads reach this barrier: {reason}");
            barrier = Some(fault(FindingKind::DivergentBarrier, message));
        }
    }
    barrier.unwrap_or_else(|| {
        let message = "no warp can continue".to_owned();
        Box::new(Located { fault: info(FindingKind::Hang, &Warp::default(), message), warp: 0, pc: 0 })
    })
}
