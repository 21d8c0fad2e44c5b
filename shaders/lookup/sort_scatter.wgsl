// Moves each block of 1024 keys, and their positions, to where a digit puts them. Keys with equal digits keep their order.
//
// One workgroup per block. A thread owns 16 consecutive keys and a counter for each digit. The sums of the counters, by digit and then by
// thread, are the places of the keys in the order of the block; in that order the workgroup writes them, so that most
// writes are coalesced.
//
// Workgroup memory: keys and counters, padded so that threads that walk their own 16 use different banks, the order, and one word
// for each digit or quarter of one: 13.3 KiB.

struct SortScatterParams {
    groups: u32,
    grid_width: u32,
    length: u32,
    shift: u32,
    blocks: u32,
    // The first pass: positions are the places of the keys.
    is_first: u32,
}
@group(0) @binding(0) var<uniform> params: SortScatterParams;

var<workgroup> own_keys: array<u32, 1088>;
var<workgroup> own_counts: array<u32, 1088>;
var<workgroup> order: array<u32, 1024>;
var<workgroup> sums: array<u32, 64>;
// What is added to a key's place in the order of the block.
var<workgroup> moves: array<u32, 16>;

fn padded(i: u32) -> u32 {
    return i + i / 16u;
}

fn digit_of(key: u32) -> u32 {
    return (key >> params.shift) & 15u;
}

// Makes the counters the places of the first keys of each digit and thread, in the order of the block.
fn add_up_counts(thread: u32, block: u32) {
    // A thread has a quarter of a digit's counters.
    var own = 0u;
    for (var i = 0u; i < 16u; i++) {
        own += own_counts[padded(thread * 16u + i)];
    }
    sums[thread] = own;
    workgroupBarrier();
    for (var distance = 1u; distance < 64u; distance *= 2u) {
        var sum = sums[thread];
        if thread >= distance {
            sum += sums[thread - distance];
        }
        workgroupBarrier();
        sums[thread] = sum;
        workgroupBarrier();
    }
    var sum = sums[thread] - own;
    if thread % 4u == 0u && block < params.blocks {
        let digit = thread / 4u;
        var start = 0u;
        for (var d = 0u; d < digit; d++) {
            start += totals[d];
        }
        moves[digit] = start + counts[digit * params.blocks + block] - sum;
    }
    for (var i = 0u; i < 16u; i++) {
        let place = padded(thread * 16u + i);
        let count = own_counts[place];
        own_counts[place] = sum;
        sum += count;
    }
    workgroupBarrier();
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let block = group_index(id);
    let first = block * 1024u;
    for (var step = 0u; step < 16u; step++) {
        let i = step * 64u + thread;
        own_counts[padded(i)] = 0u;
        if first + i < params.length {
            own_keys[padded(i)] = from_keys[first + i];
        }
    }
    workgroupBarrier();
    for (var i = thread * 16u; i < thread * 16u + 16u; i++) {
        if first + i < params.length {
            own_counts[padded(digit_of(own_keys[padded(i)]) * 64u + thread)]++;
        }
    }
    workgroupBarrier();
    add_up_counts(thread, block);
    for (var i = thread * 16u; i < thread * 16u + 16u; i++) {
        if first + i < params.length {
            let counter = padded(digit_of(own_keys[padded(i)]) * 64u + thread);
            order[own_counts[counter]] = i;
            own_counts[counter]++;
        }
    }
    workgroupBarrier();
    for (var step = 0u; step < 16u; step++) {
        let i = step * 64u + thread;
        if first + i < params.length {
            let source = order[i];
            let key = own_keys[padded(source)];
            let to = moves[digit_of(key)] + i;
            to_keys[to] = key;
            if params.is_first == 1u {
                to_positions[to] = first + source;
            } else {
                to_positions[to] = from_positions[first + source];
            }
        }
    }
}
