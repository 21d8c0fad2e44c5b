// Gradients of tables: dT[id] = Σ_{positions of id} weight · row of grad_out.
//
// The positions of all ids, in order, are cut into windows of 32. A team of lanes takes a window, or a part of its columns, two vec4s
// each, so that every lane adds as many rows whether ids occur once or all are one. A warp first stages the rows and weights of its
// teams' windows in shared memory, and finds where runs of equal ids end. Of a run that begins in the window
// a team writes the sum to the gradient's row; the sum of a run that began earlier is the window's *head*. 32 heads of one run
// are added to a head of the next level, and so on, and gradient_long_runs adds the heads that follow a run's first window to
// its row: first those up to the end of the next larger node, at each level. So sums have a fixed order, of at most 32 additions per
// level, and a hot row costs about as much as many rare ones.
//
// order_begin and order_check check ids in order that the caller gave. bags_of_rows finds the bag of each position, and its weight.
// Precision: f32.
#include "lookup/order.cuh"
#include "shared/tables.cuh"

enum : u32 {
    THREADS = 256,
    // Positions of a window, and heads of a level that make one of the next.
    WINDOW = 32,
    // Rows that a lane has in flight, and its vec4s of each.
    AHEAD = 4,
    SPAN = 2,
    // Of gradient_windows: warps of a block, and teams of a warp at most.
    SUM_WARPS = 4,
    MOST_TEAMS = 8,
    MOST_LEVELS = 7,
};
static_assert(WINDOW == WARP, "a warp stages a window");

struct OrderCheckParams {
    const u32 *ids, *starts, *positions, *count;
    u32 *is_wrong;
    u64 *bad_count, *bad_id, *id_order, *start_order, *bad_start, *bad_position;
    // Of the table.
    u64 rows;
    // Room for ids and positions.
    u64 capacity, places;
    // Positions are below.
    u64 positions_end;
};

struct BagsOfRowsParams {
    // [bags + 1]
    const u64 *offsets;
    // Per position its bag, and its weight as bits.
    uint2 *bags;
    u64 rows;
    u32 bag_count;
    u32 mean;
};

struct TableGradientParams {
    const u32 *ids, *starts, *positions, *count;
    // Null: nothing is.
    const u32 *is_wrong;
    // Null: each position is its row, of weight 1.
    const uint2 *bags;
    // The table's first column of the first row.
    const float *grad;
    // Rows of the runs, or of the table if `dense`.
    float *out;
    u32 *out_ids, *out_count;
    // Of each level, [nodes, vec4s].
    float *heads[MOST_LEVELS];
    // Per window the run that begins in it and goes on after it, or NONE.
    u32 *leaving;
    // Threads, or warps of gradient_windows, that have something to do, or numbers to clear.
    u64 items;
    // Of a row of grad_out.
    u32 grad_bytes;
    u32 width, vec4s;
    u32 dense;
    // Whether rows of grad_out and of the gradient can be read and written a vec4 at a time.
    u32 vectors;
    u32 levels;
    // The level whose heads are added up.
    u32 level;
    // Lanes of a team.
    u32 lanes;
};

__device__ __forceinline__ u64 thread_index() { return (u64)blockIdx.x * THREADS + threadIdx.x; }

extern "C" __global__ void __launch_bounds__(WARP) order_begin(const OrderCheckParams p) {
    if (threadIdx.x == 0) {
        bool is_wrong = *p.count > p.capacity;
        *p.is_wrong = is_wrong;
        if (is_wrong) {
            report_bad_id(p.bad_count, 0, *p.count);
        }
    }
}

__device__ __forceinline__ void report_order(const OrderCheckParams &p, u64 *record, u64 at, u32 value) {
    report_bad_id(record, at, value);
    atomicMax(p.is_wrong, 1u);
}

