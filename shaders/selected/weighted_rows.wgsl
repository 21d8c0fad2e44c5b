// Σ numbers[slot] · row over the slots of a part, of the rows in `values`.
//
// `value_lanes` threads, a power of two up to 64, share a row: neighbouring threads read neighbouring columns. Each adds up
// 32 of its rows, and then these sums; what several have of a column is added in order.

var<workgroup> numbers: array<f32, SLOTS>;
var<workgroup> column_sums: array<vec4<f32>, 64>;

// Of four columns from `first_column + 4 · (thread % value_lanes)` on; the first `value_lanes` threads have the sum. All
// threads call it together.
fn weighted_sum(part: Part, first_column: u32, thread: u32) -> vec4<f32> {
    let lanes = params.value_lanes;
    let rows = 64u / lanes;
    let column = first_column + 4u * (thread % lanes);
    var sum = vec4<f32>();
    if column < params.value_width {
        for (var begin = thread / lanes; begin < part.count; begin += 32u * rows) {
            var some = vec4<f32>();
            for (var slot = begin; slot < min(begin + 32u * rows, part.count); slot += rows) {
                let row = slot_rows[slot];
                if row != NONE {
                    let place = params.values_base + place_of(row, part.head) * params.value_width + column;
                    some += numbers[slot] * values_vec4(place, params.value_width - column);
                }
            }
            sum += some;
        }
    }
    workgroupBarrier();
    column_sums[thread] = sum;
    workgroupBarrier();
    if thread < lanes {
        for (var other = thread + lanes; other < 64u; other += lanes) {
            sum += column_sums[other];
        }
    }
    return sum;
}
