//! Copies to the host that are under way.

use std::task::{Context, Waker};

use crate::gpu::sync::{Arc, Mutex, lock, wake};

/// Whether a mapping has arrived: what its callback stores.
#[derive(Debug, Default)]
pub(crate) struct Arrival(Mutex<Landing>);

#[derive(Debug, Default)]
struct Landing {
    /// Whether it succeeded.
    result: Option<bool>,
    waker: Option<Waker>,
}

impl Arrival {
    /// Maps a buffer for reading. Its bytes can be read once the result has arrived.
    pub(crate) fn map(staging: &wgpu::Buffer) -> Arc<Self> {
        let arrival = Arc::new(Self::default());
        let landed = arrival.clone();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let waker = {
                let mut landing = lock(&landed.0);
                landing.result = Some(result.is_ok());
                landing.waker.take()
            };
            if let Some(waker) = waker {
                wake(waker);
            }
        });
        arrival
    }

    pub(crate) fn is_there(&self) -> bool {
        lock(&self.0).result.is_some()
    }

    /// Whether the mapping succeeded.
    pub(crate) fn succeeded(&self) -> bool {
        lock(&self.0).result == Some(true)
    }

    /// Whether it is there; otherwise the task is woken when it is.
    pub(crate) fn poll(&self, context: &Context<'_>) -> bool {
        let mut landing = lock(&self.0);
        if landing.result.is_none() {
            landing.waker = Some(context.waker().clone());
        }
        landing.result.is_some()
    }
}
