// Gradients of tables: dT[id] = Σ_{positions of id} weight · row of grad_out.
//
// The positions of all ids, in order, are cut into windows of 32. A thread takes four columns of one window, adjacent threads adjacent
// columns, so that every thread adds as many rows whether ids occur once or all are one. Of a run of equal positions that begins in the window
// it writes the sum to the gradient's row; the sum of a run that began earlier is the window's *head*. 32 heads of one run
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
    // Rows that a thread has in flight.
    AHEAD = 4,
    MOST_LEVELS = 7,
};

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
    // Threads that have something to do, or numbers to clear.
    u64 items;
    u32 grad_width, width, vec4s;
    u32 dense;
    // Whether rows of grad_out can be read a vec4 at a time.
    u32 vectors;
    u32 levels;
    // The level whose heads are added up.
    u32 level;
    u32 unused;
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

// weight · four columns of the row of a position.
__device__ __forceinline__ Vec4 weighted_row(const TableGradientParams &p, u32 position, u32 column) {
    uint2 bag = make_uint2(position, 0);
    if (p.bags) {
        bag = __ldg(p.bags + position);
    }
    const float *from = p.grad + (u64)bag.x * p.grad_width + column;
    Vec4 row = zeros();
    if (p.vectors) {
        row = load_vec4(from);
    } else {
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            if (column + e < p.width) {
                row.numbers[e] = __ldg(from + e);
            }
        }
    }
    if (p.bags) {
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            row.numbers[e] *= __uint_as_float(bag.y);
        }
    }
    return row;
}

__device__ __forceinline__ void add(Vec4 &sum, const Vec4 &row) {
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sum.numbers[e] += row.numbers[e];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) gradient_windows(const TableGradientParams p) {
    const u64 item = thread_index(), window = item / p.vec4s;
    const u32 vec4 = item % p.vec4s, column = COLUMNS * vec4;
    const u32 count = count_of(p.count, p.is_wrong);
    if (item >= p.items || count == 0) {
        return;
    }
    const u64 total = __ldg(p.starts + count);
    if (window * WINDOW >= total) {
        return;
    }
    const u32 first = window * WINDOW, end = min(total, (window + 1) * WINDOW);
    u32 run = run_of(p.starts, count, first);
    bool begins_here = __ldg(p.starts + run) == first;
    u32 run_end = __ldg(p.starts + run + 1);
    Vec4 sum = zeros();
    for (u32 begin = first; begin < end; begin += AHEAD) {
        Vec4 rows[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            rows[i] = begin + i < end ? weighted_row(p, __ldg(p.positions + begin + i), column) : zeros();
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 next = begin + i + 1;
            if (next <= end) {
                add(sum, rows[i]);
            }
            if (next == end || (next < end && next == run_end)) {
                if (begins_here) {
                    store_vec4(row_of_run(p, run, column), sum, p.width - column);
                } else {
                    put_vec4(head_of(p, 0, window, vec4), sum);
                }
                sum = zeros();
                begins_here = true;
                if (next < end) {
                    run++;
                    run_end = __ldg(p.starts + run + 1);
                }
            }
        }
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
    const u32 run = run_of(p.starts, count, at - 1);
    const u64 end = __ldg(p.starts + run + 1);
    if (__ldg(p.starts + run) < window * WINDOW || end <= at) {
        return;
    }
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
