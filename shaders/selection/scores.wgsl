// What a thread scores at a time: 4 behaviours (0..3) for candidates 0..3 (a) and 4..7 (b).
struct Scores {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}
