//! The PTX that ships, compressed: as text it would be half of a program.

use miniz_oxide::inflate::decompress_to_vec_zlib;

/// A PTX file: its name in `kernels/ptx/`, its source in `kernels/`, its text as zlib compresses it.
type Shipped = (&'static str, &'static str, &'static [u8]);

const SHIPPED: [Shipped; 50] = [
    ("decoupled", "decoupled/decoupled.cu", include_bytes!("../../kernels/ptx/decoupled.ptx.z")),
    (
        "decoupled_all_pairs",
        "decoupled/all_pairs.cu",
        include_bytes!("../../kernels/ptx/decoupled_all_pairs.ptx.z"),
    ),
    (
        "decoupled_all_sums",
        "decoupled/all_sums.cu",
        include_bytes!("../../kernels/ptx/decoupled_all_sums.ptx.z"),
    ),
    ("decoupled_attend", "decoupled/attend.cu", include_bytes!("../../kernels/ptx/decoupled_attend.ptx.z")),
    (
        "decoupled_backward",
        "decoupled/backward.cu",
        include_bytes!("../../kernels/ptx/decoupled_backward.ptx.z"),
    ),
    ("decoupled_search", "decoupled/search.cu", include_bytes!("../../kernels/ptx/decoupled_search.ptx.z")),
    ("din", "din/din.cu", include_bytes!("../../kernels/ptx/din.ptx.z")),
    ("din_backward", "din/backward.cu", include_bytes!("../../kernels/ptx/din_backward.ptx.z")),
    (
        "din_backward_pairs",
        "din/backward_pairs.cu",
        include_bytes!("../../kernels/ptx/din_backward_pairs.ptx.z"),
    ),
    (
        "din_backward_sums",
        "din/backward_sums.cu",
        include_bytes!("../../kernels/ptx/din_backward_sums.ptx.z"),
    ),
    (
        "interest_channels",
        "interest_channels/interest_channels.cu",
        include_bytes!("../../kernels/ptx/interest_channels.ptx.z"),
    ),
    (
        "interest_channels_axes",
        "interest_channels/axes.cu",
        include_bytes!("../../kernels/ptx/interest_channels_axes.ptx.z"),
    ),
    (
        "interest_channels_backward",
        "interest_channels/backward.cu",
        include_bytes!("../../kernels/ptx/interest_channels_backward.ptx.z"),
    ),
    (
        "interest_channels_route",
        "interest_channels/route.cu",
        include_bytes!("../../kernels/ptx/interest_channels_route.ptx.z"),
    ),
    ("lookup", "lookup/lookup.cu", include_bytes!("../../kernels/ptx/lookup.ptx.z")),
    ("lookup_backward", "lookup/backward.cu", include_bytes!("../../kernels/ptx/lookup_backward.ptx.z")),
    ("lookup_sort", "lookup/sort.cu", include_bytes!("../../kernels/ptx/lookup_sort.ptx.z")),
    ("lookup_update", "lookup/update.cu", include_bytes!("../../kernels/ptx/lookup_update.ptx.z")),
    ("lookup_weights", "lookup/weights.cu", include_bytes!("../../kernels/ptx/lookup_weights.ptx.z")),
    ("sdim", "sdim/sdim.cu", include_bytes!("../../kernels/ptx/sdim.ptx.z")),
    ("sdim_backward", "sdim/backward.cu", include_bytes!("../../kernels/ptx/sdim_backward.ptx.z")),
    ("sdim_encode", "sdim/encode.cu", include_bytes!("../../kernels/ptx/sdim_encode.ptx.z")),
    ("sdim_gather", "sdim/gather.cu", include_bytes!("../../kernels/ptx/sdim_gather.ptx.z")),
    ("sdim_items", "sdim/items.cu", include_bytes!("../../kernels/ptx/sdim_items.ptx.z")),
    ("sdim_query", "sdim/query.cu", include_bytes!("../../kernels/ptx/sdim_query.ptx.z")),
    ("sdim_scan", "sdim/scan.cu", include_bytes!("../../kernels/ptx/sdim_scan.ptx.z")),
    ("search", "search/search.cu", include_bytes!("../../kernels/ptx/search.ptx.z")),
    ("search_bf16", "search/bf16.cu", include_bytes!("../../kernels/ptx/search_bf16.ptx.z")),
    ("search_codes", "search/codes.cu", include_bytes!("../../kernels/ptx/search_codes.ptx.z")),
    ("search_f16", "search/f16.cu", include_bytes!("../../kernels/ptx/search_f16.ptx.z")),
    ("search_f32", "search/f32.cu", include_bytes!("../../kernels/ptx/search_f32.ptx.z")),
    ("search_int8", "search/int8.cu", include_bytes!("../../kernels/ptx/search_int8.ptx.z")),
    ("search_signs", "search/signs.cu", include_bytes!("../../kernels/ptx/search_signs.ptx.z")),
    ("selected", "selected/selected.cu", include_bytes!("../../kernels/ptx/selected.ptx.z")),
    (
        "selected_backward",
        "selected/backward.cu",
        include_bytes!("../../kernels/ptx/selected_backward.ptx.z"),
    ),
    ("selected_tables", "selected/tables.cu", include_bytes!("../../kernels/ptx/selected_tables.ptx.z")),
    (
        "target_attention",
        "target_attention/target_attention.cu",
        include_bytes!("../../kernels/ptx/target_attention.ptx.z"),
    ),
    (
        "target_attention_backward",
        "target_attention/backward.cu",
        include_bytes!("../../kernels/ptx/target_attention_backward.ptx.z"),
    ),
    (
        "target_attention_backward_fma",
        "target_attention/backward_fma.cu",
        include_bytes!("../../kernels/ptx/target_attention_backward_fma.ptx.z"),
    ),
    (
        "target_attention_backward_mma",
        "target_attention/backward_mma.cu",
        include_bytes!("../../kernels/ptx/target_attention_backward_mma.ptx.z"),
    ),
    (
        "target_attention_backward_stream",
        "target_attention/backward_stream.cu",
        include_bytes!("../../kernels/ptx/target_attention_backward_stream.ptx.z"),
    ),
    (
        "target_attention_fma",
        "target_attention/fma.cu",
        include_bytes!("../../kernels/ptx/target_attention_fma.ptx.z"),
    ),
    (
        "target_attention_mma",
        "target_attention/mma.cu",
        include_bytes!("../../kernels/ptx/target_attention_mma.ptx.z"),
    ),
    (
        "target_attention_stream",
        "target_attention/stream.cu",
        include_bytes!("../../kernels/ptx/target_attention_stream.ptx.z"),
    ),
    ("tin", "tin/tin.cu", include_bytes!("../../kernels/ptx/tin.ptx.z")),
    ("tin_backward", "tin/backward.cu", include_bytes!("../../kernels/ptx/tin_backward.ptx.z")),
    ("tin_backward_fma", "tin/backward_fma.cu", include_bytes!("../../kernels/ptx/tin_backward_fma.ptx.z")),
    (
        "tin_backward_stream",
        "tin/backward_stream.cu",
        include_bytes!("../../kernels/ptx/tin_backward_stream.ptx.z"),
    ),
    ("tin_fma", "tin/fma.cu", include_bytes!("../../kernels/ptx/tin_fma.ptx.z")),
    ("tin_stream", "tin/stream.cu", include_bytes!("../../kernels/ptx/tin_stream.ptx.z")),
];

/// The PTX of every kernel, by the name of its file in `kernels/ptx/`.
pub fn kernels() -> Vec<(&'static str, String)> {
    files().filter_map(|file| Some((file, text_of(file)?))).collect()
}

/// The names of the files.
pub(super) fn files() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(file, _, _)| *file)
}

/// The PTX of a file; `None` if there is no such file.
pub(super) fn text_of(file: &str) -> Option<String> {
    let (_, _, compressed) = SHIPPED.iter().find(|(name, _, _)| *name == file)?;
    String::from_utf8(decompress_to_vec_zlib(compressed).ok()?).ok()
}

/// The source of a PTX file, relative to `kernels/`.
pub(super) fn source_of(file: &str) -> &'static str {
    SHIPPED.iter().find(|(name, _, _)| *name == file).map_or("", |(_, source, _)| source)
}
