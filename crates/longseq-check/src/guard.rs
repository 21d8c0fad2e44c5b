//! Output buffers that notice a stray or a missing write.

use std::cell::Cell;

use longseq::prelude::*;

use longseq::{Buffer, Scalar, ViewMut};

use crate::case::Failure;

thread_local! {
    /// Elements before and after an output that nothing may touch: a multiple of every device's binding alignment, unless a test asks for
    /// others.
    static BAND: Cell<usize> = const { Cell::new(256) };
}

/// The outputs of the cases that `run` makes on this thread have bands of so many elements: where these are few, outputs in one buffer
/// share bindings, and with an odd number each begins at an odd element.
pub fn with_bands<R>(band: usize, run: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also where a test fails.
    struct Before(usize);
    impl Drop for Before {
        fn drop(&mut self) {
            BAND.set(self.0);
        }
    }
    let _before = Before(BAND.replace(band));
    run()
}

/// An output between guard bands, all poisoned with bytes of 0xFF: NaN, or the largest integer.
pub struct Guarded<B: Backend, T: Scalar> {
    buffer: Buffer<B, T>,
    band: usize,
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
        let (length, band) = (used + unused, BAND.get());
        let buffer = backend.upload(&vec![poison::<T>(); length + 2 * band])?;
        Ok(Self { buffer, band, used, length })
    }

    /// What is changed in place: these elements between guard bands.
    ///
    /// # Errors
    /// The device's own.
    pub fn holding(backend: &B, elements: &[T]) -> Result<Self, Failure> {
        let band = vec![poison::<T>(); BAND.get()];
        let buffer = backend.upload(&[&band, elements, &band].concat())?;
        Ok(Self { buffer, band: band.len(), used: elements.len(), length: elements.len() })
    }

    /// The output itself.
    ///
    /// # Errors
    /// None on a device whose views work.
    pub fn view_mut(&mut self, backend: &B) -> Result<ViewMut<'_, B::Memory, T>, Failure> {
        Ok(backend.view_mut(&mut self.buffer).slice(self.band, self.length)?)
    }

    /// Downloads, checks the bands and returns what was written.
    ///
    /// # Errors
    /// The first write outside the output; the device's own.
    pub fn finish(self, backend: &B, name: &str) -> Result<Vec<T>, Failure> {
        let all = backend.download(backend.view(&self.buffer))?;
        let bytes = |element: &T| bytemuck::bytes_of(element).iter().all(|&byte| byte == 0xFF);
        let (band, end) = (self.band, self.band + self.used);
        for (i, element) in all.iter().enumerate() {
            if !(band..end).contains(&i) && !bytes(element) {
                let at = i as i64 - band as i64;
                return Err(Failure::new(format!(
                    "{name}: wrote {element:?} at {at}, outside 0..{}",
                    self.used
                )));
            }
        }
        Ok(all[band..end].to_vec())
    }
}
