//! Output buffers that notice a stray or a missing write.

use longseq::prelude::*;

use longseq::{Buffer, Scalar, ViewMut};

use super::Failure;

/// Elements before and behind an output that nothing may touch. A multiple of every device's binding alignment.
const BAND: usize = 256;

/// An output between guard bands, all poisoned with bytes of 0xFF: NaN, or the largest integer.
pub struct Guarded<B: Backend, T: Scalar> {
    buffer: Buffer<B, T>,
    used: usize,
    length: usize,
}

/// The poison as a number.
pub fn poison<T: Scalar>() -> T {
    bytemuck::pod_read_unaligned(&[0xFF; 8][..size_of::<T>()])
}

impl<B: Backend, T: Scalar> Guarded<B, T> {
    /// Room for `used` elements that must be written and `unused` behind them that must not.
    pub fn new(backend: &B, used: usize, unused: usize) -> Result<Self, Failure> {
        let length = used + unused;
        let buffer = backend.upload(&vec![poison::<T>(); length + 2 * BAND])?;
        Ok(Self { buffer, used, length })
    }

    /// The output itself.
    pub fn view_mut(&mut self, backend: &B) -> Result<ViewMut<'_, B::Memory, T>, Failure> {
        Ok(backend.view_mut(&mut self.buffer).slice(BAND, self.length)?)
    }

    /// Downloads, checks the bands and returns what was written.
    pub fn finish(self, backend: &B, name: &str) -> Result<Vec<T>, Failure> {
        let all = backend.download(backend.view(&self.buffer))?;
        let bytes = |element: &T| bytemuck::bytes_of(element).iter().all(|&byte| byte == 0xFF);
        let end = BAND + self.used;
        for (i, element) in all.iter().enumerate() {
            if !(BAND..end).contains(&i) && !bytes(element) {
                let at = i as i64 - BAND as i64;
                return Err(Failure(format!("{name}: wrote {element:?} at {at}, outside 0..{}", self.used)));
            }
        }
        Ok(all[BAND..end].to_vec())
    }
}
