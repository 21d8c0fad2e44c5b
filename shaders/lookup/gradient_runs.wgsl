// What the kernels of the gradients of tables share.
//
// The positions of all ids, in order, are cut into windows of 32. The head of a window is the sum of the rows of a run that began
// earlier; 32 heads of one run are added to a head of the next level, and so on, until there are no more than 32. heads[level,
// node] are `width` numbers each, and `live` is the number of runs. The kernels' parameters have `starts_base`.

const WINDOW: u32 = 32u;

// The run that holds a place of the positions, of `count` runs: the last that starts no later.
fn run_of(count: u32, place: u32) -> u32 {
    var low = 0u;
    var high = count;
    while high - low > 1u {
        let middle = low + (high - low) / 2u;
        if starts[params.starts_base + middle] <= place {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

fn start_of(run: u32) -> u32 {
    return starts[params.starts_base + run];
}

// The nodes of the next level.
fn next_nodes(nodes: u32) -> u32 {
    return (nodes + WINDOW - 1u) / WINDOW;
}
