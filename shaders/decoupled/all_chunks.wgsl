// Spans and tiles of a chunk, which the kernels over all behaviours share; src/gpu/decoupled.rs cuts them.

// Candidates of a tile, and behaviours that a workgroup takes at a time.
const CANDIDATES: u32 = 16u;
const BEHAVIOURS: u32 = 64u;
const ALL_THREADS: u32 = 128u;
// Neighbouring threads have different behaviours, or columns.
const LANES: u32 = 16u;
// The weight of a pair that a score of -∞ removes, and its bits: comparisons of numbers may take NaN for equal.
const REMOVED: f32 = -1.0;
const REMOVED_BITS: u32 = 0xbf800000u;
