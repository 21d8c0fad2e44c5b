// Merges the statistics of DIN's layers: means, sums of squared distances and counts of up to 64 entries from 64·g on, in order,
// after what is there, of `before` numbers. One thread has four units.
//
// An entry has the means of its units, their sums, and the count: 2·units4 + 1 vec4s, of rows of `stride` where they are read.
// Formula: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1982.

struct DinMomentsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    rows: u32,
    units4: u32,
    stride: u32,
    // The first entry that is written.
    entry: u32,
    // The count of what is there: not read, because one thread writes it.
    before: f32,
}
@group(0) @binding(0) var<uniform> params: DinMomentsParams;

struct Moments {
    mean: vec4<f32>,
    squares: vec4<f32>,
    count: f32,
}

fn merged(a: Moments, b: Moments) -> Moments {
    if a.count == 0.0 {
        return b;
    }
    let count = a.count + b.count;
    let distance = b.mean - a.mean;
    let share = b.count / count;
    return Moments(a.mean + distance * share, a.squares + (b.squares + distance * distance * (a.count * share)), count);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let group = index / params.units4;
    let unit4 = index % params.units4;
    var all = Moments();
    let to = (params.entry + group) * (2u * params.units4 + 1u);
    if params.before > 0.0 {
        all = Moments(moments[to + unit4], moments[to + params.units4 + unit4], params.before);
    }
    for (var row = 64u * group; row < min(64u * group + 64u, params.rows); row++) {
        let at = row * params.stride;
        let mean = parts[at + unit4];
        let squares = parts[at + params.units4 + unit4];
        all = merged(all, Moments(mean, squares, parts[at + 2u * params.units4].x));
    }
    moments[to + unit4] = all.mean;
    moments[to + params.units4 + unit4] = all.squares;
    if unit4 == 0u {
        moments[to + 2u * params.units4] = vec4<f32>(all.count);
    }
}
