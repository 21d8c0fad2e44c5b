// SDIM: out[m,:] = (1/G) Σ_g normalise(T[b,g,sig[g](q_m),:]), one bucket row per group.
//
// A warp takes a candidate. Bucket rows are read 16 bytes per lane if aligned: as many lanes as a row needs (a power of two,
// at most 32) read the row of one group, the warp several groups at once, each lane four rows ahead. Lengths are summed over
// those lanes, the output over all. Of rows of more than 128 numbers, the lengths are computed first, again for each 128
// columns. The whole warp finds the user of a candidate, 32 offsets at a time.
// sdim_query reads bucket tables; sdim_query_sums combines the sums that scan.cu left for each candidate, in order.
// If there are few candidates, sdim_query hashes them itself: a lane takes a function, for the four candidates of the block,
// and adds in the order of hash.cuh. That saves a launch where latency matters; with many candidates, each four would read
// the rotations again.
// Precision: f32; if a sum of squares overflows, it is recomputed from rows times 2^-80.
#include "shared/common.cuh"

enum : u32 {
    WARPS = 4,
    LANE_COLUMNS = 4,
    WARP_COLUMNS = LANE_COLUMNS * WARP,
    // For candidates that are hashed here: the most groups, and the columns in shared memory at a time.
    HASHED_GROUPS = 512,
    HASHED_COLUMNS = 64,
};

struct SdimQueryParams {
    // [users + 1], or the tiles of the candidates.
    const void *places;
    // Tables [users, groups, 2^bits, width], or sums [slots + tiles, groups, width].
    const float *table;
    const void *codes;
    // Candidates to hash, and the rotations [width, groups, bits]; null if `codes` has their signatures.
    const void *targets;
    const float *rotations;
    void *out;
    // For given signatures of 2^bits or more; null if signatures are computed or checked before.
    u64 *record;
    // The table of each user, or null: user b has table b. And the record for those of `tables` or more.
    const u32 *owners;
    u64 *owner_record;
    u64 count;
    u32 users, width, groups, bits, code_bytes;
    u32 normalise;
    // Whether rows of the table are aligned to 16 bytes.
    u32 vectors;
    // Where the sums of candidates begin whose history is not split.
    u32 first_whole;
    // 1 / groups.
    float inverse_groups;
    u32 tables;
};

// The user of candidate `m`: the last offset that is not above it.
__device__ __forceinline__ u32 user_of(const u64 *offsets, u32 users, u64 m) {
    u32 lane = threadIdx.x % WARP, low = 0, count = users;
    while (count > 1) {
        u32 step = (count + WARP - 1) / WARP;
        u32 at = lane * step;
        // At least lane 0 votes: the first remaining offset is not above m.
        u32 below = __ballot_sync(WHOLE_WARP, at < count && offsets[low + at] <= m);
        u32 last = 31 - __clz(below);
        low += last * step;
        count = min(step, count - last * step);
    }
    return low;
}

// The table that candidate `m` reads. One that is not there is reported, and taken for the first.
__device__ __forceinline__ u64 table_of(const SdimQueryParams &p, u64 m) {
    u64 user = user_of((const u64 *)p.places, p.users, m);
    if (!p.owners) {
        return user;
    }
    u32 owner = p.owners[user];
    if (owner >= p.tables) {
        report_bad_id(p.owner_record, user, owner);
        return 0;
    }
    return owner;
}

// Where the bucket rows of a candidate are: in a table, or partial results to combine.
struct Source {
    const float *first;
    u64 stride;
    u32 parts;
};

template <bool SUMMED>
__device__ __forceinline__ void read(float *out, const Source &source, u64 place, u32 column, u32 width, bool vectors) {
#pragma unroll
    for (u32 e = 0; e < LANE_COLUMNS; e++) {
        out[e] = 0.0f;
    }
    if (column >= width) {
        return;
    }
    const float *from = source.first + place + column;
#pragma unroll 1
    for (u32 part = 0; part < (SUMMED ? source.parts : 1); part++) {
        if (vectors) {
            float four[LANE_COLUMNS];
            widen_vector<float>(load_vector(from), four);
#pragma unroll
            for (u32 e = 0; e < LANE_COLUMNS; e++) {
                out[e] += four[e];
            }
        } else {
#pragma unroll
            for (u32 e = 0; e < LANE_COLUMNS; e++) {
                if (column + e < width) {
                    out[e] += from[e];
                }
            }
        }
        from += source.stride;
    }
}

