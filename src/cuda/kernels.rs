//! The PTX that ships.

use std::collections::HashMap;

/// The PTX of every kernel, by the name of its file in `kernels/ptx/`.
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

/// The PTX by file, as a backend keeps it.
pub(super) fn shipped() -> HashMap<&'static str, String> {
    kernels().into_iter().map(|(file, text)| (file, text.to_owned())).collect()
}
