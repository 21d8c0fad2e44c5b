// Sums with a weight for each id, and means of the ids that count: for each row of the output, `weights` holds how many, at least 1.

fn weighted(value: vec4<f32>, place: u32) -> vec4<f32> {
    if params.pooling == MEAN {
        return value;
    }
    return weights[params.weights_base + place] * value;
}

fn counted(row: u32, length: u32) -> f32 {
    return weights[params.weights_base + row];
}
