// The gradient of a bucket row: (sum − u·⟨u, sum⟩) / (G·‖T‖) with u = T/‖T‖, or sum / G where rows are not normalised; 0 where
// ‖T‖ is below the floor. `sum` is the sum of the gradients of the candidates that read it.
//
// As many threads as a row needs (a power of two, at most 64) take a row, which a workgroup has several of. The kernel that
// includes this has the functions bucket_at and gradient_at, which read a number of its rows, write_at, and is_read.
// Precision: f32. Rows are scaled by a power of two before they are squared, so that neither squares nor norms overflow.
// Workgroup memory: 512 bytes.

const MIN_NORM: f32 = 1e-12;

var<workgroup> parts: array<vec2<f32>, 64>;

// 2^-e for e up to 126.
fn power_below(e: u32) -> f32 {
    return bitcast<f32>((127u - min(e, 126u)) << 23u);
}

// The scale of a row whose largest element is `largest`: it brings elements beyond 1 below 4, and small ones up, unless the
// norm is at the floor.
fn scale_of(largest: f32) -> f32 {
    if largest < 1.0 && largest > MIN_NORM {
        return 1099511627776.0;
    }
    return power_below(max(bitcast<u32>(largest) >> 23u, 127u) - 127u);
}

// Over the threads of a row.
fn sum_over_row(value: vec2<f32>, thread: u32) -> vec2<f32> {
    let own = thread % params.lanes;
    workgroupBarrier();
    parts[thread] = value;
    workgroupBarrier();
    for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
        if own < half {
            parts[thread] += parts[thread + half];
        }
        workgroupBarrier();
    }
    return parts[thread - own];
}

fn largest_of_row(value: f32, thread: u32) -> f32 {
    let own = thread % params.lanes;
    parts[thread].x = value;
    workgroupBarrier();
    for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
        if own < half {
            parts[thread].x = max(parts[thread].x, parts[thread + half].x);
        }
        workgroupBarrier();
    }
    return parts[thread - own].x;
}

// Writes the gradient of row `row`, if it is `there`. The whole workgroup calls it together. A thread reads no other's columns
// after it has written.
fn write_gradient(row: u32, there: bool, thread: u32) {
    let own = thread % params.lanes;
    let end = select(0u, params.width, there);
    if params.normalise == 0u {
        for (var column = own; column < end; column += params.lanes) {
            write_at(row, column, gradient_at(row, column) / f32(params.hash_groups));
        }
        return;
    }
    var largest = 0.0;
    for (var column = own; column < end; column += params.lanes) {
        largest = max(largest, abs(bucket_at(row, column)));
    }
    let scale = scale_of(largest_of_row(largest, thread));
    var squares = 0.0;
    for (var column = own; column < end; column += params.lanes) {
        let x = bucket_at(row, column) * scale;
        squares += x * x;
    }
    squares = sum_over_row(vec2<f32>(squares, 0.0), thread).x;
    let norm = sqrt(squares);
    // Nobody's gradient depends on a row that is not finite unless a candidate reads it.
    let doubtful = is_not_finite(vec4<f32>(squares)).x;
    var reads = 0.0;
    if doubtful && there {
        reads = select(0.0, 1.0, is_read(row, own));
    }
    var product = 0.0;
    for (var column = own; column < end; column += params.lanes) {
        product += bucket_at(row, column) * scale / norm * gradient_at(row, column);
    }
    let all = sum_over_row(vec2<f32>(product, reads), thread);
    // NaN is not below the floor.
    let is_zero = norm < MIN_NORM * scale || (doubtful && all.y == 0.0);
    for (var column = own; column < end; column += params.lanes) {
        let gradient = gradient_at(row, column);
        // Nothing is across a row of one number, which rounding may miss.
        let along = select(bucket_at(row, column) * scale / norm * all.x, gradient, params.width == 1u);
        let across = gradient - along;
        write_at(row, column, select(across / norm * scale / f32(params.hash_groups), 0.0, is_zero));
    }
}
