//! A backend on PTX of the caller's, which must vouch for it.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::cuda::driver::find::{check_capability, find_driver};
use crate::cuda::handle::Cuda;
use crate::cuda::kernels::files;
use crate::error::{Error, Result};

impl Cuda {
    /// Like [`from_stream`](Self::from_stream), but with the caller's own builds of some of the files that
    /// [`kernels`](crate::cuda::kernels) lists, made by another compiler or for an architecture newer than `compute_80`.
    ///
    /// # Safety
    /// Each kernel must read and write what the crate's kernel of the same name does, and nothing else.
    ///
    /// # Errors
    /// As [`from_stream`](Self::from_stream); [`Unsupported`](Error::Unsupported) for an unknown file. PTX that does
    /// not compile is reported by the first call that needs it.
    pub unsafe fn from_ptx<'a>(
        stream: Arc<CudaStream>,
        own: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<Self> {
        const NAME: &str = "Cuda::from_ptx";
        find_driver(NAME)?;
        check_capability(NAME, stream.context())?;
        let mut texts: HashMap<&'static str, String> = HashMap::new();
        for (stem, text) in own {
            let Some(known) = files().find(|file| *file == stem) else {
                let (what, supported) = (format!("PTX for {stem:?}"), files().collect::<Vec<_>>().join(", "));
                return Err(Error::Unsupported { operation: NAME, what, supported });
            };
            texts.insert(known, text);
        }
        Self::build(NAME, stream, texts)
    }
}
