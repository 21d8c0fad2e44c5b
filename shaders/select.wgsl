// The best K of scored behaviours, kept in workgroup memory. Stands in front of search.wgsl and merge_selection.wgsl.
//
// Each list has CAPACITY = K + 64 places and a threshold: the K-th best so far. Entries that do not beat it are never
// stored. An entry is a key, which orders like the score, and a position; best first means key descending, then
// position ascending: a total order, so that the result does not depend on who appended first. When a list holds more
// than K entries, all lists are sorted and cut (`compact`), so that 64 more always fit.
//
// The key of a score: its bits, made to order like unsigned integers. -0 counts as +0; NaN has the lowest key, 0.
// Workgroup memory: LISTS · CAPACITY · 8 bytes, at most 12 KiB, + 140 bytes.

const CAPACITY: u32 = TOP_K + 64u;

var<workgroup> list_keys: array<u32, LISTS * CAPACITY>;
var<workgroup> list_positions: array<u32, LISTS * CAPACITY>;
var<workgroup> list_counts: array<atomic<u32>, LISTS>;
// How many entries were sorted when the list was cut last; with K of them the last one is the threshold.
var<workgroup> list_sorted: array<u32, LISTS>;
// Whether a list holds more than K entries.
var<workgroup> overfull: atomic<u32>;
var<workgroup> overfull_now: u32;

fn key_of(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return 0u;
    }
    if (bits & 0x7fffffffu) == 0u {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

// The bits of the score of a key.
fn score_bits(key: u32) -> u32 {
    if key == 0u {
        return 0x7fc00000u;
    }
    return select(~key, key & 0x7fffffffu, key >= 0x80000000u);
}

fn clear_lists(thread: u32) {
    if thread < LISTS {
        atomicStore(&list_counts[thread], 0u);
        list_sorted[thread] = 0u;
    }
    if thread == 0u {
        atomicStore(&overfull, 0u);
    }
    workgroupBarrier();
}

// Appends an entry if it can be among the best. At most 64 calls a list between two calls of `compact`.
fn offer(list: u32, key: u32, position: u32) {
    let first = list * CAPACITY;
    if list_sorted[list] >= TOP_K {
        let last = first + TOP_K - 1u;
        let better = key > list_keys[last] || (key == list_keys[last] && position < list_positions[last]);
        if !better {
            return;
        }
    }
    let place = atomicAdd(&list_counts[list], 1u);
    list_keys[first + place] = key;
    list_positions[first + place] = position;
    if place >= TOP_K {
        atomicStore(&overfull, 1u);
    }
}

// Sorts all lists and cuts them to K, where one is overfull or `always`. All threads call it together.
fn compact(thread: u32, always: bool) {
    workgroupBarrier();
    if thread == 0u {
        overfull_now = atomicLoad(&overfull);
    }
    if workgroupUniformLoad(&overfull_now) == 0u && !always {
        return;
    }
    // Places behind the last entry hold the worst there is.
    for (var i = thread; i < LISTS * CAPACITY; i += 64u) {
        if i % CAPACITY >= atomicLoad(&list_counts[i / CAPACITY]) {
            list_keys[i] = 0u;
            list_positions[i] = NONE;
        }
    }
    workgroupBarrier();
    // Bitonic sort for any length: each merge begins with mirrored pairs, so that all comparisons put the better
    // entry first, and pairs with a place behind the list are left out.
    for (var size = 2u; size < 2u * CAPACITY; size *= 2u) {
        for (var distance = size / 2u; distance > 0u; distance /= 2u) {
            for (var i = thread; i < LISTS * PAIRS; i += 64u) {
                let list = i / PAIRS * CAPACITY;
                let pair = i % PAIRS;
                let low = pair / distance * 2u * distance + pair % distance;
                var high = low + distance;
                if distance * 2u == size {
                    high = low / size * size + size - 1u - low % size;
                }
                if high < CAPACITY {
                    let a = list_keys[list + low];
                    let b = list_keys[list + high];
                    let a_position = list_positions[list + low];
                    let b_position = list_positions[list + high];
                    if b > a || (b == a && b_position < a_position) {
                        list_keys[list + low] = b;
                        list_keys[list + high] = a;
                        list_positions[list + low] = b_position;
                        list_positions[list + high] = a_position;
                    }
                }
            }
            workgroupBarrier();
        }
    }
    if thread < LISTS {
        let count = min(atomicLoad(&list_counts[thread]), TOP_K);
        atomicStore(&list_counts[thread], count);
        list_sorted[thread] = count;
    }
    if thread == 0u {
        atomicStore(&overfull, 0u);
    }
    workgroupBarrier();
}
