// Attention over a selection whose rows come from embedding tables, and its gradients: what is there besides look-ups (lookup/) and
// the kernels of selections of rows (selected.cu, backward.cu).
//
// Those kernels run on rows that are gathered for the slots of some candidates. selected_slots gives each of these candidates a
// history of its own, of K behaviours, of which slot k keeps behaviour k; it writes the behaviour of each slot and the ids whose rows
// are gathered. Positions and counts out of range are reported here, and keep nothing.
//
// selected_slot_rows writes what each slot adds to the gradient of its behaviour's row,
//
//     out[m,k,h'] = factor · Σ_{heads h of h'} number[m,h,k] · row[m,h]
//
// which lookup/backward.cu then adds up by id, or by behaviour; and the ids of the slots that add anything. Where all heads share one
// key and one value, rows of tables are sums of numbers times rows of candidates: selected_slot_bags writes (row, number) of each slot
// of each head instead, the "bags" of lookup/backward.cu.
//
// selected_slots takes a block for each candidate, selected_slot_rows one for each slot, selected_slot_bags a thread for each slot of
// each head. Sums are in the order of the heads.
#include "selected/rows.cuh"

struct SelectedSlotsParams {
    // Those of the launch, one candidate each.
    const Tile *tiles;
    // [M, K], [M, K] and [M].
    const u32 *positions;
    const float *similarities;
    const u32 *counts;
    // [N, F]
    const u32 *ids;
    // Records for counts above K, and for positions outside their history.
    u64 *bad_counts, *bad_positions;
    // What the candidates of the launch have instead: tiles, [C, K], [C, K] and [C].
    Tile *own_tiles;
    u32 *own_positions;
    float *own_similarities;
    u32 *own_counts;
    // [C, K] and [C, K, F]; NONE: the slot keeps nothing.
    u32 *behaviours;
    u32 *slot_ids;
    u32 top_k, features;
};

extern "C" __global__ void __launch_bounds__(MOST_THREADS) selected_slots(const SelectedSlotsParams p) {
    const Tile tile = p.tiles[blockIdx.x];
    const u64 m = tile.first_target + tile.first_row, own = (u64)blockIdx.x * p.top_k;
    const u64 length = tile.history_end - tile.history_start;
    const u32 given = __ldg(p.counts + m), count = given > p.top_k ? 0 : given;
    if (threadIdx.x == 0) {
        if (given > p.top_k) {
            report_bad_id(p.bad_counts, m, given);
        }
        // Every slot has a place: of those that keep nothing the similarity is -∞.
        p.own_counts[blockIdx.x] = p.top_k;
        p.own_tiles[blockIdx.x] = Tile{blockIdx.x, own, own + p.top_k, 0, 1, tile.user, 0, 0, 0};
    }
    for (u32 k = threadIdx.x; k < p.top_k; k += blockDim.x) {
        u32 behaviour = NONE;
        float similarity = -infinity();
        if (k < count) {
            const u64 slot = m * p.top_k + k;
            const u32 position = __ldg(p.positions + slot);
            if (position >= length) {
                report_bad_id(p.bad_positions, slot, position);
            } else {
                behaviour = (u32)(tile.history_start + position);
                similarity = __ldg(p.similarities + slot);
            }
        }
        p.own_positions[own + k] = k;
        p.own_similarities[own + k] = similarity;
        p.behaviours[own + k] = behaviour;
        for (u32 f = 0; f < p.features; f++) {
            const u32 id = behaviour == NONE ? NONE : __ldg(p.ids + (u64)behaviour * p.features + f);
            p.slot_ids[(own + k) * p.features + f] = id;
        }
    }
}

struct SelectedSlotRowsParams {
    // [C, H, K]: NONE where a head of a candidate does not count a slot; and its numbers.
    const u32 *places;
    const float *numbers;
    // [C, H, width]; null: ones.
    const float *rows;
    // [H, 3], of heads that do not count where their scores do not; null: all count.
    const float *gammas;
    // [C, K, F], and where those of slots that some head counts go.
    const u32 *ids;
    u32 *kept_ids;
    // [C, K, H_kv, width]
    float *out;
    u32 top_k;
    // H, H_kv, and the heads that share one of H_kv.
    u32 heads, kv_heads, group;
    u32 width, features;
    // Whether the rows are added to what is there, whose ids are there, too.
    u32 add;
    float factor;
};

// Whether a head's scores count.
__device__ __forceinline__ bool counts_head(const float *gammas, u32 head) {
    return !gammas || __ldg(gammas + 3 * head) != 0.0f || __ldg(gammas + 3 * head + 2) != 0.0f;
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS) selected_slot_rows(const SelectedSlotRowsParams p) {
    const u64 slot = blockIdx.x, c = blockIdx.x / p.top_k;
    const u32 k = blockIdx.x % p.top_k;
    // Of the first head.
    const u64 first = c * p.heads * p.top_k + k;
    for (u32 column = threadIdx.x; column < p.kv_heads * p.width; column += blockDim.x) {
        const u32 part = column / p.width, own = column % p.width;
        float sum = 0.0f;
#pragma unroll 1
        for (u32 head = part * p.group; head < (part + 1) * p.group; head++) {
            const u64 place = first + (u64)head * p.top_k;
            // What a head does not count is not read: it may hold anything.
            if (__ldg(p.places + place) != NONE && counts_head(p.gammas, head)) {
                const float row = p.rows ? __ldg(p.rows + (c * p.heads + head) * p.width + own) : 1.0f;
                sum = fma(__ldg(p.numbers + place), row, sum);
            }
        }
        float *to = p.out + slot * p.kv_heads * p.width + column;
        *to = p.add ? *to + p.factor * sum : p.factor * sum;
    }
    for (u32 f = threadIdx.x; f < p.features && !p.add; f += blockDim.x) {
        bool any = false;
        for (u32 head = 0; head < p.heads && !any; head++) {
            any = __ldg(p.places + first + (u64)head * p.top_k) != NONE && counts_head(p.gammas, head);
        }
        p.kept_ids[slot * p.features + f] = any ? __ldg(p.ids + slot * p.features + f) : (u32)NONE;
    }
}

struct SelectedSlotBagsParams {
    // As in SelectedSlotRowsParams.
    const u32 *places;
    const float *numbers;
    const float *gammas;
    const u32 *ids;
    // [C, H, K, F], and [C, H, K]: the row of a head of a candidate, and factor · number as bits.
    u32 *kept_ids;
    uint2 *bags;
    // C·H·K
    u64 count;
    u32 top_k, heads, features;
    // The row of the first candidate's first head.
    u32 first_row;
    float factor;
    u32 unused;
};

extern "C" __global__ void __launch_bounds__(MOST_THREADS) selected_slot_bags(const SelectedSlotBagsParams p) {
    const u64 at = (u64)blockIdx.x * MOST_THREADS + threadIdx.x;
    if (at >= p.count) {
        return;
    }
    const u64 row = at / p.top_k, slot = row / p.heads * p.top_k + at % p.top_k;
    const bool keeps = __ldg(p.places + at) != NONE && counts_head(p.gammas, (u32)(row % p.heads));
    p.bags[at] = make_uint2(p.first_row + (u32)row, __float_as_uint(p.factor * __ldg(p.numbers + at)));
    for (u32 f = 0; f < p.features; f++) {
        p.kept_ids[at * p.features + f] = keeps ? __ldg(p.ids + slot * p.features + f) : (u32)NONE;
    }
}
