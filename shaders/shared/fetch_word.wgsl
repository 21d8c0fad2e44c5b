// Puts the word at the position that shared/check_words.wgsl found beside it: a thread of that kernel cannot know yet
// whether its position is the lowest.

struct Params {
    groups: u32,
    grid_width: u32,
    base: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(1)
fn main() {
    if report[0] != NONE {
        report[1] = words_at(params.base + report[0]);
    }
}
