//! Host memory that is used after the call that named it has returned: by a graph, or when a stream reaches a copy.
//!
//! The program may have freed it. It is therefore accessed through the kernel, which answers an error where there is no
//! memory, and not through a pointer.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use super::abi::Host;
use super::objects::lock;

/// `struct iovec`.
#[repr(C)]
struct Span {
    start: *mut c_void,
    bytes: usize,
}

unsafe extern "C" {
    fn process_vm_readv(
        process: i32,
        local: *const Span,
        locals: usize,
        remote: *const Span,
        remotes: usize,
        flags: usize,
    ) -> isize;
    fn process_vm_writev(
        process: i32,
        local: *const Span,
        locals: usize,
        remote: *const Span,
        remotes: usize,
        flags: usize,
    ) -> isize;
}

/// `EFAULT`: there is no memory at the address, or it cannot be written.
const FAULT: i32 = 14;

/// Why host memory could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is no memory at these addresses.
    Missing,
    /// Its contents are not those that it had when the copy was submitted.
    Changed,
}

/// Host memory of a copy that takes place later.
#[derive(Debug, Clone)]
pub(super) struct Later {
    pub(super) host: Host,
    pub(super) bytes: usize,
    /// What it held when the copy was submitted. `None` in graphs, where the program may change it between launches.
    seen: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Later {
    /// Memory that a graph reads or writes at each launch.
    pub(super) fn of_graph(host: Host, bytes: usize) -> Self {
        Self { host, bytes, seen: None }
    }

    /// Memory that the program must leave alone until the copy is done.
    pub(super) fn watched(host: Host, bytes: usize) -> Result<Self, Unusable> {
        Ok(Self { host, bytes, seen: Some(Arc::new(Mutex::new(read(host, bytes)?))) })
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (start, other_start) = (self.host.0 as usize, other.host.0 as usize);
        start < other_start.wrapping_add(other.bytes) && other_start < start.wrapping_add(self.bytes)
    }

    /// Its contents now.
    pub(super) fn read(&self) -> Result<Vec<u8>, Unusable> {
        let now = read(self.host, self.bytes)?;
        match &self.seen {
            Some(seen) if *lock(seen) != now => Err(Unusable::Changed),
            _ => Ok(now),
        }
    }

    /// Replaces its contents.
    pub(super) fn write(&self, data: &[u8]) -> Result<(), Unusable> {
        if self.seen.is_some() {
            self.read()?;
        }
        write(self.host, data)
    }

    /// Notes what it holds now: something of the emulator's own, or a function of the program's, has written to it.
    pub(super) fn look_again(&self) {
        if let Some(seen) = &self.seen
            && let Ok(now) = read(self.host, self.bytes)
        {
            *lock(seen) = now;
        }
    }
}

fn process() -> i32 {
    std::process::id() as i32
}

/// The outcome of a transfer. Where a sandbox forbids the system call, `direct` does without.
fn outcome(moved: isize, wanted: usize, direct: impl FnOnce()) -> Result<(), Unusable> {
    if moved < 0 && std::io::Error::last_os_error().raw_os_error() != Some(FAULT) {
        direct();
        return Ok(());
    }
    if moved == wanted as isize { Ok(()) } else { Err(Unusable::Missing) }
}

fn read(host: Host, bytes: usize) -> Result<Vec<u8>, Unusable> {
    let mut data = vec![0_u8; bytes];
    if bytes == 0 {
        return Ok(data);
    }
    let local = Span { start: data.as_mut_ptr().cast(), bytes };
    let remote = Span { start: host.0, bytes };
    // SAFETY: both lists have one span, the local one is `data`, and the kernel checks the other.
    let moved = unsafe { process_vm_readv(process(), &local, 1, &remote, 1, 0) };
    outcome(moved, bytes, || {
        if let Ok(copied) = host.read(bytes) {
            data = copied;
        }
    })?;
    Ok(data)
}

fn write(host: Host, data: &[u8]) -> Result<(), Unusable> {
    if data.is_empty() {
        return Ok(());
    }
    let local = Span { start: data.as_ptr().cast_mut().cast(), bytes: data.len() };
    let remote = Span { start: host.0, bytes: data.len() };
    // SAFETY: both lists have one span, the local one is `data`, which is only read, and the kernel checks the other.
    let moved = unsafe { process_vm_writev(process(), &local, 1, &remote, 1, 0) };
    outcome(moved, data.len(), || {
        let _ = host.write(data);
    })
}
