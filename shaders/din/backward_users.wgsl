// For the kernels of DIN's backward pass that add up what the pieces of a user leave for each candidate.

// The user of a candidate of the part: [first piece, pieces, first candidate, candidates].
fn user_of(m: u32) -> vec4<u32> {
    var low = 0u;
    var high = params.users;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if users[params.first_user + middle].z <= m { low = middle; } else { high = middle; }
    }
    return users[params.first_user + low];
}
