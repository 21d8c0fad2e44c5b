// For din/attend.wgsl: the hidden layers of the network, for the pairs of one step.

// `vector` is the first of the five vectors of these four units.
fn activate(x: vec4<f32>, activation: u32, vector: u32) -> vec4<f32> {
    if activation == RELU {
        return select(x, vec4<f32>(), x < vec4<f32>());
    }
    if activation == SIGMOID {
        return sigmoid_of(x);
    }
    let alpha = vectors[vector + 3u];
    if activation == PRELU {
        return select(x, alpha * x, x < vec4<f32>());
    }
    let p = sigmoid_of(vectors[vector + 1u] * x + vectors[vector + 2u]);
    return x * (p + alpha * (1.0 - p));
}

// Adds `added` to four units of a layer, activates them, and stores them, or their share of the score.
fn finish_units(sums: Units, added: vec4<f32>, layer: Layer, unit4: u32, lane: u32) {
    let vector = layer.first_vector + 5u * unit4;
    let kind = layer.activation;
    let a0 = activate(sums.a0 + added, kind, vector); let a1 = activate(sums.a1 + added, kind, vector);
    let a2 = activate(sums.a2 + added, kind, vector); let a3 = activate(sums.a3 + added, kind, vector);
    var b0 = vec4<f32>(); var b1 = vec4<f32>(); var b2 = vec4<f32>(); var b3 = vec4<f32>();
    if GROUP4 > 1u {
        b0 = activate(sums.b0 + added, kind, vector); b1 = activate(sums.b1 + added, kind, vector);
        b2 = activate(sums.b2 + added, kind, vector); b3 = activate(sums.b3 + added, kind, vector);
    }
    if layer.index == LAYERS - 1u {
        let weight = vectors[vector + 4u];
        let place = layer.place + (unit4 * LANES + lane) * GROUP4;
        layer_units[place] = vec4<f32>(dot(a0, weight), dot(a1, weight), dot(a2, weight), dot(a3, weight));
        if GROUP4 > 1u {
            layer_units[place + 1u] = vec4<f32>(dot(b0, weight), dot(b1, weight), dot(b2, weight), dot(b3, weight));
        }
        return;
    }
    let place = layer.place + unit4 * BEHAVIOURS + lane;
    layer_units[place] = a0; layer_units[place + LANES] = a1;
    layer_units[place + 2u * LANES] = a2; layer_units[place + 3u * LANES] = a3;
    if GROUP4 > 1u {
        layer_units[place + 4u * LANES] = b0; layer_units[place + 5u * LANES] = b1;
        layer_units[place + 6u * LANES] = b2; layer_units[place + 7u * LANES] = b3;
    }
}

// The first layer, for behaviours from `start` to `end` and candidates from `m` to `last_m`.
fn first_layer(thread: u32, layer: Layer, start: u32, end: u32, m: u32, last_m: u32) {
    let width4 = (params.width + 3u) / 4u;
    for (var job = thread; job < layer.units4 * LANES; job += THREADS) {
        let lane = job % LANES;
        let unit4 = job / LANES;
        // Candidates and behaviours past the end repeat the last one; their scores are not used.
        let constant = min(m + lane / params.candidate_lanes, last_m) * (layer.units4 + width4);
        let query = constant + layer.units4;
        let lanes = params.candidate_lanes;
        let l = vec4<u32>(start + lane % lanes) + lanes * vec4<u32>(0u, 1u, 2u, 3u);
        let last = vec4<u32>(end - 1u);
        let a = params.history_base + (min(l, last) - params.first_history) * params.width;
        let b = params.history_base + (min(l + 4u * lanes, last) - params.first_history) * params.width;
        var block = 2u * unit4 * width4;
        var sums = Units();
        for (var k = 0u; k < width4; k++) {
            let q = targets[query + k];
            let key = blocks[block];
            let product = blocks[block + 1u];
            let w = mat4x4<f32>(
                key[0] + q * product[0], key[1] + q * product[1], key[2] + q * product[2], key[3] + q * product[3]);
            let i = 4u * k;
            let left = params.width - i;
            sums.a0 += history_vec4(a.x + i, left) * w; sums.a1 += history_vec4(a.y + i, left) * w;
            sums.a2 += history_vec4(a.z + i, left) * w; sums.a3 += history_vec4(a.w + i, left) * w;
            if GROUP4 > 1u {
                sums.b0 += history_vec4(b.x + i, left) * w; sums.b1 += history_vec4(b.y + i, left) * w;
                sums.b2 += history_vec4(b.z + i, left) * w; sums.b3 += history_vec4(b.w + i, left) * w;
            }
            block += 2u;
        }
        finish_units(sums, targets[constant + unit4], layer, unit4, lane);
    }
}

// A later layer. Its inputs, `inputs4` vec4s, start at `inputs` in workgroup memory.
fn later_layer(thread: u32, layer: Layer, first_block: u32, inputs: u32, inputs4: u32) {
    for (var job = thread; job < layer.units4 * LANES; job += THREADS) {
        let lane = job % LANES;
        let unit4 = job / LANES;
        var block = first_block + unit4 * inputs4;
        var place = inputs + lane;
        var sums = Units();
        for (var k = 0u; k < inputs4; k++) {
            let w = blocks[block];
            sums.a0 += layer_units[place] * w; sums.a1 += layer_units[place + LANES] * w;
            sums.a2 += layer_units[place + 2u * LANES] * w; sums.a3 += layer_units[place + 3u * LANES] * w;
            if GROUP4 > 1u {
                sums.b0 += layer_units[place + 4u * LANES] * w; sums.b1 += layer_units[place + 5u * LANES] * w;
                sums.b2 += layer_units[place + 6u * LANES] * w; sums.b3 += layer_units[place + 7u * LANES] * w;
            }
            block += 1u;
            place += BEHAVIOURS;
        }
        finish_units(sums, vectors[layer.first_vector + 5u * unit4], layer, unit4, lane);
    }
}
