//! Targets of parsers whose code is outside `longseq-check`.

/// What `rank` reads logs with.
#[path = "../../examples/rank/src/data.rs"]
#[allow(dead_code, reason = "rank uses all of it")]
mod data;

/// What `rank` may fail with; its log reader expects it here.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// PTX: any text loads or is an error that names a line.
pub fn ptx(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = cuda_emulator::ptx::Module::load(text);
    }
}

/// An event log: users and items are numbered without gaps, and every event is kept.
pub fn events(bytes: &[u8]) {
    if let Ok(log) = data::Log::read(bytes, "log") {
        assert!(log.events() > 0);
        assert!(log.users.iter().flatten().all(|&item| (item as usize) < log.items));
        assert!(log.users.iter().all(|items| !items.is_empty()));
    }
}
