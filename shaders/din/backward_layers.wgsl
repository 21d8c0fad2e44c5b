// For din/backward_pairs.wgsl: the layers of the network, forwards and backwards, for the 16 pairs of a tile.
//
// A thread has four units and four pairs; numbers of a tile have a row for each unit, of four vec4s.

const RELU: u32 = 0u;
const SIGMOID: u32 = 1u;
const PRELU: u32 = 2u;

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(EXPONENT);
}

// One of the five vectors of a layer, for a unit: bias, gain, shift, alpha, output weight.
fn vector_of(layer: vec4<u32>, units4: u32, vector: u32, unit: u32) -> f32 {
    return network[layer.w + vector * units4 + unit / 4u][unit % 4u];
}

fn activate(x: vec4<f32>, layer: vec4<u32>, units4: u32, unit: u32) -> vec4<f32> {
    if layer.y == RELU {
        return select(x, vec4<f32>(), x < vec4<f32>());
    }
    if layer.y == SIGMOID {
        return sigmoid_of(x);
    }
    let alpha = vector_of(layer, units4, 3u, unit);
    if layer.y == PRELU {
        return select(x, alpha * x, x < vec4<f32>());
    }
    let p = sigmoid_of(vector_of(layer, units4, 1u, unit) * x + vector_of(layer, units4, 2u, unit));
    return x * (p + alpha * (1.0 - p));
}

// The gradients of one unit from that of its output, `dx`: before the activation, and the sums over the four pairs of those of bias,
// alpha, gain and shift.
struct UnitGradients {
    dy: vec4<f32>,
    sums: vec4<f32>,
}

fn activate_backward(y: vec4<f32>, dx: vec4<f32>, layer: vec4<u32>, units4: u32, unit: u32) -> UnitGradients {
    let ones = vec4<f32>(1.0);
    var slope = vec4<f32>();
    var sums = vec4<f32>();
    if layer.y == RELU {
        slope = select(select(vec4<f32>(), ones, y > vec4<f32>()), y, is_nan(y));
    } else if layer.y == SIGMOID {
        slope = sigmoid_of(y) * sigmoid_of(-y);
    } else {
        let alpha = vector_of(layer, units4, 3u, unit);
        if layer.y == PRELU {
            slope = select(select(vec4<f32>(alpha), ones, y > vec4<f32>()), y, is_nan(y));
            sums.y = dot(dx, select(y, vec4<f32>(), y > vec4<f32>()));
        } else {
            let gain = vector_of(layer, units4, 1u, unit);
            let z = gain * y + vector_of(layer, units4, 2u, unit);
            let p = sigmoid_of(z);
            let rest = sigmoid_of(-z);
            let r = p * rest * (1.0 - alpha);
            slope = p + alpha * rest + y * r * gain;
            sums.y = dot(dx, y * rest);
            // In this order, because y² may be infinite where r is 0.
            sums.z = dot(dx, y * (y * r));
            sums.w = dot(dx, y * r);
        }
    }
    let dy = dx * slope;
    sums.x = dot(dy, ones);
    return UnitGradients(dy, sums);
}

// Stores four units of a layer before and after the activation; those past the end are 0.
fn finish_units(sums: mat4x4<f32>, layer: vec4<u32>, place: vec4<u32>, unit4: u32, quad: u32) {
    for (var i = 0u; i < 4u; i++) {
        let unit = 4u * unit4 + i;
        var y = vec4<f32>();
        var x = vec4<f32>();
        if unit < layer.x {
            y = sums[i];
            x = activate(y, layer, place.w, unit);
        }
        work[place.x + ROWS4 * unit + quad] = y;
        work[place.y + ROWS4 * unit + quad] = x;
    }
}

// The first layer, of the behaviours at `tile` and a candidate's row and term at `candidate`.
fn first_layer(thread: u32, tile: u32, candidate: u32, layer: vec4<u32>, place: vec4<u32>) {
    let quad = thread % ROWS4;
    let width4 = (params.width + 3u) / 4u;
    let size = 4u * width4 * place.w;
    for (var unit4 = thread / ROWS4; unit4 < place.w; unit4 += 16u) {
        let own = candidates[candidate + 2u * width4 + unit4];
        let zero = vec4<f32>();
        var sums = mat4x4<f32>(zero + own.x, zero + own.y, zero + own.z, zero + own.w);
        for (var k4 = 0u; k4 < width4; k4++) {
            let q = candidates[candidate + k4];
            for (var i = 0u; i < 4u; i++) {
                let k = 4u * k4 + i;
                let at = layer.z + k * place.w + unit4;
                let w = network[at] + q[i] * network[at + size];
                let s = work[tile + ROWS4 * k + quad];
                sums[0] += w.x * s; sums[1] += w.y * s; sums[2] += w.z * s; sums[3] += w.w * s;
            }
        }
        finish_units(sums, layer, place, unit4, quad);
    }
}

// A later layer, of `inputs4` vec4s of inputs at `inputs`.
fn later_layer(thread: u32, inputs: u32, inputs4: u32, layer: vec4<u32>, place: vec4<u32>) {
    let quad = thread % ROWS4;
    for (var unit4 = thread / ROWS4; unit4 < place.w; unit4 += 16u) {
        let bias = network[layer.w + unit4];
        let zero = vec4<f32>();
        var sums = mat4x4<f32>(zero + bias.x, zero + bias.y, zero + bias.z, zero + bias.w);
        for (var k = 0u; k < 4u * inputs4; k++) {
            let w = network[layer.z + k * place.w + unit4];
            let x = work[inputs + ROWS4 * k + quad];
            sums[0] += w.x * x; sums[1] += w.y * x; sums[2] += w.z * x; sums[3] += w.w * x;
        }
        finish_units(sums, layer, place, unit4, quad);
    }
}

// The gradients of four units of a layer after its activation, from those of the next layer before its own.
fn through_next(unit4: u32, quad: u32, next: vec4<u32>, next_place: vec4<u32>, units4: u32) -> mat4x4<f32> {
    var sums = mat4x4<f32>();
    let weights = next.z + 4u * units4 * next_place.w;
    for (var v = 0u; v < next.x; v++) {
        let w = network[weights + v * units4 + unit4];
        let dy = work[next_place.x + ROWS4 * v + quad];
        sums[0] += w.x * dy; sums[1] += w.y * dy; sums[2] += w.z * dy; sums[3] += w.w * dy;
    }
    return sums;
}
