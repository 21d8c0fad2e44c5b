//! The files under test, and what they take from others of `src/webgpu`.

#[path = "../../../src/webgpu/arrival.rs"]
pub(crate) mod arrival;
#[path = "../../../src/webgpu/waiter.rs"]
pub(crate) mod waiter;

/// `src/webgpu/scope.rs`.
pub(crate) mod scope {
    use crate::gpu::sync::Arc;
    use crate::{Device, PollType};

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum PollFailure {
        Timeout,
        Lost,
        Other(String),
    }

    pub(crate) struct Scopes(pub(crate) Arc<Device>);

    impl Scopes {
        pub(crate) fn poll(&self, poll: PollType) -> Result<(), PollFailure> {
            let PollType::Wait { submission_index, timeout } = poll;
            assert!(submission_index.is_some() && timeout.is_some());
            self.0.poll()
        }
    }
}
