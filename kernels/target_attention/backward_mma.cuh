// What a block of backward_mma.cu holds in shared memory, and how it comes there; numbers as tf32.
#pragma once
#include "target_attention/backward_rows.cuh"
#include "target_attention/mma.cuh"

// c += A·B of tf32 numbers, of which the units ignore the low 13 bits. Fragments of D[16,8] = A[16,8]·B[8,8] + C, for lane l (i = l / 4,
// j = l % 4): a[0] A[i][j]   a[1] A[i+8][j]   a[2] A[i][j+4]   a[3] A[i+8][j+4]   b[0] B[j][i]   b[1] B[j+4][i]   c as in common.cuh.
__device__ __forceinline__ void multiply_add_tf32(float *c, const u32 *a, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// What is left of a number once tf32 has taken its part.
__device__ __forceinline__ float rest_of(float x) { return x - __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

// One access, which the compiler would split where it forgets the alignment.
__device__ __forceinline__ void store_pair(float *to, float first, float second) {
    asm volatile("st.global.v2.f32 [%0], {%1,%2};" ::"l"(to), "f"(first), "f"(second) : "memory");
}

template <typename T, u32 CHUNK, u32 ROWS>
struct BackwardMmaTiles {
    static constexpr u32 STAGES = 2, ROW_TILES = ROWS / 8, COLUMN_TILES = CHUNK / 8, QUERY_TILES = CHUNK / 16 / WARPS;
    static constexpr u32 UNITS = CHUNK / UNIT, PITCH = CHUNK * 2;
    static constexpr u32 TILE_BYTES = BEHAVIOURS * PITCH, ROWS_BYTES = ROWS * PITCH;
    // Of dS: for each warp and each two of its behaviours, 16 bytes per row.
    static constexpr u32 GRADS_BYTES = BEHAVIOURS / 2 * ROWS * 16;

    // Shared memory, in bytes: the stages, each with keys and values or, if aliased, one tile for both; queries and grad_out; dS; the
    // states of the rows, their heads, and where they are among the user's.
    static constexpr __device__ u32 bytes_of_stage(bool aliased) { return (aliased ? 1 : 2) * TILE_BYTES; }
    static constexpr __device__ u32 rows_at(bool aliased) { return STAGES * bytes_of_stage(aliased); }
    static constexpr __device__ u32 grads_at(bool aliased) { return rows_at(aliased) + 2 * ROWS_BYTES; }
    static constexpr __device__ u32 states_at(bool aliased) { return grads_at(aliased) + GRADS_BYTES; }
    static constexpr __device__ u32 shared_bytes(bool aliased) { return states_at(aliased) + ROWS * 24; }

    // This thread copies a unit of every AT_ONCEth row of a tile. AT_ONCE is a multiple of 8, so that all its units are swizzled alike.
    static constexpr u32 AT_ONCE = THREADS / UNITS;
    struct Source {
        const T *from;
        // From one of the thread's rows to the next.
        u64 stride;
        bool there;
    };

    const AttentionBackwardParams &p;
    const AttentionSpan span;
    const u32 kv_head, warp, lane;
    // Shared memory.
    const u32 stages, queries;
    float4 *grads;
    RowState *states;
    u32 *head_of, *place_of;
    const bool needs_grads, needs_weights;
    // Of the current tile and step.
    u32 tile_first, rows, first, count;
    // Whether this thread has seen a sum that is not finite: then not 0.
    float poison;
    Source keys_source, values_source;

    __device__ __forceinline__ u32 heads() const { return p.kv_heads * p.group_heads; }
    __device__ __forceinline__ u64 behaviour_row(u32 behaviour) const {
        return (span.history_start + behaviour) * p.kv_heads + kv_head;
    }
    // Where a unit of a row of CHUNK numbers is.
    static __device__ __forceinline__ u32 at(u32 row, u32 unit) { return (row * UNITS + (unit ^ row % 8)) * 16; }
    // The behaviour in the step and the row in the tile of number i of a fragment.
    __device__ __forceinline__ u32 behaviour_of(u32 i) const { return warp * 16 + lane / 4 + i / 2 * 8; }
    __device__ __forceinline__ u32 row_of(u32 r, u32 i) const { return r * 8 + lane % 4 * 2 + i % 2; }
    // Of dS: for two behaviours of a warp and a row.
    __device__ __forceinline__ float4 *grads_of(u32 warp, u32 behaviour, u32 row) const {
        return grads + (warp * 8 + behaviour) * ROWS + (row ^ behaviour);
    }
    __device__ __forceinline__ u32 keys() const { return stages + first / BEHAVIOURS % STAGES * bytes_of_stage(p.aliased); }
    __device__ __forceinline__ u32 values() const { return keys() + (p.aliased ? 0 : (u32)TILE_BYTES); }

    // ---- Loads -----------------------------------------------------------------------------------------------------

    __device__ __forceinline__ Source source(const void *rows, u32 width) const {
        const u32 column = threadIdx.x % UNITS * UNIT;
        const bool there = column < width;
        const T *from = (const T *)rows + behaviour_row(threadIdx.x / UNITS) * width + (there ? column : 0);
        return {from, (u64)AT_ONCE * p.kv_heads * width, there};
    }
    // Copies the next tile, of which `left` behaviours exist, or all; zeros for the rest, and for columns that do not exist.
    __device__ __forceinline__ void load_tile(u32 to, Source &source, u32 left) const {
        const u32 row = threadIdx.x / UNITS;
        const T *from = source.from;
        to += at(row, threadIdx.x % UNITS);
        source.from += BEHAVIOURS / AT_ONCE * source.stride;
        if (left >= BEHAVIOURS && source.there) {
#pragma unroll
            for (u32 i = 0; i < BEHAVIOURS / AT_ONCE; i++) {
                copy_async(to + i * AT_ONCE * PITCH, from);
                from += source.stride;
            }
            return;
        }
#pragma unroll 1
        for (u32 i = 0; i < BEHAVIOURS / AT_ONCE; i++) {
            bool exists = source.there && row + i * AT_ONCE < left;
            copy_async(to + i * AT_ONCE * PITCH, exists ? from + i * source.stride : (const T *)p.queries, exists ? 16 : 0);
        }
    }
    __device__ __forceinline__ void load_history(u32 step) {
        const u32 to = stages + step / BEHAVIOURS % STAGES * bytes_of_stage(p.aliased), left = span.length - step;
        load_tile(to, keys_source, left);
        if (needs_grads && !p.aliased) load_tile(to + TILE_BYTES, values_source, left);
    }

    __device__ __forceinline__ void load_matrix(u32 to, const void *from, u32 width) const {
#pragma unroll 1
        for (u32 item = threadIdx.x; item < ROWS * UNITS; item += THREADS) {
            u32 row = item / UNITS, unit = item % UNITS;
            bool there = row < rows && unit * UNIT < width;
            u64 index = span.first_target * heads() + place_of[there ? row : 0];
            copy_async(to + at(row, unit), (const T *)from + index * width + (there ? unit * UNIT : 0), there ? 16 : 0);
        }
    }
    __device__ __forceinline__ void load_rows() const {
        if (threadIdx.x < ROWS) {
            const u32 row = tile_first + threadIdx.x, head = kv_head * p.group_heads + row % p.group_heads;
            const u32 place = row / p.group_heads * heads() + head;
            RowState state = {};
            if (threadIdx.x < rows && p.states != nullptr) {
                *(float4 *)&state = *(const float4 *)(p.states + span.first_target * heads() + place);
            }
            *(float4 *)(states + threadIdx.x) = *(float4 *)&state;
            head_of[threadIdx.x] = head;
            place_of[threadIdx.x] = place;
        }
        __syncthreads();
        load_matrix(queries, p.queries, p.width);
        load_matrix(queries + ROWS_BYTES, p.grad_out, p.value_width);
    }

    // The history of the step and the rows of the tile arrive; the next history is sent for.
    __device__ __forceinline__ void arrive(bool single) {
        const bool reload = !single || first == 0, begins = tile_first == 0;
        if (begins) copy_wait<0>();
        // All have finished with the previous tile and step.
        __syncthreads();
        if (reload) {
            load_rows();
            copy_commit();
        }
        if (begins && first + BEHAVIOURS < span.length) load_history(first + BEHAVIOURS);
        copy_commit();
        if (reload) {
            copy_wait<1>();
            __syncthreads();
        }
        // Matrix instructions need all lanes together, of which only some have copied rows.
        __syncwarp();
    }
};
