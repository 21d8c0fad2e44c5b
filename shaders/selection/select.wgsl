// The best K of scored behaviours, while a workgroup reads them. Included in every search.
//
// Each list has CAPACITY places in workgroup memory and a threshold: the K-th best entry when the list was last cut.
// Entries that do not beat the threshold are never stored; the others are appended. When an entry finds its list full,
// all lists are sorted and cut, and the entries without a place are offered again, so a list with many places is sorted
// rarely. What a cut does is the matter of the file that is included with this one: selection/in_workgroup.wgsl keeps
// the best K where they are, selection/in_memory.wgsl merges them into a longer list in the device's memory. The order
// of entries: selection/order.wgsl.
//
// Variants: LISTS lists per workgroup; CAPACITY grows with K: twice as many places let a list take about twice as
// many behaviours before it is sorted again. Workgroup memory: 8 · LISTS · CAPACITY bytes, at most 12 KiB, + 12 ·
// LISTS + 8.

var<workgroup> list_keys: array<u32, LISTS * CAPACITY>;
var<workgroup> list_rows: array<u32, LISTS * CAPACITY>;
// Entries that were appended, including those that found no place.
var<workgroup> list_counts: array<atomic<u32>, LISTS>;
// The key and row that an entry must beat.
var<workgroup> list_threshold: array<vec2<u32>, LISTS>;
// Whether an entry found no place.
var<workgroup> overfull: atomic<u32>;
// The length of the longest list if the lists are to be sorted, otherwise 0.
var<workgroup> entries_to_sort: u32;

fn clear_lists(thread: u32) {
    if thread < LISTS {
        atomicStore(&list_counts[thread], 0u);
        list_threshold[thread] = vec2<u32>(0u, NONE);
    }
    if thread == 0u {
        atomicStore(&overfull, 0u);
    }
    workgroupBarrier();
}

// Appends an entry if it can be among the best. Returns false if there was no place: offer it again after `compact`.
fn offer(list: u32, key: u32, row: u32) -> bool {
    let threshold = list_threshold[list];
    if !is_better(key, row, threshold.x, threshold.y) {
        return true;
    }
    let place = atomicAdd(&list_counts[list], 1u);
    if place >= CAPACITY {
        atomicStore(&overfull, 1u);
        return false;
    }
    list_keys[list * CAPACITY + place] = key;
    list_rows[list * CAPACITY + place] = row;
    return true;
}

fn compare_exchange(low: u32, high: u32) {
    let a = vec2<u32>(list_keys[low], list_rows[low]);
    let b = vec2<u32>(list_keys[high], list_rows[high]);
    if is_better(b.x, b.y, a.x, a.y) {
        list_keys[low] = b.x;
        list_rows[low] = b.y;
        list_keys[high] = a.x;
        list_rows[high] = a.y;
    }
}

// If an entry found no place, or `always` is set, sorts all lists, cuts them to `top_k`, and returns true; lists
// without entries need neither. All threads must call it together.
fn compact(thread: u32, top_k: u32, always: bool) -> bool {
    workgroupBarrier();
    if thread == 0u {
        var most = 0u;
        if always || atomicLoad(&overfull) == 1u {
            for (var list = 0u; list < LISTS; list++) {
                most = max(most, atomicLoad(&list_counts[list]));
            }
        }
        entries_to_sort = min(most, CAPACITY);
    }
    let entries = workgroupUniformLoad(&entries_to_sort);
    if entries == 0u {
        return false;
    }
    // Places past the last entry hold the worst possible entry.
    for (var list = 0u; list < LISTS; list++) {
        for (var place = atomicLoad(&list_counts[list]) + thread; place < entries; place += 64u) {
            list_keys[list * CAPACITY + place] = 0u;
            list_rows[list * CAPACITY + place] = NONE;
        }
    }
    workgroupBarrier();
    // Bitonic sort for any length: each merge starts with mirrored pairs, so that all comparisons put the better entry
    // first and pairs that reach past the end can be skipped. Sizes are powers of two, so there are no divisions.
    var pairs_bits = 0u;
    while (2u << pairs_bits) < entries {
        pairs_bits++;
    }
    let pairs = 1u << pairs_bits;
    for (var size = 2u; size <= 2u * pairs; size *= 2u) {
        for (var distance = size / 2u; distance > 0u; distance /= 2u) {
            let other = select(distance, size - 1u, distance * 2u == size);
            for (var i = thread; i < LISTS * pairs; i += 64u) {
                let pair = i & (pairs - 1u);
                let low = 2u * pair - (pair & (distance - 1u));
                let high = low ^ other;
                if high < entries {
                    let first = (i >> pairs_bits) * CAPACITY;
                    compare_exchange(first + low, first + high);
                }
            }
            workgroupBarrier();
        }
    }
    cut_lists(thread, top_k);
    if thread == 0u {
        atomicStore(&overfull, 0u);
    }
    workgroupBarrier();
    return true;
}