// A thread for each id, for the end of the starts, and for each position.
extern "C" __global__ void __launch_bounds__(THREADS) order_check(const OrderCheckParams p) {
    const u64 index = thread_index();
    const u32 count = *p.count;
    if (count > p.capacity) {
        return;
    }
    if (index < count) {
        u32 id = __ldg(p.ids + index);
        if (id >= p.rows) {
            report_order(p, p.bad_id, index, id);
        }
        if (index > 0 && __ldg(p.ids + index - 1) >= id) {
            report_order(p, p.id_order, index, id);
        }
    }
    if (!p.starts) {
        return;
    }
    if (index <= count) {
        u32 start = __ldg(p.starts + index);
        if (index == 0 ? start != 0 : __ldg(p.starts + index - 1) >= start) {
            report_order(p, p.start_order, index, start);
        }
        if (index == count && start > p.places) {
            report_order(p, p.bad_start, index, start);
        }
    }
    if (index < p.places && index < __ldg(p.starts + count)) {
        u32 position = __ldg(p.positions + index);
        if (position >= p.positions_end) {
            report_order(p, p.bad_position, index, position);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) bags_of_rows(const BagsOfRowsParams p) {
    const u64 row = thread_index();
    if (row >= p.rows) {
        return;
    }
    // The last bag that begins no later: empty ones come before it.
    u32 low = 0, high = p.bag_count;
    while (high - low > 1) {
        u32 middle = low + (high - low) / 2;
        if (__ldg(p.offsets + middle) <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    float weight = 1.0f;
    if (p.mean) {
        weight = 1.0f / (float)(__ldg(p.offsets + low + 1) - __ldg(p.offsets + low));
    }
    p.bags[row] = make_uint2(low, __float_as_uint(weight));
}

// The ids of the runs and their number, of a sparse gradient.
extern "C" __global__ void __launch_bounds__(THREADS) gradient_ids(const TableGradientParams p) {
    const u64 index = thread_index();
    const u32 count = count_of(p.count, p.is_wrong);
    if (index == 0) {
        *p.out_count = count;
    }
    if (index < count) {
        p.out_ids[index] = __ldg(p.ids + index);
    }
}

// Clears a dense gradient.
extern "C" __global__ void __launch_bounds__(THREADS) gradient_clear(const TableGradientParams p) {
    const u64 first = COLUMNS * thread_index();
    if (first < p.items) {
        store_vec4(p.out + first, zeros(), (u32)min(p.items - first, (u64)COLUMNS));
    }
}

// Where four columns of a run's row are.
__device__ __forceinline__ float *row_of_run(const TableGradientParams &p, u32 run, u32 column) {
    u32 row = p.dense ? __ldg(p.ids + run) : run;
    return p.out + (u64)row * p.width + column;
}

__device__ __forceinline__ Vec4 *head_of(const TableGradientParams &p, u32 level, u64 node, u32 vec4) {
    return (Vec4 *)p.heads[level] + node * p.vec4s + vec4;
}

__device__ __forceinline__ void add(Vec4 &sum, const Vec4 &row) {
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sum.numbers[e] += row.numbers[e];
    }
}

__device__ __forceinline__ void add_weighted(Vec4 &sum, float weight, const Vec4 &row) {
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sum.numbers[e] = fma(weight, row.numbers[e], sum.numbers[e]);
    }
}

// What a team knows of its window.
struct Window {
    // The places after which a run ends.
    u32 ends;
    // The run of the first place, and whether it begins there.
    u32 run;
    bool begins_here;
};

// Rows of grad_out, and their weights as bits, of the windows of a warp: padded, so that teams read different banks.
typedef uint2 Staged[WINDOW + 1];

// Stages the windows of the warp's teams and returns that of this lane's team. The whole warp calls it together.
__device__ __forceinline__ Window stage_windows(const TableGradientParams &p, Staged *staged, u32 first, u32 count,
                                                u32 total) {
    const u32 lane = threadIdx.x % WARP, own_team = lane / p.lanes, teams = WARP / p.lanes;
    Window own = {};
    Window next = {0, run_of_warp(p.starts, count, first), false};
    next.begins_here = __ldg(p.starts + next.run) == first;
#pragma unroll 1
    for (u32 team = 0; team < teams; team++, first += WINDOW) {
        const u32 place = first + lane, start = next.run + 1 + lane;
        // Past the last position, rows are added to a sum that is not stored.
        uint2 row = make_uint2(0, 0);
        if (place < total) {
            row = make_uint2(__ldg(p.positions + place), __float_as_uint(1.0f));
            if (p.bags) {
                row = __ldg(p.bags + row.x);
            }
        }
        staged[team][lane] = row;
        // Runs are not empty: those that begin in a window follow each other there.
        const u32 end = start <= count ? __ldg(p.starts + start) - 1 - first : (u32)WINDOW;
        next.ends = __reduce_or_sync(WHOLE_WARP, end < WINDOW ? 1u << end : 0);
        if (team == own_team) {
            own = next;
        }
        next.run += __popc(next.ends);
        next.begins_here = next.ends >> (WINDOW - 1);
    }
    __syncwarp();
    return own;
}

// Four numbers of a row, of which `left` are within it.
template <bool VECTORS>
__device__ __forceinline__ Vec4 read_row(const float *from, u32 left) {
    if constexpr (VECTORS) {
        return load_vec4(from);
    } else {
        Vec4 out = zeros();
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            if (e < left) {
                out.numbers[e] = __ldg(from + e);
            }
        }
        return out;
    }
}

template <bool VECTORS>
__device__ __forceinline__ void write_row(u64 address, const Vec4 &sum, u32 left) {
    float *to = (float *)address;
    if constexpr (VECTORS) {
        put_vec4((Vec4 *)to, sum);
    } else {
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            if (e < left) {
                to[e] = sum.numbers[e];
            }
        }
    }
}

