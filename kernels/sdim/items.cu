// SDIM: signatures of rows from those of their items.
#include "shared/common.cuh"

struct SdimItemsParams {
    // [items, groups]
    const void *signatures;
    // [count]: the item of each row.
    const u32 *ids;
    // [count, groups]
    void *out;
    // For ids without an item, and for signatures of too many bits.
    u64 *id_record;
    u64 *record;
    u64 items;
    u64 count;
    u32 groups, bits;
    // Bytes per signature, 1 or 2.
    u32 code_bytes;
    u32 unused;
};

// One thread per row and group; adjacent threads share a row. What is reported is taken for 0, so that kernels that read the output find
// buckets that are there.
extern "C" __global__ void __launch_bounds__(256) sdim_items(const SdimItemsParams p) {
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    u64 row = i / p.groups;
    if (row >= p.count) {
        return;
    }
    u32 id = p.ids[row];
    u32 code = 0;
    if (id < p.items) {
        u64 place = id * (u64)p.groups + (i - row * p.groups);
        code = p.code_bytes == 1 ? ((const u8 *)p.signatures)[place] : ((const u16 *)p.signatures)[place];
        if (code >> p.bits != 0) {
            report_bad_id(p.record, place, code);
            code = 0;
        }
    } else {
        report_bad_id(p.id_record, row, id);
    }
    if (p.code_bytes == 1) {
        ((u8 *)p.out)[i] = (u8)code;
    } else {
        ((u16 *)p.out)[i] = (u16)code;
    }
}
