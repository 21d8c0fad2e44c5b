// SDIM: the gradients of behaviours through bucket tables, ds_l = w_l·Σ_g dT[b,g,sig[g](s_l),:].
//
// A block takes a piece of one user's history. As many lanes as a row needs, twice four columns each (a power of two, at most 32), add
// the rows of one behaviour's buckets, in the order of the groups; every row of the output has one owner. A user's table is
// read through the first-level cache.
// Rows are hashed 64 at a time, as in encode.cu, while the tile after them is copied: the history and the rotations are all
// that is read besides the table. Given signatures are read where they are; they and the signatures of rows that leave too
// little shared memory for the rotations, which sdim_signatures computes before, need no shared memory.
// Sums are in f32.
#include "sdim/columns.cuh"
#include "sdim/hash_matrix.cuh"

enum : u32 {
    MOST_THREADS = 512,
    // Of a lane.
    OWN_COLUMNS = 2 * LANE_COLUMNS,
};

struct SdimGatherParams {
    const Piece *pieces;
    // What is hashed, and the rotations [width, groups, bits]; null if `codes` has the signatures, [rows, groups].
    const void *rows;
    const float *rotations;
    const void *codes;
    // [users, groups, 2^bits, width]
    const float *grad_table;
    void *out;
    // For given signatures of 2^bits or more; null if signatures are computed, or have been checked.
    u64 *record;
    // Of rows; null: 1.
    const float *weights;
    u32 width, groups, bits, code_bytes;
    // Whether the output is stored as rows are, or as f32; whether rows of the table, and of the history, are aligned to 16
    // bytes; tiles in flight.
    u32 narrow, vectors, row_vectors, stages;
};