// Adds up a window's rows: this lane's vec4 and the one `lanes` after it.
template <bool VECTORS>
__device__ __forceinline__ void sum_window(const TableGradientParams &p, const uint2 *rows, Window window, u32 index, u32 vec4,
                                           u32 count) {
    const u32 column = COLUMNS * vec4, row_bytes = p.width * sizeof(float);
    // The second, if it is within the row: elsewhere the first is read again.
    const bool is_pair = vec4 + p.lanes < p.vec4s;
    const u32 second = is_pair ? COLUMNS * p.lanes : 0, left = p.width - column;
    u64 grad = (u64)(p.grad + column), out = (u64)(p.out + column), apart = second * sizeof(float);
    // Keeps the compiler from computing it again for each row.
    asm volatile("" : "+l"(apart));
    u64 to = (u64)head_of(p, 0, index, vec4);
    // Heads are whole vec4s.
    u32 least = COLUMNS;
    if (window.begins_here) {
        to = (u64)row_of_run(p, window.run, column);
        least = 0;
    }
    Vec4 sum = zeros(), sum2 = zeros();
#pragma unroll 1
    for (u32 begin = 0; begin < WINDOW; begin += AHEAD) {
        Vec4 one[AHEAD], two[AHEAD];
        float weights[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const uint2 row = rows[begin + i];
            const u64 from = multiply_add_wide(row.x, p.grad_bytes, grad);
            one[i] = read_row<VECTORS>((const float *)from, left);
            two[i] = read_row<VECTORS>((const float *)(from + apart), left - second);
            weights[i] = __uint_as_float(row.y);
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            add_weighted(sum, weights[i], one[i]);
            add_weighted(sum2, weights[i], two[i]);
            if (window.ends >> i & 1) {
                write_row<VECTORS>(to, sum, max(left, least));
                if (is_pair) {
                    write_row<VECTORS>(to + apart, sum2, max(left - second, least));
                }
                sum = sum2 = zeros();
                least = 0;
                // After the last run, nothing is written.
                u32 row = ++window.run;
                if (p.dense) {
                    row = row < count ? __ldg(p.ids + row) : 0;
                }
                to = multiply_add_wide(row, row_bytes, out);
            }
        }
        window.ends >>= AHEAD;
    }
}