// 1 / √x with an error of about 3 ulp; infinite for 0.
__device__ __forceinline__ float rsqrt_approx(float x) {
    float out;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

__device__ __forceinline__ float sum_over(float value, u32 lanes) {
#pragma unroll 1
    for (u32 other = lanes / 2; other > 0; other /= 2) {
        value += shuffle_xor(value, other);
    }
    return value;
}

// The sum of squares of the numbers in registers or, for a longer row, of all of it.
template <bool SUMMED>
__device__ __forceinline__ float squares_of(const SdimQueryParams &p, const float *x, const Source &source, u64 place,
                                            u32 first, u32 lanes, float scale, bool there) {
    float sum = 0.0f;
    if (p.width <= WARP_COLUMNS) {
#pragma unroll
        for (u32 e = 0; e < LANE_COLUMNS; e++) {
            sum = fma(x[e] * scale, x[e] * scale, sum);
        }
    } else if (there) {
#pragma unroll 1
        for (u32 column = first; column < p.width; column += WARP_COLUMNS) {
            float four[LANE_COLUMNS];
            read<SUMMED>(four, source, place, column, p.width, p.vectors);
#pragma unroll
            for (u32 e = 0; e < LANE_COLUMNS; e++) {
                sum = fma(four[e] * scale, four[e] * scale, sum);
            }
        }
    }
    return sum_over(sum, lanes);
}

// Computes the signatures of the block's candidates.
template <typename T>
__device__ __forceinline__ void hash_candidates(const SdimQueryParams &p, u16 (*codes)[HASHED_GROUPS]) {
    // One column of each candidate.
    __shared__ float4 rows[HASHED_COLUMNS];
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 functions = p.groups * p.bits, warp_groups = WARP / p.bits;
    // The candidate whose numbers this thread copies: adjacent threads write to different banks.
    u32 copied = threadIdx.x % WARPS;
    u64 m = (u64)blockIdx.x * WARPS + copied;
    const T *from = (const T *)p.targets + m * p.width;
    for (u32 base = 0; base < p.groups; base += WARPS * warp_groups) {
        u32 first_group = base + warp * warp_groups, function = first_group * p.bits + lane;
        bool there = lane < warp_groups * p.bits && function < functions;
        float sum[WARPS] = {};
        for (u32 first = 0; first < p.width; first += HASHED_COLUMNS) {
            u32 count = min((u32)HASHED_COLUMNS, p.width - first);
            __syncthreads();
            for (u32 column = threadIdx.x / WARPS; column < count; column += WARP) {
                ((float *)&rows[column])[copied] = m < p.count ? widen(from[first + column]) : 0.0f;
            }
            __syncthreads();
            if (there) {
                const float *rotation = p.rotations + (u64)first * functions + function;
#pragma unroll 8
                for (u32 column = 0; column < count; column++, rotation += functions) {
                    float4 x = rows[column];
                    float r = __ldg(rotation);
                    sum[0] = fma(x.x, r, sum[0]);
                    sum[1] = fma(x.y, r, sum[1]);
                    sum[2] = fma(x.z, r, sum[2]);
                    sum[3] = fma(x.w, r, sum[3]);
                }
            }
        }
#pragma unroll
        for (u32 i = 0; i < WARPS; i++) {
            u32 positive = __ballot_sync(WHOLE_WARP, there && sum[i] > 0.0f);
            if (lane < warp_groups && first_group + lane < p.groups) {
                codes[i][first_group + lane] = (u16)(positive >> lane * p.bits & ((1u << p.bits) - 1));
            }
        }
    }
    __syncthreads();
}

template <typename T>
__device__ __forceinline__ void store(const SdimQueryParams &p, const float *sum, u64 row, u32 column) {
    T *to = (T *)p.out + row * p.width + column;
    T out[LANE_COLUMNS];
#pragma unroll
    for (u32 e = 0; e < LANE_COLUMNS; e++) {
        out[e] = narrow<T>(sum[e]);
    }
    if (column + LANE_COLUMNS <= p.width && (u64)to % sizeof(out) == 0) {
        if constexpr (sizeof(T) == 4) {
            *(float4 *)to = make_float4(out[0], out[1], out[2], out[3]);
        } else {
            *(ushort4 *)to = make_ushort4(out[0].bits, out[1].bits, out[2].bits, out[3].bits);
        }
        return;
    }
#pragma unroll
    for (u32 e = 0; e < LANE_COLUMNS; e++) {
        if (column + e < p.width) {
            to[e] = out[e];
        }
    }
}

// The bucket of candidate m in a group: hashed here or given; a code that is not there is reported, and taken for 0.
__device__ __forceinline__ u32 code_of(const SdimQueryParams &p, const u16 *hashed, u64 m, u32 group) {
    if (p.rotations) {
        return hashed[group];
    }
    u64 at = m * p.groups + group;
    u32 code = p.code_bytes == 1 ? ((const u8 *)p.codes)[at] : ((const u16 *)p.codes)[at];
    if (code >> p.bits != 0) {
        if (p.record) report_bad_id(p.record, at, code);
        code = 0;
    }
    return code;
}

template <typename T, bool SUMMED>
__device__ __forceinline__ void query(const SdimQueryParams &p) {
    __shared__ u16 hashed[SUMMED ? 1 : WARPS][HASHED_GROUPS];
    if (!SUMMED && p.rotations) {
        hash_candidates<T>(p, hashed);
    }
    u64 m = (u64)blockIdx.x * WARPS + threadIdx.x / WARP, row = m;
    if (m >= p.count) {
        return;
    }
    Source source = {p.table, (u64)p.groups * p.width, 1};
    if (SUMMED) {
        const Tile &tile = ((const Tile *)p.places)[m];
        source.first += (tile.slots == 0 ? p.first_whole + m : tile.first_slot) * source.stride;
        source.parts = max(tile.slots, 1u);
        row = tile.first_target + tile.first_row;
    } else {
        source.first += table_of(p, m) * ((u64)(p.groups << p.bits) * p.width);
    }
    u32 lane = threadIdx.x % WARP, lanes = 1;
    while (lanes < WARP && lanes * LANE_COLUMNS < p.width) {
        lanes *= 2;
    }
    u32 rows = WARP / lanes, own = lane / lanes, first = lane % lanes * LANE_COLUMNS;

    // Rows that a lane reads ahead; partial results are combined without.
    constexpr u32 AHEAD = SUMMED ? 1 : 4;
    for (u32 base = 0; base < p.width; base += WARP_COLUMNS) {
        float sum[LANE_COLUMNS] = {};
#pragma unroll 1
        for (u32 start = 0; start < p.groups; start += rows * AHEAD) {
            float x[AHEAD][LANE_COLUMNS];
            u64 place[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                u32 g = start + i * rows + own, code = 0;
                bool there = g < p.groups;
                if (!SUMMED && there) {
                    code = code_of(p, hashed[threadIdx.x / WARP], m, g);
                }
                place[i] = (SUMMED ? g : ((u64)g << p.bits) + code) * p.width;
                read<SUMMED>(x[i], source, place[i], there ? base + first : p.width, p.width, p.vectors);
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                bool there = start + i * rows + own < p.groups;
                // The mean over the groups is taken of the terms: their sum may overflow.
                float scale = 1.0f, factor = p.inverse_groups;
                if (p.normalise) {
                    float squares = squares_of<SUMMED>(p, x[i], source, place[i], first, lanes, scale, there);
                    bool huge = squares == infinity();
                    if (__any_sync(WHOLE_WARP, huge)) {
                        scale = huge ? 0x1p-80f : 1.0f;
                        squares = squares_of<SUMMED>(p, x[i], source, place[i], first, lanes, scale, there);
                    }
                    // 1 / max(length, 1e-12). Not fminf, which drops NaN.
                    float inverse = rsqrt_approx(squares);
                    factor = (inverse > 1e12f ? 1e12f : inverse) * p.inverse_groups;
                }
#pragma unroll
                for (u32 e = 0; e < LANE_COLUMNS; e++) {
                    sum[e] = fma(x[i][e] * scale, factor, sum[e]);
                }
            }
        }
#pragma unroll
        for (u32 e = 0; e < LANE_COLUMNS; e++) {
#pragma unroll 1
            for (u32 other = lanes; other < WARP; other *= 2) {
                sum[e] += shuffle_xor(sum[e], other);
            }
        }
        if (own == 0 && base + first < p.width) {
            store<T>(p, sum, row, base + first);
        }
    }
}

// Half the warps of a multiprocessor: with a higher target, ptxas spills.
#define VARIANTS(T)                                                                                             \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP, 8) sdim_query_##T(const SdimQueryParams p) {      \
        query<T, false>(p);                                                                                     \
    }                                                                                                           \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP, 8) sdim_query_sums_##T(const SdimQueryParams p) { \
        query<T, true>(p);                                                                                      \
    }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
