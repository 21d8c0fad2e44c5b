// The maximum and the sum of what 64 threads have, in the order of the threads. All threads call these together.

var<workgroup> exchanged: array<f32, 64>;

fn max_of_all(own: f32, thread: u32) -> f32 {
    workgroupBarrier();
    exchanged[thread] = own;
    workgroupBarrier();
    var all = exchanged[0];
    for (var other = 1u; other < 64u; other++) {
        all = max(all, exchanged[other]);
    }
    return all;
}

fn sum_of_all(own: f32, thread: u32) -> f32 {
    workgroupBarrier();
    exchanged[thread] = own;
    workgroupBarrier();
    var all = exchanged[0];
    for (var other = 1u; other < 64u; other++) {
        all += exchanged[other];
    }
    return all;
}
