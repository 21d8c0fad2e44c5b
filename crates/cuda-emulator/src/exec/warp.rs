//! One warp: the positions of its lanes, and the loop that executes its instructions.
//!
//! Lanes at the same instruction run together, and the group with the lowest position runs first, so that lanes
//! reconverge after a branch. `.sync` instructions block a group until the lanes of the membermask arrive ("Control Flow
//! Instructions", "Parallel Synchronization and Communication Instructions").

use super::barrier::{Arrival, arrive};
use super::code::{Action, BarrierForm, Code, Preset, Step};
use super::divergence;
use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::frames::{self, Kept};
use super::groups::{Group, Pause, Wait};
use super::machine::Machine;
use super::registers::{LANES, Registers, lanes};
use super::specials::{special_row, uniform_special};
use super::timing::Clock;

/// Backward branches after which lanes parked elsewhere get a turn: the loop may be waiting for them.
const PATIENCE: u32 = 256;

/// Instructions of such a turn.
const INTERLUDE: u64 = 1024;

/// A warp of the running block.
#[derive(Debug, Default)]
pub(crate) struct Warp {
    pub(crate) registers: Registers,
    pub(crate) pc: u32,
    active: u32,
    /// Lanes that have not exited.
    pub(crate) live: u32,
    parked: Vec<Group>,
    waiting: Vec<(Group, Wait)>,
    /// The lowest position among parked groups.
    next: u32,
    loops: u32,
    /// Line of the last branch at which lanes diverged, if no instruction has made all of them converge since.
    split: Option<u32>,
    /// The states saved by recursive calls, per lane.
    stacks: Vec<Vec<Kept>>,
    /// If time is modelled.
    pub(crate) clock: Clock,
}

impl Warp {
    /// Resets the warp to the first instruction, for a new block.
    pub(crate) fn start(&mut self, m: &Machine<'_>) {
        let launch = m.launch;
        let first = (m.warp * LANES) as u32;
        let count = (launch.threads() - first).min(LANES as u32);
        self.live = (u64::from(u32::MAX) >> (32 - count)) as u32;
        self.active = self.live;
        self.pc = 0;
        self.parked.clear();
        self.waiting.clear();
        self.next = u32::MAX;
        self.loops = 0;
        self.split = None;
        self.stacks.clear();
        self.clock.clear();
        self.registers.words.clone_from(&launch.template.words);
        self.registers.longs.clone_from(&launch.template.longs);
        self.registers.predicates.clone_from(&launch.template.predicates);
        for (index, preset) in &launch.code.word_presets {
            if let Preset::Special(s) = preset {
                self.registers.words[*index as usize] = special_row(m, *s);
            }
        }
        for (index, preset) in &launch.code.long_presets {
            if let Preset::Special(s) = preset {
                self.registers.longs[*index as usize] = [uniform_special(m, *s); LANES];
            }
        }
    }

    /// Whether any lane can run.
    pub(crate) fn can_run(&self) -> bool {
        self.active != 0 || !self.parked.is_empty()
    }

    /// Makes the group with the lowest position the active one.
    fn regroup(&mut self) -> bool {
        if self.active != 0 {
            self.parked.push(Group { pc: self.pc, mask: self.active });
            self.active = 0;
        }
        let Some(least) = self.parked.iter().map(|g| g.pc).min() else {
            self.next = u32::MAX;
            return false;
        };
        self.pc = least;
        self.next = u32::MAX;
        let (active, next) = (&mut self.active, &mut self.next);
        self.parked.retain(|g| {
            if g.pc == least {
                *active |= g.mask;
                return false;
            }
            *next = g.pc.min(*next);
            true
        });
        true
    }

