// For the kernels of DIN's backward pass: how the pairs of a part are arranged (src/gpu/din.rs).
//
// A piece is some candidates of a user against up to 256 of their behaviours: [first behaviour, behaviours, first candidate,
// candidates], [first run, first tile, first block, whether the span is the first of the history]. A tile is one candidate against
// 16 behaviours of a piece, a run one candidate against all behaviours of a piece, a block 16 behaviours of a piece.

// Behaviours of a tile, in vec4s.
const ROWS4: u32 = 4u;
// Words of a piece that hold its first run, tile and block.
const RUN: u32 = 0u;
const TILE: u32 = 1u;
const BLOCK: u32 = 2u;

// Behaviours and candidates of a piece of the part: [first behaviour, behaviours, first candidate, candidates].
fn rows_of_piece(i: u32) -> vec4<u32> {
    return pieces[2u * (params.first_piece + i)];
}

// Its first run, tile and block, and whether its span is the first of the history.
fn places_of_piece(i: u32) -> vec4<u32> {
    return pieces[2u * (params.first_piece + i) + 1u];
}

// The last piece whose first run, tile or block is not after `index`: the one that has it, as those without any are before it.
fn piece_of(index: u32, kind: u32) -> u32 {
    var low = 0u;
    var high = params.pieces;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if places_of_piece(middle)[kind] <= index { low = middle; } else { high = middle; }
    }
    return low;
}

// Tiles of a run.
fn tiles_per_run(piece: vec4<u32>) -> u32 {
    return (piece.y + 15u) / 16u;
}
