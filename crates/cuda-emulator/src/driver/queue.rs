//! Work that streams have yet to do, in the modes in which they do not do it within the call that submits it.
//!
//! Each stream with unfinished work has a lane. The items of a lane are done in order; an item also waits for points in other
//! lanes, as events and the legacy default stream require. Everything else may happen in any order, and the mode chooses it:
//! a program that relies on more gets wrong results or findings.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::abi::Handle;
use super::context::Context;
use super::entry::Call;
use super::launch::{HostSide, Work};
use super::objects::lock;
use super::stream::Stream;
use crate::control::StreamOrder;
use crate::exec::random::Random;

/// A point of a stream, which it reaches when everything before it is done.
#[derive(Debug)]
pub(super) struct Mark {
    lane: Handle,
    reached: OnceLock<Instant>,
}

impl Mark {
    /// When the stream reached the point, if it has.
    pub(super) fn reached(&self) -> Option<Instant> {
        self.reached.get().copied()
    }

    fn is_reached(&self) -> bool {
        self.reached.get().is_some()
    }
}

/// A unit of work, or a point at which a stream waits or an event is recorded.
#[derive(Debug)]
struct Item {
    number: u64,
    /// The driver function that submitted it.
    call: &'static str,
    context: Arc<Context>,
    work: Option<Work>,
    after: Vec<Arc<Mark>>,
    done: Arc<Mark>,
}

#[derive(Debug)]
struct Lane {
    context: Handle,
    legacy: bool,
    blocking: bool,
    items: VecDeque<Arc<Item>>,
}

#[derive(Debug, Default)]
struct State {
    submitted: u64,
    lanes: BTreeMap<Handle, Lane>,
    /// The seed of the shuffled order, and what it has led to.
    random: Option<(u64, Random)>,
}

/// The unfinished work of a session.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Held by the thread that does the work; never taken while `state` is held.
    turn: Mutex<()>,
}

impl State {
    /// The marks that the next item of a stream waits for although no event says so: the legacy default stream waits for
    /// blocking streams of its context, and they for it.
    fn implicit(&self, stream: &Stream) -> Vec<Arc<Mark>> {
        let related = |lane: &&Lane| {
            lane.context == stream.context.handle
                && (stream.is_legacy() && lane.blocking && !lane.legacy
                    || stream.is_blocking() && !stream.is_legacy() && lane.legacy)
        };
        let last = |lane: &Lane| lane.items.back().map(|item| Arc::clone(&item.done));
        self.lanes.values().filter(related).filter_map(last).collect()
    }

    /// The lane whose first item is to be done next, on the way to `goal`.
    fn choose(&mut self, order: StreamOrder, goal: &Mark) -> Option<Handle> {
        let waits = |lane: &Lane| lane.items.front()?.after.iter().find(|mark| !mark.is_reached()).cloned();
        match order {
            StreamOrder::Submission => {
                let number = |lane: &Lane| lane.items.front().map(|item| item.number);
                self.lanes.iter().min_by_key(|(_, lane)| number(lane)).map(|(handle, _)| *handle)
            }
            StreamOrder::Late => {
                let mut handle = goal.lane;
                while let Some(mark) = waits(self.lanes.get(&handle)?) {
                    handle = mark.lane;
                }
                Some(handle)
            }
            StreamOrder::Shuffled(seed) => {
                let ready: Vec<Handle> =
                    self.lanes.iter().filter(|(_, lane)| waits(lane).is_none()).map(|(h, _)| *h).collect();
                let chosen = self.random(seed).below(ready.len() as u64) as usize;
                ready.get(chosen).copied()
            }
        }
    }

    fn random(&mut self, seed: u64) -> &mut Random {
        if self.random.as_ref().is_none_or(|(of, _)| *of != seed) {
            self.random = None;
        }
        &mut self.random.get_or_insert_with(|| (seed, Random::new(seed))).1
    }