    /// Lanes exit. A group that waits for one of them can never continue.
    fn exit(&mut self, m: &mut Machine<'_>, code: &Code, mask: u32) -> Result<(), Fault> {
        self.live &= !mask;
        self.active &= !mask;
        m.live -= mask.count_ones();
        for (group, wait) in &self.waiting {
            if let Wait::Lanes(needed) = wait
                && needed & mask != 0
            {
                m.pc = group.pc as usize;
                let message =
                    format!("waits for lane {}, which has exited", (needed & mask).trailing_zeros());
                return fault(
                    divergence::absence(&code.steps[m.pc]),
                    group.mask.trailing_zeros() as usize,
                    None,
                    message,
                );
            }
        }
        if self.active != 0 {
            self.advance();
        }
        Ok(())
    }

    #[inline(always)]
    fn advance(&mut self) {
        self.pc += 1;
        if self.pc >= self.next {
            self.regroup();
        }
    }

    fn jump(&mut self, target: u32, taken: u32) {
        let stay = self.active & !taken;
        let back = target <= self.pc;
        if stay == 0 {
            self.pc = target;
        } else if taken != 0 {
            self.parked.push(Group { pc: target, mask: taken });
            self.active = stay;
            self.pc += 1;
            self.next = self.next.min(target);
        } else {
            self.pc += 1;
        }
        if back {
            // Lanes that are all together keep nobody waiting.
            self.loops = if self.parked.is_empty() { 0 } else { self.loops + 1 };
        }
        if self.pc >= self.next {
            self.regroup();
        }
    }

    /// Runs up to `turn` instructions.
    pub(crate) fn run(&mut self, m: &mut Machine<'_>, code: &Code, turn: u64) -> Result<Pause, Fault> {
        let mut left = turn;
        self.regroup();
        loop {
            if self.active == 0 && !self.regroup() {
                return Ok(if self.live == 0 { Pause::Exited } else { Pause::Blocked });
            }
            if left == 0 {
                return Ok(Pause::Turn);
            }
            left -= 1;
            let step = &code.steps[self.pc as usize];
            m.pc = self.pc as usize;
            let mask = self.registers.guarded(self.active, step.guard);
            m.counts.instructions[step.class as usize] += 1;
            m.counts.lanes += u64::from(mask.count_ones());
            m.executed += 1;
            if m.timing {
                m.lines.missed = false;
                self.clock.start(step);
            }
            match &step.action {
                Action::Compute(f) => {
                    if mask != 0 {
                        f(&mut self.registers, mask);
                    }
                    self.advance();
                }
                Action::Access(f) => {
                    if mask != 0 {
                        f(m, &mut self.registers, mask)?;
                    }
                    if m.timing {
                        self.clock.access(step, m.lines.missed);
                    }
                    self.advance();
                }
                Action::Branch(target) => {
                    if mask != 0 && mask != self.active {
                        self.split = Some(step.line);
                    }
                    self.jump(*target, mask);
                    if self.loops > PATIENCE {
                        self.loops = 0;
                        left = self.let_others_run(left);
                    }
                }
                Action::Call(call) => {
                    self.stacks.resize_with(LANES, Vec::new);
                    for lane in lanes(mask) {
                        let place = (self.pc, lane);
                        frames::enter(m, &self.registers, &mut self.stacks[lane], call, place)?;
                    }
                    self.jump(call.entry, mask);
                }
                Action::Return { frame, otherwise } => self.return_from(m, code, *frame, *otherwise, mask),
                Action::BranchTable { index, targets } => {
                    self.split = Some(step.line);
                    self.jump_table(*index, targets, mask)?;
                }
                Action::Exit => self.exit(m, code, mask)?,
                Action::Trap if mask == 0 => self.advance(),
                Action::Trap => {
                    return fault(
                        FindingKind::Trap,
                        mask.trailing_zeros() as usize,
                        None,
                        "the kernel executed `trap`",
                    );
                }
                Action::Converged { .. } => self.converged(m, step, mask)?,
                Action::Barrier(form) => {
                    if let Some(number) = self.barrier(m, form, mask)? {
                        return Ok(Pause::Complete(number));
                    }
                }
            }
        }
    }

