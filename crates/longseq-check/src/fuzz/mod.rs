//! What the fuzz targets of `fuzz/` do with their bytes.
//!
//! A target of a stem, of its gradients or of optimisers makes one of two inputs of them. A *case* has sizes and options from the bytes and well-behaved numbers
//! from a seed; the backend must pass the [`check`](fn@crate::check). A *raw* call has every size, option, offset, id and number
//! from the bytes, with no regard for what is valid; the CPU backend must answer as the reference does, with an error of the same
//! kind or with numbers that agree in what is finite and what is not, and nothing may panic.

mod bytes;
mod cases;
mod raw;
mod raw_backward;
mod raw_channels;
mod raw_search;
mod raw_selected;
mod raw_tables;
mod raw_tin;
mod selected_tables;

use arbitrary::Unstructured;
use longseq::{AnyBackend, Jagged};

use crate::device::{TestDevice, cpu};
use crate::named::AnyCase;

/// Something that takes bytes and panics where the library is at fault.
pub type Target = fn(&[u8]);

/// Every target of this crate, by name.
pub const TARGETS: [(&str, Target); 20] = [
    ("target_attention", target_attention),
    ("din", din),
    ("sdim", sdim),
    ("lookup", lookup),
    ("decoupled", decoupled),
    ("search", search),
    ("selected", selected),
    ("selected_tables", selected_tables),
    ("tin", tin),
    ("interest_channels", interest_channels),
    ("target_attention_backward", target_attention_backward),
    ("din_backward", din_backward),
    ("sdim_backward", sdim_backward),
    ("lookup_backward", lookup_backward),
    ("update_rows", update_rows),
    ("decoupled_backward", decoupled_backward),
    ("selected_backward", selected_backward),
    ("tin_backward", tin_backward),
    ("interest_channels_backward", interest_channels_backward),
    ("jagged", jagged),
];

macro_rules! targets {
    ($($target:ident $raw:ident;)*) => {$(
        /// The target of this name.
        ///
        /// # Panics
        /// Where the library is at fault.
        pub fn $target(data: &[u8]) {
            let mut bytes = Unstructured::new(data);
            // Too few bytes are no input.
            let _ = match bytes.arbitrary() {
                Ok(true) => $raw::$target(&mut bytes),
                _ => cases::$target(&mut bytes).map(|case| check_everywhere(&case)),
            };
        }
    )*};
}
targets! {
    target_attention raw;
    din raw;
    sdim raw;
    lookup raw;
    decoupled raw;
    search raw_search;
    selected raw_selected;
    selected_tables selected_tables;
    tin raw_tin;
    interest_channels raw_channels;
    target_attention_backward raw_backward;
    din_backward raw_backward;
    sdim_backward raw_backward;
    lookup_backward raw_tables;
    update_rows raw_tables;
    decoupled_backward raw_tables;
    selected_backward raw_selected;
    tin_backward raw_tin;
    interest_channels_backward raw_channels;
}

/// Checks a case on the CPU, and on the devices that `LONGSEQ_FUZZ_DEVICES` names (`wgpu`, `cuda`).
fn check_everywhere(case: &AnyCase) {
    check_on(&cpu(), case);
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    let devices = std::env::var("LONGSEQ_FUZZ_DEVICES").unwrap_or_default();
    #[cfg(feature = "wgpu")]
    if devices.contains("wgpu")
        && let Some(gpu) = crate::device::webgpu::device()
    {
        check_on(&gpu.into(), case);
    }
    #[cfg(feature = "cuda")]
    if devices.contains("cuda")
        && let Some(gpu) = crate::device::cuda::device()
    {
        check_on(&gpu.into(), case);
    }
}

fn check_on(device: &AnyBackend, case: &AnyCase) {
    if let Err(failure) = device.check_case(case) {
        panic!("{failure}");
    }
}

/// Offsets: accepted ones start at 0, do not fall, and stay within the rows.
///
/// # Panics
/// Where the library is at fault.
pub fn jagged(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok((offsets, rows, signed)) = bytes.arbitrary::<(Vec<u64>, usize, Vec<i64>)>() else { return };
    if let Ok(jagged) = Jagged::new(&offsets, rows) {
        let kept = jagged.offsets().map(|kept| kept.iter().map(|&offset| offset as u64).collect::<Vec<_>>());
        assert_eq!(kept, Some(offsets.clone()));
        assert_eq!(offsets.first(), Some(&0));
        assert!(offsets.is_sorted() && jagged.total() <= jagged.rows() && jagged.rows() == rows);
        assert_eq!(jagged.ranges().map(|range| range.len()).sum::<usize>(), jagged.total());
    }
    if Jagged::new(&signed, rows).is_ok() {
        assert!(signed.iter().all(|&offset| offset >= 0));
    }
    let (starts, counts) = offsets.split_at(offsets.len() / 2);
    if let Ok(jagged) = Jagged::from_starts(starts, counts, rows) {
        assert_eq!((jagged.users(), counts.len()), (starts.len(), starts.len()));
        for (user, range) in jagged.ranges().enumerate() {
            assert_eq!(range.len() as u64, counts[user]);
            assert!(range.is_empty() || range.start as u64 == starts[user]);
            assert!(range.end <= jagged.total() && jagged.total() <= rows);
        }
    }
    let lengths: Vec<usize> = offsets.iter().map(|&length| length as usize).collect();
    if let Ok(jagged) = Jagged::from_lengths(&lengths) {
        assert!(jagged.ranges().map(|range| range.len()).eq(lengths));
    }
}
