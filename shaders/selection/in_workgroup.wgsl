// Lists that fit workgroup memory: K is at most 1024. For selection/select.wgsl.

// Cuts the sorted lists to `top_k`. All threads must call it together.
fn cut_lists(thread: u32, top_k: u32) {
    if thread < LISTS {
        let count = min(min(atomicLoad(&list_counts[thread]), CAPACITY), top_k);
        atomicStore(&list_counts[thread], count);
        if count == top_k {
            let last = thread * CAPACITY + top_k - 1u;
            list_threshold[thread] = vec2<u32>(list_keys[last], list_rows[last]);
        }
    }
}

fn start_lists(thread: u32, first: u32) {}

// Writes the first `count` lists, which are sorted and cut, to `lists` from `first` on.
fn write_lists(thread: u32, top_k: u32, first: u32, count: u32) {
    for (var list = 0u; list < count; list++) {
        let entries = atomicLoad(&list_counts[list]);
        for (var entry = thread; entry < top_k; entry += 64u) {
            let at = list * CAPACITY + min(entry, CAPACITY - 1u);
            lists[first + list * top_k + entry] = select(
                vec2<u32>(0u, NONE), vec2<u32>(list_keys[at], list_rows[at]), entry < entries);
        }
    }
}