extern "C" __global__ void __launch_bounds__(SUM_WARPS *WARP) gradient_windows(const TableGradientParams p) {
    __shared__ Staged staged[SUM_WARPS][MOST_TEAMS];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, team = lane / p.lanes, teams = WARP / p.lanes;
    // A warp has a part of the columns of as many windows as it has teams.
    const u32 part = SPAN * p.lanes, parts = (p.vec4s + part - 1) / part;
    const u64 item = (u64)blockIdx.x * SUM_WARPS + warp, first_window = item / parts * teams;
    const u32 count = count_of(p.count, p.is_wrong);
    if (item >= p.items || count == 0) {
        return;
    }
    const u32 total = __ldg(p.starts + count);
    if (first_window * WINDOW >= total) {
        return;
    }
    const u32 index = (u32)first_window + team, vec4 = (u32)(item % parts) * part + lane % p.lanes;
    Window window = stage_windows(p, staged[warp], (u32)first_window * WINDOW, count, total);
    if (team >= teams || index * WINDOW >= total || vec4 >= p.vec4s) {
        return;
    }
    const bool goes_on = window.ends >> (WINDOW - 1) == 0 && (index + 1) * WINDOW < total;
    if (vec4 == 0) {
        const bool is_first = window.begins_here || window.ends != 0;
        p.leaving[index] = goes_on && is_first ? window.run + __popc(window.ends) : (u32)NONE;
    }
    if (goes_on) {
        window.ends |= 1u << (WINDOW - 1);
    }
    if (p.vectors) {
        sum_window<true>(p, staged[warp][team], window, index, vec4, count);
    } else {
        sum_window<false>(p, staged[warp][team], window, index, vec4, count);
    }
}

// A head of the next level.
extern "C" __global__ void __launch_bounds__(THREADS) gradient_heads(const TableGradientParams p) {
    const u64 item = thread_index(), node = item / p.vec4s;
    const u32 vec4 = item % p.vec4s, count = count_of(p.count, p.is_wrong);
    if (item >= p.items || count == 0) {
        return;
    }
    u64 span = WINDOW;
    for (u32 level = 0; level < p.level; level++) {
        span *= WINDOW;
    }
    const u64 first = node * span * WINDOW;
    if (first >= __ldg(p.starts + count)) {
        return;
    }
    const u32 run = run_of(p.starts, count, first);
    if (__ldg(p.starts + run) == first) {
        return;
    }
    const u64 end = __ldg(p.starts + run + 1);
    Vec4 sum = zeros();
    for (u32 child = 0; child < WINDOW && first + child * span < end; child++) {
        add(sum, get_vec4(head_of(p, p.level, node * WINDOW + child, vec4)));
    }
    put_vec4(head_of(p, p.level + 1, node, vec4), sum);
}

// Adds to the row of a run that leaves its first window what follows.
extern "C" __global__ void __launch_bounds__(THREADS) gradient_long_runs(const TableGradientParams p) {
    const u64 item = thread_index(), window = item / p.vec4s;
    const u32 vec4 = item % p.vec4s, count = count_of(p.count, p.is_wrong);
    if (item >= p.items || count == 0) {
        return;
    }
    u64 at = (window + 1) * WINDOW;
    if (at >= __ldg(p.starts + count)) {
        return;
    }
    const u32 run = p.leaving[window];
    if (run == NONE) {
        return;
    }
    const u64 end = __ldg(p.starts + run + 1);
    float *row = row_of_run(p, run, COLUMNS * vec4);
    const u32 left = p.width - COLUMNS * vec4;
    Vec4 sum = zeros();
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sum.numbers[e] = e < left ? row[e] : 0.0f;
    }
    u64 span = WINDOW;
    for (u32 level = 0; at < end; level++) {
        const bool is_last = level + 1 == p.levels;
        Vec4 part = zeros();
        while (at < end && (is_last || at % (span * WINDOW) != 0)) {
            add(part, get_vec4(head_of(p, level, at / span, vec4)));
            at += span;
        }
        add(sum, part);
        span *= WINDOW;
    }
    store_vec4(row, sum, left);
}