    fn last(&self, stream: Handle) -> Option<Arc<Mark>> {
        self.lanes.get(&stream)?.items.back().map(|item| Arc::clone(&item.done))
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.state).lanes.is_empty()
    }

    /// Drops what was never done.
    pub(super) fn clear(&self) {
        let lanes = std::mem::take(&mut lock(&self.state).lanes);
        drop(lanes);
    }

    /// Adds work to a stream, or with `None` a point; it waits for `after` as well. Returns the point after it.
    pub(super) fn add(
        &self,
        call: &Call,
        stream: &Stream,
        work: Option<Work>,
        mut after: Vec<Arc<Mark>>,
    ) -> Arc<Mark> {
        let done = Arc::new(Mark { lane: stream.handle, reached: OnceLock::new() });
        let mut state = lock(&self.state);
        after.extend(state.implicit(stream));
        state.submitted += 1;
        let item = Item {
            number: state.submitted,
            call: call.name,
            context: Arc::clone(&stream.context),
            work,
            after,
            done: Arc::clone(&done),
        };
        let lane = state.lanes.entry(stream.handle).or_insert_with(|| Lane {
            context: stream.context.handle,
            legacy: stream.is_legacy(),
            blocking: stream.is_blocking(),
            items: VecDeque::new(),
        });
        lane.items.push_back(Arc::new(item));
        drop(state);
        self.drift(call, &done);
        done
    }

    /// A point after all work of the stream so far, or `None` if there is nothing to wait for.
    pub(super) fn point(&self, call: &Call, stream: &Stream) -> Option<Arc<Mark>> {
        let state = lock(&self.state);
        let waits = state.last(stream.handle).is_some() || !state.implicit(stream).is_empty();
        drop(state);
        waits.then(|| self.add(call, stream, None, Vec::new()))
    }

    /// In shuffled order a device does some of the work while the program goes on.
    fn drift(&self, call: &Call, near: &Arc<Mark>) {
        let StreamOrder::Shuffled(seed) = call.session.stream_order() else { return };
        let steps = lock(&self.state).random(seed).below(3);
        for _ in 0..steps {
            self.step(call, near);
        }
    }

    /// Does one item, on the way to `goal` where the order is late. Returns whether there was one.
    pub(super) fn step(&self, call: &Call, goal: &Arc<Mark>) -> bool {
        let turn = lock(&self.turn);
        let order = call.session.stream_order();
        let mut state = lock(&self.state);
        let chosen = state.choose(order, goal);
        let Some(handle) = chosen else { return false };
        // It stays in its lane until it is done, so that the lane does not look empty meanwhile.
        let Some(item) = state.lanes.get(&handle).and_then(|lane| lane.items.front().cloned()) else {
            return false;
        };
        drop(state);
        self.perform(call, &item);
        let mut state = lock(&self.state);
        if let Some(lane) = state.lanes.get_mut(&handle) {
            lane.items.pop_front();
            if lane.items.is_empty() {
                state.lanes.remove(&handle);
            }
        }
        let _ = item.done.reached.set(Instant::now());
        drop(state);
        drop(turn);
        true
    }

    fn perform(&self, call: &Call, item: &Item) {
        let Some(work) = &item.work else { return };
        let submitter = Call { name: item.call, session: Arc::clone(&call.session) };
        if let Err(error) = work.run(&submitter, &item.context) {
            // The call that submitted the work has returned.
            item.context.defer(error);
        }
        // Host memory that later copies use may have changed by rights.
        match work {
            Work::Call { .. } => self.look_again(|_| true),
            Work::DeviceToHost { host: HostSide::Later(written), .. } => {
                self.look_again(|other| written.overlaps(other));
            }
            _ => {}
        }
    }

    fn look_again(&self, concerns: impl Fn(&super::host::Later) -> bool) {
        let state = lock(&self.state);
        for item in state.lanes.values().flat_map(|lane| &lane.items) {
            if let Some(Work::HostToDevice { host: HostSide::Later(later), .. })
            | Some(Work::DeviceToHost { host: HostSide::Later(later), .. }) = &item.work
                && concerns(later)
            {
                later.look_again();
            }
        }
    }

    /// Works until the point is reached.
    pub(super) fn reach(&self, call: &Call, goal: &Arc<Mark>) {
        while !goal.is_reached() && self.step(call, goal) {}
    }

    /// Works until the stream has nothing left to do.
    pub(super) fn finish_stream(&self, call: &Call, stream: &Stream) {
        let mut goals = Vec::new();
        if stream.is_legacy() {
            // Its next item would wait for the other streams; so does a synchronisation.
            goals = lock(&self.state).implicit(stream);
        }
        goals.extend(self.last(stream));
        goals.iter().for_each(|goal| self.reach(call, goal));
    }

    /// The point after the last item of the stream.
    pub(super) fn last(&self, stream: &Stream) -> Option<Arc<Mark>> {
        lock(&self.state).last(stream.handle)
    }

    /// Works until no stream of the context, or none at all, has anything left to do.
    pub(super) fn finish(&self, call: &Call, context: Option<&Context>) {
        loop {
            let state = lock(&self.state);
            let wanted = |lane: &&Lane| context.is_none_or(|context| lane.context == context.handle);
            let goal = state.lanes.values().find(wanted).and_then(|lane| lane.items.back());
            let Some(goal) = goal.map(|item| Arc::clone(&item.done)) else { return };
            drop(state);
            self.reach(call, &goal);
            if !goal.is_reached() {
                // It waits for an event of another session, whose work this one cannot do.
                return;
            }
        }
    }
}
