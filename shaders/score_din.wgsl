// Scores for attend.wgsl: DIN's small network over a candidate q and a behaviour s, with the first layer folded.
//
//     y1 = f((Wq + Wd) q + b + (Wk − Wd) s + Wp (q ⊙ s))        a = w · f(W3 f(W2 y1 + b2) + b3) + b
//
// The first two terms of y1 come ready, one row a candidate and one a behaviour (din_project.wgsl): a pair costs d·h
// products instead of 4·d·h. A thread evaluates one pair at a time, four units at a time; the hidden layers stay in
// its private memory. All matrices are f32, rows padded to whole fours with zeros: padded units are multiplied by
// zeros. Hidden layers have at most 256 units.

struct Params {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    kv_heads: u32,
    value_width: u32,
    value_stride: u32,
    first_column: u32,
    value_columns: u32,
    first_history: u32,
    values_base: u32,
    out_base: u32,
    lse_base: u32,
    first_stats: u32,
    divisor: f32,
    tile: u32,
    columns: u32,
    weighting: u32,
    has_lse: u32,
    width: u32,
    layers: u32,
    // Fours of units of each layer.
    units1: u32, units2: u32, units3: u32,
    // What comes behind each layer.
    activation1: u32, activation2: u32, activation3: u32,
    // Where in `network`, in fours: the matrix, the bias and the three vectors of the activation.
    weight1: u32, weight2: u32, weight3: u32,
    bias2: u32, bias3: u32,
    vectors1: u32, vectors2: u32, vectors3: u32,
    output_weight: u32,
    output_bias: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

const SIGMOID: u32 = 1u;
const PRELU: u32 = 2u;
const DICE: u32 = 3u;

var<private> odd_layer: array<vec4<f32>, 64>;
var<private> even_layer: array<vec4<f32>, 64>;

fn output_row(rows: vec4<u32>, kv_head: u32, r: u32) -> u32 {
    return rows.x + rows.y + r;
}

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp_of(clamp(-x, vec4<f32>(-80.0), vec4<f32>(80.0))));
}

// `vectors`: gain, shift and alpha, `units` fours each.
fn activate(kind: u32, x: vec4<f32>, vectors: u32, unit: u32, units: u32) -> vec4<f32> {
    if kind == SIGMOID {
        return sigmoid(x);
    }
    if kind == PRELU {
        return max(x, vec4<f32>()) + network[vectors + 2u * units + unit] * min(x, vec4<f32>());
    }
    if kind == DICE {
        let p = sigmoid(network[vectors + unit] * x + network[vectors + units + unit]);
        return x * (p + network[vectors + 2u * units + unit] * (1.0 - p));
    }
    return max(x, vec4<f32>());
}

// Four rows of a matrix from `place` on, `stride` fours a row, as the columns of a matrix to multiply from the left.
fn rows_of(place: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        network[place], network[place + stride], network[place + 2u * stride], network[place + 3u * stride]);
}

fn pair(l: u32, m: u32) -> f32 {
    let width4 = (params.width + 3u) / 4u;
    let wished = m * (params.units1 + width4);
    let behaviour = params.values_base + (l - params.first_history) * params.value_stride;
    for (var u = 0u; u < params.units1; u++) {
        var sum = target_rows[wished + u] + behaviour_rows[l * params.units1 + u];
        for (var k = 0u; k < width4; k++) {
            let s = values_four(behaviour + 4u * k, params.width - 4u * k);
            let product = target_rows[wished + params.units1 + k] * s;
            sum += product * rows_of(params.weight1 + 4u * u * width4 + k, width4);
        }
        odd_layer[u] = activate(params.activation1, sum, params.vectors1, u, params.units1);
    }
    var score = network[params.output_bias].x;
    if params.layers == 1u {
        for (var u = 0u; u < params.units1; u++) {
            score += dot(odd_layer[u], network[params.output_weight + u]);
        }
        return score;
    }
    for (var u = 0u; u < params.units2; u++) {
        var sum = network[params.bias2 + u];
        for (var k = 0u; k < params.units1; k++) {
            sum += odd_layer[k] * rows_of(params.weight2 + 4u * u * params.units1 + k, params.units1);
        }
        even_layer[u] = activate(params.activation2, sum, params.vectors2, u, params.units2);
    }
    if params.layers == 2u {
        for (var u = 0u; u < params.units2; u++) {
            score += dot(even_layer[u], network[params.output_weight + u]);
        }
        return score;
    }
    for (var u = 0u; u < params.units3; u++) {
        var sum = network[params.bias3 + u];
        for (var k = 0u; k < params.units2; k++) {
            sum += even_layer[k] * rows_of(params.weight3 + 4u * u * params.units2 + k, params.units2);
        }
        let y = activate(params.activation3, sum, params.vectors3, u, params.units3);
        score += dot(y, network[params.output_weight + u]);
    }
    return score;
}

fn score(l: vec4<u32>, row_group: u32, rows: vec4<u32>, kv_head: u32) -> Scores {
    let first = row_group * 4u * GROUP4;
    var found: array<vec4<f32>, 8>;
    for (var e = 0u; e < 4u * GROUP4; e++) {
        let r = first + e;
        if r < rows.z {
            for (var i = 0u; i < 4u; i++) {
                found[(e / 4u) * 4u + i][e % 4u] = pair(l[i], rows.x + rows.y + r);
            }
        }
    }
    return Scores(found[0], found[1], found[2], found[3], found[4], found[5], found[6], found[7]);
}