    /// Runs another group for a while, although its position is higher.
    fn let_others_run(&mut self, left: u64) -> u64 {
        if self.parked.is_empty() {
            return left;
        }
        let group = self.parked.remove(0);
        self.parked.push(Group { pc: self.pc, mask: self.active });
        (self.pc, self.active, self.next) = (group.pc, group.mask, u32::MAX);
        left.min(INTERLUDE)
    }

    /// Lanes that are in a recursive call return to the instruction after it; the others continue at `otherwise`.
    fn return_from(&mut self, m: &mut Machine<'_>, code: &Code, frame: usize, otherwise: u32, mask: u32) {
        let mut on = 0;
        for lane in lanes(mask) {
            let kept = match self.stacks.get_mut(lane) {
                Some(stack) if stack.last().is_some_and(|k| k.frame == frame) => stack.pop(),
                _ => None,
            };
            match kept {
                Some(kept) => {
                    if let Action::Call(call) = &code.steps[kept.pc as usize].action {
                        frames::leave(m, &mut self.registers, &kept, call, lane);
                    }
                    self.parked.push(Group { pc: kept.pc + 1, mask: 1 << lane });
                }
                None => on |= 1 << lane,
            }
        }
        if on != 0 {
            self.parked.push(Group { pc: otherwise, mask: on });
        }
        self.active &= !mask;
        self.pc += 1;
        self.regroup();
    }

    fn jump_table(&mut self, index: u32, targets: &[u32], mask: u32) -> Result<(), Fault> {
        for lane in lanes(mask) {
            let i = self.registers.row::<u32>(index)[lane];
            let Some(target) = targets.get(i as usize) else {
                let message = format!("index {i} is out of range for {} branch targets", targets.len());
                return fault(FindingKind::Undefined, lane, None, message);
            };
            self.parked.push(Group { pc: *target, mask: 1 << lane });
        }
        self.active &= !mask;
        self.pc += 1;
        self.regroup();
        Ok(())
    }

    /// Adds the lanes that wait at this instruction to the group.
    fn join_waiting(&mut self, mask: u32) -> u32 {
        let pc = self.pc;
        let mut arrived = mask;
        self.waiting.retain(|(g, wait)| {
            let here = g.pc == pc && matches!(wait, Wait::Lanes(_));
            if here {
                arrived |= g.mask;
            }
            !here
        });
        arrived
    }

    fn converged(&mut self, m: &mut Machine<'_>, step: &Step, mask: u32) -> Result<(), Fault> {
        let Action::Converged { members, aligned, run } = &step.action else { return Ok(()) };
        if mask == 0 {
            self.advance();
            return Ok(());
        }
        if *aligned {
            self.check_aligned(m, mask, false)?;
        }
        let members = *self.registers.row::<u32>(*members);
        if self.waiting.is_empty() && members == [mask; LANES] {
            run(m, &mut self.registers, mask)?;
            self.meet(mask);
            self.advance();
            return Ok(());
        }
        if let Some(lane) = lanes(mask).find(|l| members[*l] >> l & 1 == 0) {
            let message = format!(
                "membermask {:#x} does not include lane {lane}, which executes the instruction",
                members[lane]
            );
            return fault(FindingKind::AbsentLane, lane, None, message);
        }
        let arrived = if self.waiting.is_empty() { mask } else { self.join_waiting(mask) };
        let missing = |l: usize| members[l] & !arrived;
        if let Some(lane) = lanes(arrived).find(|l| missing(*l) & !self.live != 0) {
            let gone = (missing(lane) & !self.live).trailing_zeros();
            let message = format!("the membermask includes lane {gone}, which has exited or does not exist");
            return fault(divergence::absence(step), lane, None, message);
        }
        let ready = lanes(arrived).filter(|l| missing(*l) == 0).fold(0, |set, l| set | 1 << l);
        if arrived != ready {
            let needed = lanes(arrived).fold(0, |set, l| set | missing(l));
            self.waiting.push((Group { pc: self.pc, mask: arrived & !ready }, Wait::Lanes(needed)));
        }
        if ready != 0 {
            run(m, &mut self.registers, ready)?;
            if lanes(ready).all(|l| !members[l] & self.live == 0) {
                self.meet(ready);
            }
        }
        self.active = self.active & !mask | ready;
        if self.active != 0 {
            self.advance();
        }
        Ok(())
    }

