// Checks ids in order, or a sparse gradient, that the caller gave. found[k] becomes the bitwise complement of the lowest place of a
// fault of kind k (so that 0 stands for none): shaders/lookup/order_verdict.wgsl reads them.
//
// A thread for each id, for the end of the starts, and for each position. Kinds: src/gpu/lookup.rs lists them in this order.

struct OrderCheckParams {
    groups: u32,
    grid_width: u32,
    ids_base: u32,
    starts_base: u32,
    positions_base: u32,
    count_base: u32,
    // Of the table.
    rows: u32,
    // Capacities: of ids, and of positions.
    capacity: u32,
    places: u32,
    // Positions are below.
    positions_end: u32,
    has_starts: u32,
}
@group(0) @binding(0) var<uniform> params: OrderCheckParams;

const BAD_COUNT: u32 = 0u;
const BAD_ID: u32 = 1u;
const ID_ORDER: u32 = 2u;
const START_ORDER: u32 = 3u;
const BAD_START: u32 = 4u;
const BAD_POSITION: u32 = 5u;

fn report(kind: u32, place: u32) {
    atomicMax(&found[kind], ~place);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(group) * 64u + thread;
    let runs = count[params.count_base];
    if runs > params.capacity {
        report(BAD_COUNT, 0u);
        return;
    }
    if index < runs {
        let id = ids[params.ids_base + index];
        if id >= params.rows {
            report(BAD_ID, index);
        }
        if index > 0u {
            if ids[params.ids_base + index - 1u] >= id {
                report(ID_ORDER, index);
            }
        }
    }
    if params.has_starts == 0u {
        return;
    }
    if index <= runs {
        let start = starts[params.starts_base + index];
        var is_wrong = start != 0u;
        if index > 0u {
            is_wrong = starts[params.starts_base + index - 1u] >= start;
        }
        if is_wrong {
            report(START_ORDER, index);
        }
        if index == runs && start > params.places {
            report(BAD_START, index);
        }
    }
    if index < min(params.places, starts[params.starts_base + runs]) {
        if positions[params.positions_base + index] >= params.positions_end {
            report(BAD_POSITION, index);
        }
    }
}
