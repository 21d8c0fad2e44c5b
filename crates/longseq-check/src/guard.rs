//! Output buffers that notice a stray or a missing write.

use longseq::prelude::*;

use longseq::{Buffer, Scalar, ViewMut};

use crate::case::Failure;

/// Elements before and after an output that nothing may touch. A multiple of every device's binding alignment.
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
    /// Space for `used` elements that must be written, followed by `unused` that must not.
    ///
    /// # Errors
    /// The device's own.
    pub fn new(backend: &B, used: usize, unused: usize) -> Result<Self, Failure> {
        let length = used + unused;
        let buffer = backend.upload(&vec![poison::<T>(); length + 2 * BAND])?;
        Ok(Self { buffer, used, length })
    }

    /// What is changed in place: these elements between guard bands.
    ///
    /// # Errors
    /// The device's own.
    pub fn holding(backend: &B, elements: &[T]) -> Result<Self, Failure> {
        let band = vec![poison::<T>(); BAND];
        let buffer = backend.upload(&[&band, elements, &band].concat())?;
        Ok(Self { buffer, used: elements.len(), length: elements.len() })
    }

    /// The output itself.
    ///
    /// # Errors
    /// None on a device whose views work.
    pub fn view_mut(&mut self, backend: &B) -> Result<ViewMut<'_, B::Memory, T>, Failure> {
        Ok(backend.view_mut(&mut self.buffer).slice(BAND, self.length)?)
    }

    /// Downloads, checks the bands and returns what was written.
    ///
    /// # Errors
    /// The first write outside the output; the device's own.
    pub fn finish(self, backend: &B, name: &str) -> Result<Vec<T>, Failure> {
        let all = backend.download(backend.view(&self.buffer))?;
        let bytes = |element: &T| bytemuck::bytes_of(element).iter().all(|&byte| byte == 0xFF);
        let end = BAND + self.used;
        for (i, element) in all.iter().enumerate() {
            if !(BAND..end).contains(&i) && !bytes(element) {
                let at = i as i64 - BAND as i64;
                return Err(Failure::new(format!(
                    "{name}: wrote {element:?} at {at}, outside 0..{}",
                    self.used
                )));
            }
        }
        Ok(all[BAND..end].to_vec())
    }
}