// Four numbers at an address aligned to 16 bytes, of memory that the kernel does not write.
__device__ __forceinline__ float4 load_four(u64 address) {
    float4 out;
    asm("ld.global.nc.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(out.x), "=f"(out.y), "=f"(out.z), "=f"(out.w) : "l"(address));
    return out;
}

// The signatures of a row in shared memory, from some group on: see group_place.
struct TileCodes {
    u32 address;
    template <u32 GROUP>
    __device__ __forceinline__ u32 at() {
        u32 out;
        asm volatile("ld.shared.u16 %0, [%1+%2];" : "=r"(out) : "r"(address), "n"(GROUP * (TILE_ROWS + 8) * 2) : "memory");
        return out;
    }
    __device__ __forceinline__ void next() { address += (TILE_ROWS + 8) * 2; }
    __device__ __forceinline__ void next_eight() { address += 8 * (TILE_ROWS + 8) * 2, end_eight(); }
    // After eight calls of next().
    __device__ __forceinline__ void end_eight() { address += 4 * 2; }
    __device__ __forceinline__ void finish(const SdimGatherParams &) {}
};

// Given signatures of a row, and all bits that any of them has.
template <typename Word>
struct GivenCodes {
    const Word *from;
    u32 mask, all;
    template <u32 GROUP>
    __device__ __forceinline__ u32 at() {
        u32 code = from[GROUP];
        all |= code;
        return code & mask;
    }
    __device__ __forceinline__ void next() { from++; }
    __device__ __forceinline__ void next_eight() { from += 8; }
    __device__ __forceinline__ void end_eight() {}
    // Reports those outside the table, after all have been read.
    __device__ __forceinline__ void finish(const SdimGatherParams &p) {
        if (all > mask && p.record) {
            from -= p.groups;
            for (u32 g = 0; g < p.groups; g++) {
                if (from[g] > mask) {
                    report_bad_id(p.record, from + g - (const Word *)p.codes, from[g]);
                }
            }
        }
    }
};

// The sums over the groups of the bucket rows that `codes` name: four columns from the address `group` on in the first group, and
// four that are `apart` from these.
template <typename Codes>
__device__ __forceinline__ void add_groups(float *sum, const SdimGatherParams &p, u64 group, u64 apart, Codes &codes) {
    u64 group_bytes = ((u64)p.width << p.bits) * sizeof(float);
    u32 row_bytes = p.width * sizeof(float);
    auto add = [&](u32 code) {
        u64 row = multiply_add_wide(code, row_bytes, group);
        float4 four = load_four(row), more = load_four(row + apart);
        sum[0] += four.x, sum[1] += four.y, sum[2] += four.z, sum[3] += four.w;
        sum[4] += more.x, sum[5] += more.y, sum[6] += more.z, sum[7] += more.w;
        group += group_bytes;
    };
    u32 left = p.groups;
#pragma unroll 1
    for (; left >= 8; left -= 8) {
        add(codes.template at<0>());
        add(codes.template at<1>());
        add(codes.template at<2>());
        add(codes.template at<3>());
        add(codes.template at<4>());
        add(codes.template at<5>());
        add(codes.template at<6>());
        add(codes.template at<7>());
        codes.next_eight();
    }
#pragma unroll 1
    for (; left > 0; left--) {
        add(codes.template at<0>());
        codes.next();
    }
}

// The same where rows are not aligned, a number at a time: `first` and `second` numbers are left of a row from each four on.
template <typename Codes>
__device__ __forceinline__ void add_numbers(float *sum, const SdimGatherParams &p, const float *group, u32 apart, u32 first,
                                            u32 second, Codes &codes) {
    auto add = [&](u32 code) {
        const float *row = group + (u64)code * p.width;
#pragma unroll
        for (u32 e = 0; e < LANE_COLUMNS; e++) {
            if (e < first) {
                sum[e] += row[e];
            }
            if (e < second) {
                sum[LANE_COLUMNS + e] += row[apart + e];
            }
        }
        group += (u64)p.width << p.bits;
    };
    u32 left = p.groups;
#pragma unroll 1
    while (left > 0) {
        add(codes.template at<0>());
        codes.next();
        if (--left % 8 == p.groups % 8) {
            codes.end_eight();
        }
    }
}

// Writes four numbers of which `left` are within a row, at once if they are aligned, as all of them are then.
template <typename G>
__device__ __forceinline__ void write_four(u64 to, const float *numbers, u32 left, bool aligned) {
    if (aligned) {
        if constexpr (sizeof(G) == 4) {
            *(float4 *)to = make_float4(numbers[0], numbers[1], numbers[2], numbers[3]);
        } else {
            *(uint2 *)to = make_uint2(narrow_pair<G>(numbers[0], numbers[1]), narrow_pair<G>(numbers[2], numbers[3]));
        }
        return;
    }
#pragma unroll
    for (u32 e = 0; e < LANE_COLUMNS; e++) {
        if (e < left) {
            ((G *)to)[e] = narrow<G>(numbers[e]);
        }
    }
}

// What a thread reads and writes of each row: four columns, and four that are `apart` from these.
struct Share {
    // The first group's bucket rows, and the output's rows: the addresses of the first of these columns.
    u64 from, to;
    // Of a row of the output.
    u32 row_bytes;
    // Numbers of a row from its first and its second four columns on. Without a second four, the first are added twice and written once.
    u32 first, second, apart;
    // Whether the output can be written four numbers at a time.
    bool aligned;

    // From `column` on, of rows that `lanes` threads have, from `row` of the output on.
    template <typename T>
    __device__ __forceinline__ static Share of(const SdimGatherParams &p, const float *table, u64 row, u32 column, u32 lanes) {
        const u32 bytes = p.narrow ? sizeof(T) : sizeof(float), apart = lanes * LANE_COLUMNS, first = p.width - column;
        const bool is_second = first > apart;
        return {(u64)(table + column), (u64)p.out + (row * p.width + column) * bytes,
                p.width * bytes, first,
                is_second ? first - apart : 0, is_second ? apart : 0,
                p.vectors && (u64)p.out % (LANE_COLUMNS * bytes) == 0};
    }
};

// Writes `count` rows of the output from `begin` on, of which this thread has `own` and every `every`-th after it.
// `codes_of(i)`: the signatures of one; `weights`: of these rows, or null.
template <typename T, typename CodesOf>
__device__ __forceinline__ void gather_rows(const SdimGatherParams &p, const Share &share, u32 begin, u32 count, u32 own, u32 every,
                                            const float *weights, CodesOf codes_of) {
#pragma unroll 1
    for (u32 i = own; i < count; i += every) {
        float sum[OWN_COLUMNS];
#pragma unroll
        for (u32 e = 0; e < OWN_COLUMNS; e++) {
            // Or the compiler writes the zeros twice.
            asm volatile("mov.f32 %0, 0f00000000;" : "=f"(sum[e]));
        }
        auto codes = codes_of(i);
        if (p.vectors) {
            add_groups(sum, p, share.from, share.apart * sizeof(float), codes);
        } else {
            add_numbers(sum, p, (const float *)share.from, share.apart, share.first, share.second, codes);
        }
        codes.finish(p);
        if (weights) {
            const float weight = weights[begin + i];
#pragma unroll
            for (u32 e = 0; e < OWN_COLUMNS; e++) {
                sum[e] *= weight;
            }
        }
        const u64 row = multiply_add_wide(begin + i, share.row_bytes, share.to);
        if (p.narrow) {
            write_four<T>(row, sum, share.first, share.aligned);
            if (share.second > 0) {
                write_four<T>(row + share.apart * sizeof(T), sum + LANE_COLUMNS, share.second, share.aligned);
            }
        } else {
            write_four<float>(row, sum, share.first, share.aligned);
            if (share.second > 0) {
                write_four<float>(row + share.apart * sizeof(float), sum + LANE_COLUMNS, share.second, share.aligned);
            }
        }
    }
}

// With signatures of so many bits in memory.
template <typename T, typename Word>
__device__ __forceinline__ void gather_given(const SdimGatherParams &p, const Piece &piece, const float *table,
                                             const float *weights, u32 lanes) {
    const Word *codes = (const Word *)p.codes + piece.history_start * p.groups;
    u32 own = threadIdx.x / lanes, every = blockDim.x / lanes;
#pragma unroll 1
    for (u32 column = threadIdx.x % lanes * LANE_COLUMNS; column < p.width; column += lanes * OWN_COLUMNS) {
        const Share share = Share::of<T>(p, table, piece.history_start, column, lanes);
        gather_rows<T>(p, share, 0, piece.length, own, every, weights, [&](u32 i) {
            return GivenCodes<Word>{codes + (u64)i * p.groups, (1u << p.bits) - 1, 0};
        });
    }
}

// Shared memory: `stages` tiles of rows, the codes of a tile, the parts of the rotations. Where codes and parts begin, and the
// size, in bytes.
template <typename T>
__device__ __forceinline__ constexpr u32 codes_at(u32 columns, u32 stages) {
    return stages * TILE_ROWS * tile_pitch<T>(columns) * sizeof(T);
}
__device__ __forceinline__ constexpr u32 code_bytes(u32 groups) { return (group_place(groups) + 7) / 8 * 16; }
template <typename T>
constexpr __device__ u32 shared_bytes(u32 columns, u32 groups, u32 bits, u32 stages) {
    Functions functions = {nullptr, columns, 0, 0, groups, bits, 0, columns};
    return codes_at<T>(columns, stages) + code_bytes(groups) + ROTATION_PARTS * bits * functions.apart() * 2;
}

// The place of a row's codes in bytes: twice row / 16 · 16 + row % 8 / 2 · 4 + row % 16 / 8 · 2 + row % 2 (see quad_row).
__device__ __forceinline__ u32 place_of(u32 row) { return (row * 2 & ~28u) | (row * 4 & 24) | (row / 2 & 4); }

// Rows are no wider than the lanes have columns.
template <typename T>
__device__ __forceinline__ void gather_hashed(const SdimGatherParams &p, const Piece &piece, const float *table,
                                              const float *weights, u32 lanes) {
    u32 columns = (p.width + 15) / 16 * 16, pitch = tile_pitch<T>(columns);
    T *tiles = (T *)dynamic_shared;
    u16 *codes = (u16 *)((u8 *)tiles + codes_at<T>(columns, p.stages));
    u16 *parts = (u16 *)((u8 *)codes + code_bytes(p.groups));
    Functions functions = {p.rotations, p.width, p.groups * p.bits, 0, p.groups, p.bits, shared_address(parts), columns};
    load_rotation_parts<T>(parts, functions);

    const T *next = (const T *)p.rows + piece.history_start * p.width;
    TileCopy<T> copy(p.width, columns, p.row_vectors);
    // The tile of the next rows, when `left` rows are left. Two alternate if shared memory holds two.
    auto tile_at = [&](u32 left) {
        return tiles + (p.stages == 2 ? (left + TILE_ROWS - 1) / TILE_ROWS % 2 : 0) * TILE_ROWS * pitch;
    };
    auto start = [&](i32 left) {
        if (left > 0) {
            copy.load(tile_at(left), next, min((u32)TILE_ROWS, (u32)left), 0);
            next += (u64)TILE_ROWS * p.width;
        }
        copy_commit();
    };
    u32 own = threadIdx.x / lanes, every = blockDim.x / lanes;
    Share share = Share::of<T>(p, table, piece.history_start, threadIdx.x % lanes * LANE_COLUMNS, lanes);
    // Keeps the compiler from computing it again for each tile.
    asm volatile("" : "+l"(share.from), "+l"(share.to), "+r"(share.row_bytes), "+r"(share.apart), "+r"(own));
    // Histories are shorter than 2^31.
    i32 left = (i32)piece.length;
    start(left);
    for (; left > 0; left -= TILE_ROWS) {
        u32 count = min((u32)TILE_ROWS, (u32)left);
        if (p.stages == 2) {
            start(left - TILE_ROWS);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        hash_tile(functions, codes, 0, tile_at(left), count);
        __syncthreads();
        if (p.stages == 1) {
            start(left - TILE_ROWS);
        }
        const u32 address = shared_address(codes);
        gather_rows<T>(p, share, piece.length - left, count, own, every, weights,
                       [&](u32 row) { return TileCodes{address + place_of(row)}; });
        // The next codes overwrite these.
        __syncthreads();
    }
    copy_wait<0>();
}

template <typename T>
__device__ __forceinline__ void gather(const SdimGatherParams &p) {
    const Piece piece = p.pieces[blockIdx.x];
    u32 lanes = lanes_of((p.width + 1) / 2);
    const float *table = p.grad_table + piece.user * ((u64)p.groups << p.bits) * p.width;
    const float *weights = p.weights ? p.weights + piece.history_start : nullptr;
    if (p.rotations) {
        gather_hashed<T>(p, piece, table, weights, lanes);
    } else if (p.code_bytes == 1) {
        gather_given<T, u8>(p, piece, table, weights, lanes);
    } else {
        gather_given<T, u16>(p, piece, table, weights, lanes);
    }
}

// Columns, groups, bits, stages, bytes.
#define SHARED(T, COLUMNS, GROUPS, BITS, STAGES) \
    COLUMNS, GROUPS, BITS, STAGES, shared_bytes<T>(COLUMNS, GROUPS, BITS, STAGES)
#define VARIANTS(T)                                                                                        \
    LAYOUT(sdim_gather_##T, SHARED(T, 64, 16, 3, 2), SHARED(T, 128, 8, 3, 1), SHARED(T, 16, 5, 1, 2),      \
           SHARED(T, 256, 1, 6, 1), SHARED(T, 80, 4, 4, 2), SHARED(T, 32, 100, 2, 1));                     \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS) sdim_gather_##T(const SdimGatherParams p) { \
        gather<T>(p);                                                                                      \
    }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
