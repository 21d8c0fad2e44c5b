//! The kernels that ship: their texts, and loading them.

use std::sync::Arc;

use crate::cuda::Cuda;
use crate::cuda::launch::Module;
use crate::error::Result;
use crate::gpu::lock;

/// The PTX of every kernel, by the stem of its file in `kernels/`.
pub fn kernels() -> Vec<(&'static str, &'static str)> {
    vec![
        ("decoupled", include_str!("../../kernels/ptx/decoupled.ptx")),
        ("decoupled_attend", include_str!("../../kernels/ptx/decoupled_attend.ptx")),
        ("decoupled_search", include_str!("../../kernels/ptx/decoupled_search.ptx")),
        ("din", include_str!("../../kernels/ptx/din.ptx")),
        ("lookup", include_str!("../../kernels/ptx/lookup.ptx")),
        ("sdim", include_str!("../../kernels/ptx/sdim.ptx")),
        ("sdim_encode", include_str!("../../kernels/ptx/sdim_encode.ptx")),
        ("sdim_query", include_str!("../../kernels/ptx/sdim_query.ptx")),
        ("sdim_scan", include_str!("../../kernels/ptx/sdim_scan.ptx")),
        ("target_attention", include_str!("../../kernels/ptx/target_attention.ptx")),
        ("target_attention_fma", include_str!("../../kernels/ptx/target_attention_fma.ptx")),
        ("target_attention_mma", include_str!("../../kernels/ptx/target_attention_mma.ptx")),
        ("target_attention_stream", include_str!("../../kernels/ptx/target_attention_stream.ptx")),
    ]
}

impl Cuda {
    /// The kernels of a file, compiled at the first call.
    pub(super) fn module(&self, operation: &'static str, stem: &'static str) -> Result<Arc<Module>> {
        let mut modules = lock(&self.shared.modules);
        if let Some(module) = modules.get(stem) {
            return Ok(module.clone());
        }
        let text = self.shared.texts.get(stem).map_or("", String::as_str);
        let module = Arc::new(Module::load(self.stream().context(), operation, text)?);
        modules.insert(stem, module.clone());
        Ok(module)
    }
}
