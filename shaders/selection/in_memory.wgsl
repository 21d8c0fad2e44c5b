// Lists that do not fit workgroup memory: K of more than 1024. For selection/select.wgsl; a workgroup has one list.
//
// The list of the workgroup holds the newest entries alone. When it is full it is sorted, as ever, and merged with the
// best K so far, which are in the device's memory; the result goes to the other of two buffers, `lists` and `spare`.
// Each thread merges an equal part of the result, whose begin it finds by a binary search along the two lists (merge
// path): about K/64 steps for CAPACITY entries that beat the K-th best, where sorting K of them in place would take
// twenty times as many. Reading each behaviour once is why this is no radix select: that computes every score again
// for each digit and once more to collect what it chose, so five times with digits of 8 bits.

// How many entries are in the device's memory, and whether they are in `spare`.
var<workgroup> kept_count: u32;
var<workgroup> kept_in_spare: u32;
// Where this workgroup's entries are in both buffers.
var<private> kept_first: u32;

fn start_lists(thread: u32, first: u32) {
    kept_first = first;
    if thread == 0u {
        kept_count = 0u;
        kept_in_spare = 0u;
    }
}

fn kept_entry(place: u32) -> vec2<u32> {
    if kept_in_spare == 1u {
        return spare[kept_first + place];
    }
    return lists[kept_first + place];
}

fn fresh_entry(place: u32) -> vec2<u32> {
    return vec2<u32>(list_keys[place], list_rows[place]);
}

// Merges the sorted list into the entries in memory, of which `top_k` remain. All threads must call it together.
fn cut_lists(thread: u32, top_k: u32) {
    let fresh = min(atomicLoad(&list_counts[0]), CAPACITY);
    let kept = kept_count;
    let total = min(kept + fresh, top_k);
    let share = (total + 63u) / 64u;
    let first = min(thread * share, total);
    let end = min(first + share, total);
    // How many of the results before `first` are entries in memory.
    var low = first - min(first, fresh);
    var high = min(first, kept);
    while low < high {
        let middle = (low + high) / 2u;
        let old = kept_entry(middle);
        let new_entry = fresh_entry(first - 1u - middle);
        if is_better(old.x, old.y, new_entry.x, new_entry.y) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    var next_kept = low;
    var next_fresh = first - low;
    for (var place = first; place < end; place++) {
        var old = vec2<u32>(0u, NONE);
        if next_kept < kept {
            old = kept_entry(next_kept);
        }
        var entry = vec2<u32>(0u, NONE);
        if next_fresh < fresh {
            entry = fresh_entry(next_fresh);
        }
        if is_better(old.x, old.y, entry.x, entry.y) {
            entry = old;
            next_kept++;
        } else {
            next_fresh++;
        }
        if kept_in_spare == 1u {
            lists[kept_first + place] = entry;
        } else {
            spare[kept_first + place] = entry;
        }
    }
    storageBarrier();
    workgroupBarrier();
    if thread == 0u {
        kept_in_spare = 1u - kept_in_spare;
        kept_count = total;
        atomicStore(&list_counts[0], 0u);
        if total == top_k {
            list_threshold[0] = kept_entry(top_k - 1u);
        }
    }
}

// Leaves the entries in `lists`, from `first` on.
fn write_lists(thread: u32, top_k: u32, first: u32, count: u32) {
    for (var entry = thread; entry < top_k; entry += 64u) {
        if entry >= kept_count {
            lists[first + entry] = vec2<u32>(0u, NONE);
        } else if kept_in_spare == 1u {
            lists[first + entry] = spare[first + entry];
        }
    }
}
