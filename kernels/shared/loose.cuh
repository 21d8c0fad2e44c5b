// Rows that need not be whole vectors of 16 bytes.
#pragma once
#include "shared/common.cuh"

// How rows can be read.
enum Access : u32 {
    // Number by number; 32 bits at a time; 16 bytes at a time.
    NUMBERS,
    WORDS,
    VECTORS
};

// COUNT words of a row, from byte `at` on, of rows that vectors need not fit; zeros past the end of the row.
template <u32 NUMBER_BYTES, u32 COUNT>
__device__ __forceinline__ void loose_words(u32 *out, const u8 *row, u32 at, u32 row_bytes, bool words) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
        const u8 *from = row + at + 4 * i;
        const u32 left = row_bytes - min(row_bytes, at + 4 * i);
        out[i] = 0;
        if constexpr (NUMBER_BYTES == 4) {
            out[i] = left > 0 ? __ldg((const u32 *)from) : 0;
        } else if (words) {
            out[i] = left > 0 ? __ldg((const u32 *)from) : 0;
        } else {
#pragma unroll
            for (u32 byte = 0; byte < 4; byte += NUMBER_BYTES) {
                if (byte < left) {
                    out[i] |= (u32)(NUMBER_BYTES == 2 ? __ldg((const u16 *)(from + byte)) : __ldg(from + byte)) << 8 * byte;
                }
            }
        }
    }
}
