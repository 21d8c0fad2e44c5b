// Approximate peak rates of a device: a copy, and fused multiply-adds.
//
// copy: an invocation moves one vec4. multiply_add: an invocation keeps 8 independent chains of vec4, 512 rounds long;
// `result` takes their sum, so that the compiler cannot remove the work.

@group(0) @binding(0) var<storage, read> origin: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4<f32>>;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
  copied[id.x] = origin[id.x];
}

@group(0) @binding(0) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(64)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
  let factor = vec4<f32>(0.5 + f32(id.x & 1u) * 0.25);
  let term = vec4<f32>(f32(id.x & 7u));
  var sums = array<vec4<f32>, 8>();
  for (var round = 0u; round < 512u; round++) {
    sums[0] = fma(sums[0], factor, term);
    sums[1] = fma(sums[1], factor, term);
    sums[2] = fma(sums[2], factor, term);
    sums[3] = fma(sums[3], factor, term);
    sums[4] = fma(sums[4], factor, term);
    sums[5] = fma(sums[5], factor, term);
    sums[6] = fma(sums[6], factor, term);
    sums[7] = fma(sums[7], factor, term);
  }
  result[id.x] = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}
