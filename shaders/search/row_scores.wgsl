// Scores of rows of numbers, four behaviours of a thread against all candidates of a tile.
//
// Candidates were packed by search/pack_rows.wgsl, with their factors after them; rows of behaviours are read in place
// (search/numbers.wgsl, search/numbers_int8.wgsl). What a score has besides the product: search/dot.wgsl,
// search/cosine.wgsl. Variants: GROUP4, vec4s of candidates per thread; COSINE; WIDE, for rows of more than 4096 numbers, of which
// products of so many are added up before these sums are, so that rounding errors do not grow with the width.

// What the rows of four behaviours are multiplied with: powers of two with which no square leaves the range of f32, and
// inverse lengths. Both are 0 for a row of zeros, and 1 where a score is a dot product.
struct Scales {
    powers: vec4<f32>,
    factors: vec4<f32>,
}

// The factors of candidates, which follow their rows.
fn factors_at(matrix: u32) -> vec4<f32> {
    let factors = queries[matrix];
    return vec4<f32>(factors[0].x, factors[1].x, factors[2].x, factors[3].x);
}

const BLOCK_COLUMNS: u32 = 4096u;

// The sums of products of columns begin .. end of rows l of the bindings.
fn products_of_rows(l: vec4<u32>, power: vec4<f32>, tile: u32, begin: u32, end: u32) -> Scores {
    let width4 = (params.width + 3u) / 4u;
    var matrix = (tile * (width4 + 1u) + begin / 4u) * GROUP4;
    var s = Scores();
    for (var k = begin; k < end; k += 4u) {
        var key0 = number_vec4(l.x, k);
        var key1 = number_vec4(l.y, k);
        var key2 = number_vec4(l.z, k);
        var key3 = number_vec4(l.w, k);
        if COSINE == 1u {
            key0 *= power.x; key1 *= power.y; key2 *= power.z; key3 *= power.w;
        }
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

// Of rows l of the bindings, whose scales these are.
fn scores_of_rows(l: vec4<u32>, scales: Scales, tile: u32) -> Scores {
    let width4 = (params.width + 3u) / 4u;
    let matrix = (tile * (width4 + 1u) + width4) * GROUP4;
    let factor = scales.factors;
    var s = products_of_rows(l, scales.powers, tile, 0u, select(params.width, BLOCK_COLUMNS, WIDE == 1u));
    if WIDE == 1u {
        for (var begin = BLOCK_COLUMNS; begin < params.width; begin += BLOCK_COLUMNS) {
            let more = products_of_rows(l, scales.powers, tile, begin, min(begin + BLOCK_COLUMNS, params.width));
            s.a0 += more.a0; s.a1 += more.a1; s.a2 += more.a2; s.a3 += more.a3;
            if GROUP4 > 1u {
                s.b0 += more.b0; s.b1 += more.b1; s.b2 += more.b2; s.b3 += more.b3;
            }
        }
    }
    let fa = factors_at(matrix);
    s.a0 = fa * (factor.x * s.a0); s.a1 = fa * (factor.y * s.a1);
    s.a2 = fa * (factor.z * s.a2); s.a3 = fa * (factor.w * s.a3);
    if GROUP4 > 1u {
        let fb = factors_at(matrix + 1u);
        s.b0 = fb * (factor.x * s.b0); s.b1 = fb * (factor.y * s.b1);
        s.b2 = fb * (factor.z * s.b2); s.b3 = fb * (factor.w * s.b3);
    }
    s.a0 = added(s.a0, l.x); s.a1 = added(s.a1, l.y); s.a2 = added(s.a2, l.z); s.a3 = added(s.a3, l.w);
    if GROUP4 > 1u {
        s.b0 = added(s.b0, l.x); s.b1 = added(s.b1, l.y); s.b2 = added(s.b2, l.z); s.b3 = added(s.b3, l.w);
    }
    return s;
}