    /// Arrives at a block barrier; returns its number if the barrier is complete.
    fn barrier(&mut self, m: &mut Machine<'_>, form: &BarrierForm, mask: u32) -> Result<Option<u32>, Fault> {
        if mask == 0 {
            self.advance();
            return Ok(None);
        }
        let mut arrived = mask;
        if form.aligned {
            self.check_aligned(m, mask, true)?;
            arrived = self.join_waiting(mask);
            if arrived != self.live {
                self.waiting.push((Group { pc: self.pc, mask: arrived }, Wait::Lanes(self.live & !arrived)));
                self.active &= !mask;
                if self.active != 0 {
                    self.advance();
                }
                return Ok(None);
            }
        }
        let Arrival { number, complete } = arrive(m, form, &self.registers, arrived)?;
        self.active &= !mask;
        if form.wait {
            self.waiting.push((Group { pc: self.pc, mask: arrived }, Wait::Barrier(number)));
        } else {
            self.active |= arrived;
        }
        if self.active != 0 {
            self.advance();
        }
        Ok(complete.then_some(number))
    }

    /// Releases the lanes that wait for a barrier. `results` are the reduction's count, and, or.
    pub(crate) fn release(&mut self, code: &Code, number: u32, results: [u32; 3]) {
        for i in (0..self.waiting.len()).rev() {
            if self.waiting[i].1 != Wait::Barrier(number) {
                continue;
            }
            let (group, _) = self.waiting.swap_remove(i);
            if let Action::Barrier(form) = &code.steps[group.pc as usize].action {
                super::barrier::write_result(form, &mut self.registers, group.mask, results);
            }
            self.meet(group.mask);
            self.parked.push(Group { pc: group.pc + 1, mask: group.mask });
        }
        self.regroup();
    }

    /// Lanes have executed an instruction that makes them converge.
    fn meet(&mut self, mask: u32) {
        if mask == self.live {
            self.split = None;
        }
    }

    /// Fails if some lanes are at an `.aligned` instruction alone. `converges`: it is one that makes lanes converge itself, so
    /// that it may follow a divergent branch where convergence must be explicit.
    fn check_aligned(&self, m: &mut Machine<'_>, mask: u32, converges: bool) -> Result<(), Fault> {
        if mask == self.live {
            return match self.split {
                Some(line) if !converges => divergence::check_convergence(m, mask, line),
                _ => Ok(()),
            };
        }
        let rest = Group { pc: self.pc + 1, mask: self.active & !mask };
        let groups = self.parked.iter().chain(self.waiting.iter().map(|(group, _)| group)).chain([&rest]);
        let others = groups.filter(|group| group.mask != 0).map(|group| (group.pc, group.mask));
        divergence::check_alone(m, self.pc, mask, others)
    }

    /// The first waiting lane, its position, and whether it waits for a block barrier.
    pub(crate) fn first_waiting(&self) -> Option<(usize, u32, bool)> {
        self.waiting
            .iter()
            .map(|(g, wait)| (g.mask.trailing_zeros() as usize, g.pc, matches!(wait, Wait::Barrier(_))))
            .min_by_key(|(_, _, barrier)| *barrier)
    }

    /// The lanes that wait for other lanes of the warp.
    pub(crate) fn waiting_for_lanes(&self) -> u32 {
        self.waiting.iter().filter(|(_, w)| matches!(w, Wait::Lanes(_))).fold(0, |set, (g, _)| set | g.mask)
    }
}
