// Lays out one hidden layer of DIN's network for the backward pass, widened to f32 and padded with zeros to whole vec4s.
//
//     W₁·[q ; s ; q − s ; q ⊙ s] = (W_q + W_d)·q + ((W_k − W_d) + W_p·diag(q))·s
//
// The first layer stores W_k − W_d, W_p and W_q + W_d with a row for each input, then with a row for each unit; the others store
// their weight in both ways. One thread stores one weight. The first threads also store what each unit has besides its weights:
// bias, gain, shift, alpha, output weight.

struct DinBackwardFoldParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // The units and inputs of this layer; the weights of a first layer have four columns per input.
    units: u32,
    inputs: u32,
    is_first: u32,
    is_last: u32,
    activation: u32,
    weight_base: u32,
    bias_base: u32,
    gain_base: u32,
    shift_base: u32,
    alpha_base: u32,
    // 0 if all units share one alpha, otherwise 1.
    alpha_stride: u32,
    output_base: u32,
    output_bias_base: u32,
    // Places in the network, in numbers.
    weights: u32,
    vectors: u32,
    output_bias_place: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardFoldParams;

const PRELU: u32 = 2u;
const DICE: u32 = 3u;

fn write_vectors(unit: u32, padded: u32) {
    let place = params.vectors + unit;
    let live = unit < params.units;
    var values = array<f32, 5>(0.0, 0.0, 0.0, 0.0, 0.0);
    if live {
        values[0] = bias[params.bias_base + unit];
        if params.activation == DICE {
            values[1] = gain[params.gain_base + unit];
            values[2] = shift[params.shift_base + unit];
        }
        if params.activation >= PRELU {
            values[3] = alpha[params.alpha_base + unit * params.alpha_stride];
        }
        if params.is_last == 1u {
            values[4] = output_weight_at(params.output_base + unit);
        }
    }
    for (var i = 0u; i < 5u; i++) {
        network[place + i * padded] = values[i];
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let inputs = (params.inputs + 3u) / 4u * 4u;
    let units = (params.units + 3u) / 4u * 4u;
    if index < units {
        write_vectors(index, units);
    }
    if index == 0u && params.is_last == 1u {
        network[params.output_bias_place] = output_bias_at(params.output_bias_base);
    }
    let unit = index / inputs;
    let k = index % inputs;
    let live = unit < params.units && k < params.inputs;
    // Where the number is in a matrix with a row for each input, and for each unit.
    let by_input = params.weights + k * units + unit;
    let by_unit = params.weights + unit * inputs + k;
    let size = inputs * units;
    if params.is_first == 0u {
        var value = 0.0;
        if live {
            value = weight_at(params.weight_base + unit * params.inputs + k);
        }
        network[by_input] = value;
        network[by_unit + size] = value;
        return;
    }
    var query = 0.0;
    var key = 0.0;
    var product = 0.0;
    if live {
        let place = params.weight_base + unit * 4u * params.inputs + k;
        let difference = weight_at(place + 2u * params.inputs);
        query = weight_at(place) + difference;
        key = weight_at(place + params.inputs) - difference;
        product = weight_at(place + 3u * params.inputs);
    }
    network[by_input] = key;
    network[by_input + size] = product;
    network[by_input + 2u * size] = query;
    network[by_unit + 3u * size] = key;
    network[by_unit + 4u * size] = product;
    network[by_unit + 5u * size] = query;
}
