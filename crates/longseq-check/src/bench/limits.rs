//! A lower bound of the time of a call on a device.

use std::fmt;

use super::Device;
use crate::case::Failure;
use crate::named::Named;

/// The longer of two times: the fewest bytes at the bandwidth of a copy, the operations at the rate of fused
/// multiply-adds.
pub(super) struct Limit {
    pub(super) micros: f64,
    /// Per second.
    rate: f64,
    memory: bool,
}

impl Limit {
    pub(super) fn of<D: Device>(device: &D, case: &Named) -> Result<Self, Failure> {
        let work = case.work();
        let (bandwidth, arithmetic) = (device.bandwidth(case.footprint())?, device.arithmetic()?);
        let (moving, computing) = (work.bytes as f64 / bandwidth, work.flops as f64 / arithmetic);
        Ok(if moving > computing {
            Self { micros: moving * 1e6, rate: bandwidth, memory: true }
        } else {
            Self { micros: computing * 1e6, rate: arithmetic, memory: false }
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, unit) = if self.memory { ("memory", "GB/s") } else { ("arithmetic", "GFLOP/s") };
        write!(f, "{what}, {:.0} {unit}", self.rate / 1e9)
    }
}
