//! The service as its clients see it: the program runs, and is asked over HTTP.

mod batching;
#[path = "../../src/client.rs"]
mod client;
mod hostile;
mod loaded;
#[path = "../../src/protocol.rs"]
mod protocol;
mod running;
mod stops;
