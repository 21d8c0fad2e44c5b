// The order of a selection. An entry is a key, which sorts like the score, and a row of the history. Best first means key
// descending, then row ascending: a total order, so that no result depends on the order in which entries are compared.
//
// The key of a score is its bits, mapped to unsigned integers of the same order. -0 equals +0; NaN has the lowest
// key, 0. An empty place holds key 0 and row NONE, the worst possible entry.

fn key_of(score: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(score);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    let negative = bits >= vec4<u32>(0x80000000u);
    var key = select(bits | vec4<u32>(0x80000000u), ~bits, negative);
    key = select(key, vec4<u32>(0x80000000u), magnitude == vec4<u32>());
    return select(key, vec4<u32>(), magnitude > vec4<u32>(0x7f800000u));
}

// The bits of the score that has this key.
fn score_bits(key: u32) -> u32 {
    if key == 0u {
        return 0x7fc00000u;
    }
    return select(~key, key & 0x7fffffffu, key >= 0x80000000u);
}

fn is_better(key: u32, row: u32, than_key: u32, than_row: u32) -> bool {
    return key > than_key || (key == than_key && row < than_row);
}
