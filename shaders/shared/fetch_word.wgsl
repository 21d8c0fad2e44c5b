// Stores the word at the position that shared/check_words.wgsl found next to that position. A separate pass, because a
// thread of the check cannot know whether its position is the lowest.

struct FetchWordParams {
    groups: u32,
    grid_width: u32,
    base: u32,
}
@group(0) @binding(0) var<uniform> params: FetchWordParams;

@compute @workgroup_size(1)
fn main() {
    if report[0] != NONE {
        report[1] = words_at(params.base + report[0]);
    }
}
