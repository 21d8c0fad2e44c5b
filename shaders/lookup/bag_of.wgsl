// The bag of a row of ids: the last that begins no later, as empty ones come before it. The kernels' parameters have `bags`.

fn bag_of(row: u32) -> u32 {
    var low = 0u;
    var high = params.bags;
    while high - low > 1u {
        let middle = low + (high - low) / 2u;
        if offsets[middle] <= row {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}
