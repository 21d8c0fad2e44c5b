// For target_attention/attend.wgsl: computes a row of a piece again, by all threads of the workgroup, where its sums are
// not finite. Weights are divided by their sum before they are multiplied, so that what overflowed does not, and removed
// behaviours are left out rather than multiplied by 0, which matters where their values are not finite.

// The maximum, or what stands for it, and the sum of the softmax weights of row `r` over the piece. Of its own scores:
// those of the tile may be rounded otherwise.
fn state_of_row(r: u32, rows: vec4<u32>, span: vec4<u32>, kv_head: u32, thread: u32) -> vec2<f32> {
    var own_max = negative_infinity();
    var own_sum = 0.0;
    for (var l = span.x + thread; l < span.y; l += THREADS) {
        let score = score_one(l, r, rows, kv_head);
        let grown = max(own_max, score);
        own_sum = own_sum * rescale_of(vec4<f32>(own_max), vec4<f32>(grown)).x
            + exp_one(score - shift_of(vec4<f32>(grown)).x);
        own_max = grown;
    }
    thread_sums[thread] = vec4<f32>(own_max, own_sum, 0.0, 0.0);
    workgroupBarrier();
    var row_max = negative_infinity();
    for (var other = 0u; other < THREADS; other++) {
        row_max = max(row_max, thread_sums[other].x);
    }
    var row_sum = 0.0;
    for (var other = 0u; other < THREADS; other++) {
        let part = thread_sums[other];
        row_sum += part.y * rescale_of(vec4<f32>(part.x), vec4<f32>(row_max)).x;
    }
    workgroupBarrier();
    return vec2<f32>(shift_of(vec4<f32>(row_max)).x, row_sum);
}

// Computes one row of the piece again.
fn attend_row(r: u32, rows: vec4<u32>, span: vec4<u32>, kv_head: u32, thread: u32) {
    let is_softmax = params.weighting == SOFTMAX;
    var state = vec2<f32>(0.0, 1.0);
    if is_softmax {
        state = state_of_row(r, rows, span, kv_head, thread);
    }
    // Columns, and the behaviours among which each thread with these columns has its own.
    let column = 4u * (thread % params.columns);
    let share = thread / params.columns;
    let shares = THREADS / params.columns;
    let left = params.value_columns - min(column, params.value_columns);
    let own_value = first_value(kv_head, params.first_column + column);
    var acc = vec4<f32>();
    for (var start = span.x; start < span.y; start += THREADS) {
        var weight = 0.0;
        var counts = false;
        if start + thread < span.y {
            let score = score_one(start + thread, r, rows, kv_head);
            weight = weigh(vec4<f32>(score), vec4<f32>(state.x), true).x;
            counts = !is_removed(score) || params.weighting > SILU;
            if is_softmax {
                weight = 0.5 * (weight / state.y);
            }
        }
        tile_weights[thread] = vec4<f32>(weight, select(0.0, 1.0, counts), 0.0, 0.0);
        workgroupBarrier();
        if left > 0u {
            for (var i = share; i < min(span.y - start, THREADS); i += shares) {
                let entry = tile_weights[i];
                if entry.y > 0.0 {
                    let row = start + i - params.first_history;
                    acc += entry.x * value_vec4(value_place(row, own_value, rows.w), 0u, left);
                }
            }
        }
        workgroupBarrier();
    }
    tile_weights[thread] = acc;
    workgroupBarrier();
    if share == 0u && left > 0u {
        for (var other = 1u; other < shares; other++) {
            acc += tile_weights[thread + other * params.columns];
        }
        store_row(select(acc, doubled(acc), is_softmax), r, column, left, rows, kv_head, span.z);
    }
    workgroupBarrier();
}
