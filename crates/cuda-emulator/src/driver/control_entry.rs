//! The exported half of the control interface: handles the requests of [`crate::control`].

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::objects::lock;
use super::session::{Records, Session};
use crate::control::protocol::{BUILD_ID, Reply, Request, Sink};

/// The build of this library, as a C string.
#[unsafe(no_mangle)]
extern "C" fn cuda_emulator_build() -> *const c_char {
    BUILD_ID.as_ptr().cast()
}

/// Handles a request of `length` bytes and passes the reply to `sink` before returning.
///
/// # Safety
/// `request` must point to `length` bytes, and `sink` must accept `data` and any bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuda_emulator_control(request: *const u8, length: usize, sink: Sink, data: *mut c_void) {
    // SAFETY: the caller guarantees the bytes.
    let request = unsafe { std::slice::from_raw_parts(request, length) };
    let reply = catch_unwind(AssertUnwindSafe(|| match serde_json::from_slice(request) {
        Ok(request) => answer(request),
        Err(error) => Reply::Refused(error.to_string()),
    }));
    let reply = reply.unwrap_or_else(|_| Reply::Refused("the driver panicked".to_owned()));
    let bytes = serde_json::to_vec(&reply).unwrap_or_default();
    // SAFETY: the caller guarantees that the sink accepts this.
    unsafe { sink(data, bytes.as_ptr(), bytes.len()) };
}

fn answer(request: Request) -> Reply {
    match request {
        Request::Begin(device) => Reply::Session(Session::begin(*device)),
        Request::End(number) => {
            Session::end(number);
            Reply::Done
        }
        Request::Enter(number) => with(number, |session| {
            session.enter();
            Reply::Done
        }),
        Request::Set(number, setting) => with(number, |session| {
            lock(&session.settings).apply(setting);
            Reply::Done
        }),
        Request::Inject(number, fault) => with(number, |session| {
            session.inject(fault);
            Reply::Done
        }),
        Request::ClearFaults(number) => with(number, |session| {
            session.clear_faults();
            Reply::Done
        }),
        Request::Launches { session, take } => {
            records(session, |records| Reply::Launches(read(&mut records.launches, take)))
        }
        Request::Findings { session, take } => {
            records(session, |records| Reply::Findings(read(&mut records.findings, take)))
        }
        Request::Misuses { session, take } => {
            records(session, |records| Reply::Misuses(read(&mut records.misuses, take)))
        }
        Request::Leaks { session, take } => {
            records(session, |records| Reply::Leaks(read(&mut records.leaks, take)))
        }
        Request::Calls { session, take } => records(session, |records| {
            let names = read(&mut records.calls, take);
            Reply::Calls(names.into_iter().map(str::to_owned).collect())
        }),
        Request::Live(number) => with(number, |session| Reply::Live(session.live(None))),
    }
}

fn with(number: u64, answer: impl FnOnce(&Arc<Session>) -> Reply) -> Reply {
    match Session::numbered(number) {
        Some(session) => answer(&session),
        None => Reply::Refused(format!("there is no session {number}")),
    }
}

fn records(number: u64, answer: impl FnOnce(&mut Records) -> Reply) -> Reply {
    with(number, |session| answer(&mut lock(&session.records)))
}

fn read<T: Clone>(list: &mut Vec<T>, take: bool) -> Vec<T> {
    if take { std::mem::take(list) } else { list.clone() }
}
