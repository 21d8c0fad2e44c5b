// Scores a user's behaviours for several candidates, for a search that keeps the best K of each.
//
//     score[m,l] = factor · Σ_f ⟨q[m,f], A_f[ids[l,f]]⟩          q scaled and packed by decoupled/search_queries.wgsl
//
// Table rows are read in place, by id (`key_vec4` of the file that is included before this one). The ids are checked
// on the way: one outside its table counts as a row of zeros, and the lowest position of such an id is reported.
// Pieces, threads and lists: selection/pieces.wgsl.
// Variants: those of the lists; TABLES that are read, where 0 stands for rows that were gathered into table 0
// beforehand: of too many tables, of several storage types, and where lists in the device's memory take a binding.

struct SearchParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    // The history row of the first gathered row.
    first_history: u32,
    ids_base: u32,
    features: u32,
    top_k: u32,
    // The first slot of the tiles with one piece.
    first_whole: u32,
    // vec4s of a packed query.
    width4: u32,
    check_ids: u32,
    // For an 8-bit table.
    scale_base: u32,
    offset_base: u32,
    factor: f32,
    unused1: u32,
    unused2: u32,
    unused3: u32,
    // Of each table: width, rows, first element, first vec4 in the packed query.
    feature0: vec4<u32>,
    feature1: vec4<u32>,
    feature2: vec4<u32>,
}
@group(0) @binding(0) var<uniform> params: SearchParams;

fn id_of(l: u32, feature: u32) -> u32 {
    if TABLES == 0u {
        return l - params.first_history;
    }
    let place = l * params.features + feature;
    let id = ids[params.ids_base + place];
    if params.check_ids == 1u && id >= rows_of(feature) {
        atomicMin(&report[0], place);
    }
    return id;
}

fn rows_of(feature: u32) -> u32 {
    return select(select(params.feature2.y, params.feature1.y, feature == 1u), params.feature0.y, feature == 0u);
}

fn add_feature(before: Scores, feature: u32, shape: vec4<u32>, l: vec4<u32>, tile: u32) -> Scores {
    let wanted = vec4<u32>(id_of(l.x, feature), id_of(l.y, feature), id_of(l.z, feature), id_of(l.w, feature));
    let known = wanted < vec4<u32>(shape.y);
    // For a bad id row 0 is read, and then counts as zeros.
    let id = select(vec4<u32>(), wanted, known);
    let row = shape.z + id * shape.x;
    var matrix = (tile * params.width4 + shape.w) * GROUP4;
    var s = before;
    for (var k = 0u; k < shape.x; k += 4u) {
        let left = shape.x - k;
        let key0 = select(vec4<f32>(), key_vec4(feature, row.x + k, left, id.x), known.x);
        let key1 = select(vec4<f32>(), key_vec4(feature, row.y + k, left, id.y), known.y);
        let key2 = select(vec4<f32>(), key_vec4(feature, row.z + k, left, id.z), known.z);
        let key3 = select(vec4<f32>(), key_vec4(feature, row.w + k, left, id.w), known.w);
        let a = queries[matrix];
        s.a0 += key0 * a; s.a1 += key1 * a; s.a2 += key2 * a; s.a3 += key3 * a;
        if GROUP4 > 1u {
            let b = queries[matrix + 1u];
            s.b0 += key0 * b; s.b1 += key1 * b; s.b2 += key2 * b; s.b3 += key3 * b;
        }
        matrix += GROUP4;
    }
    return s;
}

fn keys_of_rows(row: vec4<u32>, tile: u32) -> Keys {
    var s = add_feature(Scores(), 0u, params.feature0, row, tile);
    if TABLES > 1u { s = add_feature(s, 1u, params.feature1, row, tile); }
    if TABLES > 2u { s = add_feature(s, 2u, params.feature2, row, tile); }
    let f = params.factor;
    s.a0 *= f; s.a1 *= f; s.a2 *= f; s.a3 *= f;
    s.b0 *= f; s.b1 *= f; s.b2 *= f; s.b3 *= f;
    return keys_of(s);
}
