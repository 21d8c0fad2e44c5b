// The first fault that shaders/lookup/order_check.wgsl found, as a report [place, what is there, kind], and the number of ids that
// count: none if something is wrong.
//
// One thread. Bindings have the bases of order_check.wgsl.

struct OrderVerdictParams {
    groups: u32,
    grid_width: u32,
    ids_base: u32,
    starts_base: u32,
    positions_base: u32,
    count_base: u32,
}
@group(0) @binding(0) var<uniform> params: OrderVerdictParams;

const KINDS: u32 = 6u;

@compute @workgroup_size(1)
fn main() {
    var kind = 0u;
    for (; kind < KINDS; kind++) {
        if found[kind] != 0u {
            break;
        }
    }
    if kind == KINDS {
        live[0] = count[params.count_base];
        return;
    }
    live[0] = 0u;
    let place = ~found[kind];
    var what = count[params.count_base];
    if kind == 1u || kind == 2u {
        what = ids[params.ids_base + place];
    } else if kind == 3u || kind == 4u {
        what = starts[params.starts_base + place];
    } else if kind == 5u {
        what = positions[params.positions_base + place];
    }
    report[0] = place;
    report[1] = what;
    report[2] = kind;
}
