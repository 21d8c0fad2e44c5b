// For target_attention/attend.wgsl: queries and weights that the four threads of a quad share are loaded once and
// exchanged in registers. Needs the feature `subgroups`; the size of a subgroup does not matter.
//
// The threads of a quad have the same rows, so each loads a quarter of the queries and of the weights: 6 vec4 loads
// per 128 multiply-adds, where target_attention/blocks_alone.wgsl has 12, and a quarter of the atomics, in exchange
// for 32 broadcasts. On lavapipe broadcasts cost almost nothing. On NVIDIA a broadcast costs about as much as a load
// from workgroup memory, so that 32 of them outweigh the 6 loads saved; the backend uses
// target_attention/blocks_alone.wgsl there. This follows from the counts; it has not been measured.

// The queries of a thread's rows for one vec4 of the width: a for rows 0..3, b for rows 4..7.
struct QueryBlock { a: mat4x4<f32>, b: mat4x4<f32> }

// The weights of 4 behaviours for a thread's rows.
struct WeightBlock {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

// Threads are numbered by subgroup and lane: WGSL does not guarantee that local_invocation_index follows the lanes.
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    attend(id, subgroup * size + lane);
}

fn query_block(place: u32, thread: u32) -> QueryBlock {
    let a = queries[place + thread % 4u];
    var block: QueryBlock;
    block.a = mat4x4<f32>(quadBroadcast(a, 0u), quadBroadcast(a, 1u), quadBroadcast(a, 2u), quadBroadcast(a, 3u));
    if GROUP4 > 1u {
        let b = queries[place + 4u + thread % 4u];
        block.b = mat4x4<f32>(quadBroadcast(b, 0u), quadBroadcast(b, 1u), quadBroadcast(b, 2u), quadBroadcast(b, 3u));
    }
    return block;
}

fn weight_block(place: u32, next: u32, thread: u32) -> WeightBlock {
    let a = tile_weights[place + thread % 4u * next];
    var block: WeightBlock;
    block.a0 = quadBroadcast(a, 0u);
    block.a1 = quadBroadcast(a, 1u);
    block.a2 = quadBroadcast(a, 2u);
    block.a3 = quadBroadcast(a, 3u);
    if GROUP4 > 1u {
        let b = tile_weights[place + thread % 4u * next + 1u];
        block.b0 = quadBroadcast(b, 0u);
        block.b1 = quadBroadcast(b, 1u);
        block.b2 = quadBroadcast(b, 2u);
        block.b3 = quadBroadcast(b, 3u);
    }
    return block;
}

fn quad_max(x: vec4<f32>) -> vec4<f32> {
    let pair = max(x, quadSwapX(x));
    return max(pair, quadSwapY(pair));
}

// Raises the maxima of rows r.. to the highest scores of the quad; each thread updates one row of each vec4.
fn raise_max(r: u32, a: vec4<f32>, b: vec4<f32>, thread: u32) {
    let own = thread % 4u;
    atomicMax(&tile_max[r + own], ordered(quad_max(a)[own]));
    if GROUP4 > 1u {
        atomicMax(&tile_max[r + 4u + own], ordered(quad_max(b)[own]));
    }
}
