//! The PTX that ships.

use std::collections::HashMap;

/// A PTX file: its name in `kernels/ptx/`, its source in `kernels/`, its text.
type Shipped = (&'static str, &'static str, &'static str);

const SHIPPED: [Shipped; 21] = [
    ("decoupled", "decoupled/decoupled.cu", include_str!("../../kernels/ptx/decoupled.ptx")),
    ("decoupled_attend", "decoupled/attend.cu", include_str!("../../kernels/ptx/decoupled_attend.ptx")),
    ("decoupled_search", "decoupled/search.cu", include_str!("../../kernels/ptx/decoupled_search.ptx")),
    ("din", "din/din.cu", include_str!("../../kernels/ptx/din.ptx")),
    ("lookup", "lookup/lookup.cu", include_str!("../../kernels/ptx/lookup.ptx")),
    ("lookup_backward", "lookup/backward.cu", include_str!("../../kernels/ptx/lookup_backward.ptx")),
    ("lookup_sort", "lookup/sort.cu", include_str!("../../kernels/ptx/lookup_sort.ptx")),
    ("lookup_update", "lookup/update.cu", include_str!("../../kernels/ptx/lookup_update.ptx")),
    ("sdim", "sdim/sdim.cu", include_str!("../../kernels/ptx/sdim.ptx")),
    ("sdim_backward", "sdim/backward.cu", include_str!("../../kernels/ptx/sdim_backward.ptx")),
    ("sdim_encode", "sdim/encode.cu", include_str!("../../kernels/ptx/sdim_encode.ptx")),
    ("sdim_gather", "sdim/gather.cu", include_str!("../../kernels/ptx/sdim_gather.ptx")),
    ("sdim_query", "sdim/query.cu", include_str!("../../kernels/ptx/sdim_query.ptx")),
    ("sdim_scan", "sdim/scan.cu", include_str!("../../kernels/ptx/sdim_scan.ptx")),
    (
        "target_attention",
        "target_attention/target_attention.cu",
        include_str!("../../kernels/ptx/target_attention.ptx"),
    ),
    (
        "target_attention_backward",
        "target_attention/backward.cu",
        include_str!("../../kernels/ptx/target_attention_backward.ptx"),
    ),
    (
        "target_attention_backward_fma",
        "target_attention/backward_fma.cu",
        include_str!("../../kernels/ptx/target_attention_backward_fma.ptx"),
    ),
    (
        "target_attention_backward_stream",
        "target_attention/backward_stream.cu",
        include_str!("../../kernels/ptx/target_attention_backward_stream.ptx"),
    ),
    (
        "target_attention_fma",
        "target_attention/fma.cu",
        include_str!("../../kernels/ptx/target_attention_fma.ptx"),
    ),
    (
        "target_attention_mma",
        "target_attention/mma.cu",
        include_str!("../../kernels/ptx/target_attention_mma.ptx"),
    ),
    (
        "target_attention_stream",
        "target_attention/stream.cu",
        include_str!("../../kernels/ptx/target_attention_stream.ptx"),
    ),
];

/// The PTX of every kernel, by the name of its file in `kernels/ptx/`.
pub fn kernels() -> Vec<(&'static str, &'static str)> {
    SHIPPED.into_iter().map(|(file, _, text)| (file, text)).collect()
}

/// The PTX by file, as a backend keeps it.
pub(super) fn shipped() -> HashMap<&'static str, String> {
    kernels().into_iter().map(|(file, text)| (file, text.to_owned())).collect()
}

/// The source of a PTX file, relative to `kernels/`.
pub(super) fn source_of(file: &str) -> &'static str {
    SHIPPED.iter().find(|(name, _, _)| *name == file).map_or("", |(_, source, _)| source)
}
