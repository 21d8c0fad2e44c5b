//! One call of an operation: it is recorded whole or not at all, and its parts share scratch memory.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::gpu::lock;
use crate::webgpu::recording::{CallRecord, Command};
use crate::webgpu::state::Wgpu;

impl Wgpu {
    /// Makes a call on a handle of its own. What it records is done only if it succeeds: a call that finds, in the middle, that the device
    /// has no memory or binds no such range writes nothing.
    pub(crate) fn call(&self, call: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let own = Self { reports: self.reports.clone(), call: Some(Mutex::default()), ..self.forked() };
        call(&own)?;
        let record: Option<CallRecord> =
            own.call.map(|call| call.into_inner().unwrap_or_else(PoisonError::into_inner));
        let CallRecord { steps, reports, .. } = record.unwrap_or_default();
        let shared = &*self.shared;
        shared.recording.record_call(&shared.scopes, &shared.queue, &self.reports, steps);
        reports.into_iter().for_each(|report| self.push_report(report));
        Ok(())
    }

    /// Does one of several parts of a call. Parts after it may use its scratch memory, so that the memory of a call does not grow with
    /// their number.
    pub(crate) fn part<R>(&self, part: impl FnOnce() -> Result<R>) -> Result<R> {
        let taken = self.call.as_ref().map(|call| {
            let mut call = lock(call);
            call.has_parts = true;
            call.scratch.len()
        });
        let done = part()?;
        if let (Some(call), Some(taken)) = (&self.call, taken) {
            let mut call = lock(call);
            let used = call.scratch.split_off(taken);
            call.free.extend(used.into_iter().flatten());
        }
        Ok(done)
    }

    /// A buffer for scratch memory of `size` bytes, all zero.
    pub(crate) fn scratch_buffer(&self, operation: &'static str, size: u64) -> Result<wgpu::Buffer> {
        if let Some(buffer) = self.used_before(size) {
            self.record(
                operation,
                Command::Clear { buffer: buffer.clone(), offset: 0, bytes: size, accesses: vec![] },
            );
            return Ok(buffer);
        }
        // Sizes of parts differ by little.
        let has_parts = self.call.as_ref().is_some_and(|call| lock(call).has_parts);
        let most = self.limits().max_buffer_size;
        let rounded = if has_parts { size.next_power_of_two().min(most) } else { size };
        let buffer = self.allocate(operation, rounded)?;
        self.hold(rounded);
        if let Some(call) = &self.call {
            lock(call).scratch.push(Some(buffer.clone()));
        }
        Ok(buffer)
    }

    /// Lets later commands of the call use this scratch memory, which those so far were the last to need.
    pub(crate) fn give_back(&self, buffer: &wgpu::Buffer) {
        let Some(call) = &self.call else { return };
        let mut call = lock(call);
        call.has_parts = true;
        let taken = call.scratch.iter_mut().find(|taken| taken.as_ref() == Some(buffer));
        let given = taken.and_then(Option::take);
        call.free.extend(given);
    }

    /// The smallest buffer that holds so many bytes of those that earlier parts of the call have used.
    fn used_before(&self, size: u64) -> Option<wgpu::Buffer> {
        let mut call = lock(self.call.as_ref()?);
        let fitting = call.free.iter().enumerate().filter(|(_, buffer)| buffer.size() >= size);
        let (index, _) = fitting.min_by_key(|(_, buffer)| buffer.size())?;
        let buffer = call.free.swap_remove(index);
        call.scratch.push(Some(buffer.clone()));
        Some(buffer)
    }
}
