// For target_attention/attend.wgsl: each thread loads all queries and weights that it needs. Runs on every device.

// The queries of a thread's rows for one vec4 of the width: a for rows 0..3, b for rows 4..7.
struct QueryBlock { a: mat4x4<f32>, b: mat4x4<f32> }

// The weights of 4 behaviours for a thread's rows.
struct WeightBlock {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    attend(id, thread);
}

fn query_block(place: u32, thread: u32) -> QueryBlock {
    var block: QueryBlock;
    block.a = mat4x4<f32>(queries[place], queries[place + 1u], queries[place + 2u], queries[place + 3u]);
    if GROUP4 > 1u {
        block.b = mat4x4<f32>(queries[place + 4u], queries[place + 5u], queries[place + 6u], queries[place + 7u]);
    }
    return block;
}

fn weight_block(place: u32, next: u32, thread: u32) -> WeightBlock {
    var block: WeightBlock;
    block.a0 = tile_weights[place];
    block.a1 = tile_weights[place + next];
    block.a2 = tile_weights[place + 2u * next];
    block.a3 = tile_weights[place + 3u * next];
    if GROUP4 > 1u {
        block.b0 = tile_weights[place + 1u];
        block.b1 = tile_weights[place + next + 1u];
        block.b2 = tile_weights[place + 2u * next + 1u];
        block.b3 = tile_weights[place + 3u * next + 1u];
    }
    return block;
}

// Raises the maxima of rows r.. to the highest scores of a thread.
fn raise_max(r: u32, a: vec4<f32>, b: vec4<f32>, thread: u32) {
    for (var i = 0u; i < 4u; i++) {
        atomicMax(&tile_max[r + i], ordered(a[i]));
        if GROUP4 > 1u {
            atomicMax(&tile_max[r + 4u + i], ordered(b[i]));
        }
    }
}
