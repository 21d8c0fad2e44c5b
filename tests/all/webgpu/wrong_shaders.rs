//! Shaders that are wrong on purpose: each has one edit, and fails the check that the shipped one passes. Every kernel has at least one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use longseq::*;
use longseq_check::data::Data;
use longseq_check::decoupled::{DecoupledCase, check_scales_near_the_limits};
use longseq_check::device::TestDevice;
use longseq_check::device::webgpu::{device, options};
use longseq_check::din::DinCase;
use longseq_check::lookup::{LookupCase, Pool, Storage};
use longseq_check::sdim::SdimCase;
use longseq_check::target_attention::{
    AttentionBackwardCase, AttentionCase, Bias, MergeBackwardCase, MergeCase,
};
use longseq_check::{AnyCase, Failure, check, sample};

/// A check on a device.
type Passes = dyn Fn(&Wgpu) -> Result<(), Failure>;

/// A kernel in whose text `right` is replaced by `wrong`, and the check that must pass with `right` and fail with `wrong`.
pub(super) struct Twin {
    kernel: &'static str,
    right: &'static str,
    wrong: &'static str,
    passes: Box<Passes>,
}

pub(super) fn twin<'a, C>(case: &'a C, kernel: &'static str, right: &'static str, wrong: &'static str) -> Twin
where
    AnyCase: From<&'a C>,
{
    let case = AnyCase::from(case);
    Twin { kernel, right, wrong, passes: Box::new(move |gpu| gpu.check_case(&case)) }
}

/// The same with a check that is no case.
pub(super) fn twin_that(
    passes: fn(&Wgpu) -> Result<(), Failure>,
    kernel: &'static str,
    right: &'static str,
    wrong: &'static str,
) -> Twin {
    Twin { kernel, right, wrong, passes: Box::new(passes) }
}

/// The same for a kernel that finds errors in the caller's data.
pub(super) fn twin_of_check(
    expected: &'static str,
    fault: fn(&Wgpu) -> Result<()>,
    kernel: &'static str,
    right: &'static str,
    wrong: &'static str,
) -> Twin {
    let passes = move |gpu: &Wgpu| match fault(gpu) {
        Err(error) if error.to_string() == expected => Ok(()),
        other => Err(Failure::new(format!("expected {expected:?}, got {other:?}"))),
    };
    Twin { kernel, right, wrong, passes: Box::new(passes) }
}

/// How often a wrong shader may pass before it counts as not caught.
const TRIES: usize = 4;

impl Twin {
    /// The first, and a sample of the others.
    pub(super) fn assert_caught<'a>(twins: impl IntoIterator<Item = &'a Self>) {
        let Some(gpu) = device() else { return };
        let runs =
            |(i, twin): &(usize, &Self)| *i == 0 || sample::has(&(twin.kernel, twin.right, twin.wrong));
        twins.into_iter().enumerate().filter(runs).for_each(|(_, twin)| twin.assert_caught_on(&gpu));
    }

    fn assert_caught_on(&self, gpu: &Wgpu) {
        let Self { kernel, right, wrong, passes } = self;
        if let Err(failure) = passes(gpu) {
            panic!("{kernel} as it is: {failure}");
        }
        let found = Arc::new(AtomicUsize::new(0));
        let (count, kernel, right, wrong) = (found.clone(), *kernel, *right, *wrong);
        let edit = move |name: &str, text: String| {
            if name == kernel && text.contains(right) {
                count.fetch_add(1, Ordering::Relaxed);
                return text.replace(right, wrong);
            }
            text
        };
        let (device, queue) = (gpu.wgpu_device().clone(), gpu.wgpu_queue().clone());
        let broken = Wgpu::with_edited_shaders(device, queue, edit).expect("a working device");
        // A fault that is a race may be right by luck, where memory still holds what the right shader wrote there.
        let failure = (0..TRIES).find_map(|_| passes(&broken).err());
        assert!(found.load(Ordering::Relaxed) > 0, "{kernel} has no {right:?}, or did not run");
        let failure = failure.unwrap_or_else(|| panic!("{kernel} with {wrong:?} passed")).to_string();
        assert!(!failure.contains("the device reports"), "{failure}");
    }
}

fn attention() -> Vec<Twin> {
    let long = AttentionCase { histories: vec![3000, 70], targets: vec![3, 2], ..Default::default() };
    let half = AttentionCase { dtype: DType::F16, value_width: Some(5), ..Default::default() };
    let merge = MergeCase::default();
    vec![
        // One behaviour too many.
        twin(
            &long,
            "target_attention/attend",
            "let live = l < vec4<u32>(end);",
            "let live = l < vec4<u32>(end + 1u);",
        ),
        // Pieces combined without regard to their maxima.
        twin(&long, "target_attention/combine", "return exp_one(", "return 1.0 + 0.0 * exp_one("),
        // The tile of the wrong candidates.
        twin(&long, "target_attention/pack_queries", "let row = rows.y + r;", "let row = rows.y + (r ^ 1u);"),
        twin(&merge, "target_attention/merge", "weight_a / weight_sum", "weight_a / 2.0"),
        // The two halves of a word swapped; a neighbour's words overwritten.
        twin(
            &half,
            "shared/pack_output",
            "source[element - params.base]",
            "source[(element - params.base) ^ 1u]",
        ),
        twin(&half, "shared/pack_output", "element - params.base < params.length", "element >= params.base"),
    ]
}

/// Values that neighbouring threads share, loaded by each of them or broadcast within a quad. Mutations: weights of the wrong
/// behaviour, and maxima written to the wrong place.
fn shared_blocks(quads: bool) -> [Twin; 2] {
    let long = AttentionCase { histories: vec![3000, 70], targets: vec![3, 2], ..Default::default() };
    let edits = match quads {
        true => [("block.a3 = quadBroadcast(a, 3u)", "block.a3 = quadBroadcast(a, 2u)"), ("r + own]", "0u]")],
        false => [("tile_weights[place + next];", "tile_weights[place];"), ("r + i]", "0u]")],
    };
    edits.map(|(right, wrong)| twin(&long, "target_attention/attend", right, wrong))
}

/// Gradients of a forward pass with a bias, a gradient of `lse`, and heads that share keys.
fn gradients_of(forward: AttentionCase) -> AttentionBackwardCase {
    let (heads, kv_heads, bias) = (2, 1, Bias::Normal);
    let forward = AttentionCase { heads, kv_heads, bias, ..forward };
    AttentionBackwardCase { forward, with_grad_lse: true, ..Default::default() }
}

fn histories() -> AttentionCase {
    AttentionCase { histories: vec![300, 70, 9], targets: vec![9, 2, 0], ..Default::default() }
}

fn attention_gradients() -> Vec<Twin> {
    let long = gradients_of(histories());
    let silu = AttentionCase { weighting: Weighting::silu(8.0), ..histories() };
    let silu = AttentionBackwardCase { with_grad_lse: false, ..gradients_of(silu) };
    let aliased = gradients_of(AttentionCase { value_width: None, ..histories() });
    let of = |case: &AttentionBackwardCase, right: &'static str, wrong: &'static str| {
        twin(case, "target_attention/backward", right, wrong)
    };
    vec![
        // One behaviour too many; a term of the softmax Jacobian dropped; a wrong derivative.
        of(&long, "let live = l <= vec4<u32>(place.last);", "let live = l <= vec4<u32>(place.last + 1u);"),
        of(&long, "weight * (product - subtracted)", "weight * product"),
        of(&silu, "(1.0 + score * sigmoid_of(-score))", "1.0"),
        // Later tiles overwrite the first; later blocks overwrite the first; the gradients of two heads swapped.
        of(&long, "place.is_first_tile = tile == 0u;", "place.is_first_tile = true;"),
        of(&long, "place.is_first_block = start == span.x;", "place.is_first_block = true;"),
        of(
            &long,
            "row * params.group_heads + head;",
            "row * params.group_heads + params.group_heads - 1u - head;",
        ),
        // The gradients of the keys as values overwritten by those of the keys as keys.
        of(&aliased, "|| params.aliased == 1u;", ";"),
        // Users without candidates left out; a neighbour's sum; a neighbour's weight.
        of(&long, "write_zeros(span.x, span.y, kv_head, thread);", ""),
        of(&long, "3u * next, sums.s3, left, adds)", "3u * next, sums.s2, left, adds)"),
        of(&long, "sums.s5 += m * tile_values[place + 5u * rows4];", "sums.s5 += m * tile_values[place];"),
        of(&long, "let b3 = tile_values[own + 3u * rows4 + 1u];", "let b3 = tile_values[own + 1u];"),
        of(&long, "params.query_factor * sum", "sum"),
    ]
}

fn attention_gradients_of_rows() -> Vec<Twin> {
    let long = gradients_of(histories());
    // The lowest number as a mask, and queries of zeros: the bias is all there is of the scores.
    let coarse =
        AttentionCase { bias: Bias::All(f32::MIN), inputs: [Some(Data::Zeros), None, None], ..histories() };
    let coarse = AttentionBackwardCase { forward: coarse, ..Default::default() };
    let merge = MergeBackwardCase::default();
    let of_merge = |right: &'static str, wrong: &'static str| {
        let case = merge.clone();
        let passes = Box::new(move |gpu: &Wgpu| check(&case, gpu, gpu.rules()));
        Twin { kernel: "target_attention/merge_backward", right, wrong, passes }
    };
    let rows = "target_attention/backward_rows";
    vec![
        twin(&long, rows, "subtracted -= grad_lse_at(", "subtracted += grad_lse_at("),
        twin(&long, rows, "subtracted += dot(", "subtracted = dot("),
        // Weights from a coarse log-sum-exp; every other behaviour left out; the last part left out.
        twin(&coarse, rows, "magnitude > 0x43800000u &&", "magnitude > EXPONENT &&"),
        twin(&coarse, "target_attention/backward_states", "; l += THREADS", "; l += 2u * THREADS"),
        twin(
            &long,
            "target_attention/backward_queries",
            "p < min(begin + 32u, count)",
            "p + 1u < min(begin + 32u, count)",
        ),
        of_merge("weight * (product * difference(", "(product * difference("),
        of_merge("bitcast<u32>(weight * grad_out_at(", "bitcast<u32>(0.5 * grad_out_at("),
    ]
}

fn din() -> Vec<Twin> {
    let case = DinCase::default();
    let deep =
        DinCase { histories: vec![37, 90], targets: vec![3, 5], hidden: vec![20, 12], ..Default::default() };
    let short = DinCase { histories: vec![8, 5], targets: vec![4, 3], ..Default::default() };
    // Two steps, which are not worth two pieces.
    let softmax = DinCase { histories: vec![37, 60], pooling: DinPooling::Softmax, ..deep.clone() };
    vec![
        twin(&case, "din/targets", "result += q *", "result -= q *"),
        twin(&case, "din/attend", "vec4<f32>(output_bias_at(params.output_bias_base))", "vec4<f32>(0.0)"),
        twin(&case, "din/fold", "bias_vec4[i] = bias[", "bias_vec4[i] = -bias["),
        // The next user's behaviours included; the register of another behaviour; the bias of another layer.
        twin(&deep, "din/attend", "let count = min(end - start, step);", "let count = step;"),
        twin(
            &deep,
            "din/attend",
            "sums.b2 += layer_units[place + 6u * LANES] * w",
            "sums.b2 += layer_units[place + 5u * LANES] * w",
        ),
        twin(&deep, "din/attend", "vectors[layer.first_vector + 5u * unit4]", "vectors[5u * unit4]"),
        // Adjacent candidates all replaced by the first of them.
        twin(&short, "din/attend", "min(m + lane / params.candidate_lanes, last_m)", "min(m, last_m)"),
        // Sums not rescaled when the maximum grows.
        twin(&softmax, "din/attend", "= rescale_of(vec4<f32>(old_max), vec4<f32>(row_max)).x", "= 1.0"),
    ]
}

fn sdim() -> Vec<Twin> {
    let case = SdimCase { histories: vec![2000, 5], targets: vec![3, 2], ..Default::default() };
    let large = SdimCase { histories: vec![3000], targets: vec![2], bits: 6, groups: 2, ..case.clone() };
    let sparse = SdimCase { bits: 12, groups: 2, ..case.clone() };
    let expected = "sdim_query: signatures[1] is 9, which must be below 8";
    vec![
        twin(&case, "sdim/signatures", "sum > vec4<f32>()", "sum < vec4<f32>()"),
        twin(&case, "sdim/encode", "l < end; l++", "l + 1u < end; l++"),
        // Every piece of a history added to the table of the next piece.
        twin(&large, "sdim/encode", "select(slot, span.z, is_piece)", "select(slot, span.z + 1u, is_piece)"),
        twin(&case, "sdim/combine_tables", "i < min(first + 32u,", "i + 1u < min(first + 32u,"),
        twin(&case, "sdim/query", "sum / f32(params.hash_groups)", "sum"),
        twin(&sparse, "sdim/attend", "code + g) ==", "code) =="),
        // The last error reported instead of the first; the first word instead of the wrong one.
        twin_of_check(expected, too_large_a_signature, "shared/check_words", "atomicMin(", "atomicMax("),
        twin_of_check(
            expected,
            too_large_a_signature,
            "shared/fetch_word",
            "params.base + report[0]",
            "params.base",
        ),
    ]
}

/// Signatures of three bits, the second and the third too large.
fn too_large_a_signature(gpu: &Wgpu) -> Result<()> {
    let op = Sdim::new(4).with_groups(2, 3);
    let one = Jagged::from_lengths(&[2])?;
    let table = gpu.zeros::<f32>(op.table_length(1)?)?;
    let signatures = gpu.upload(&[7u8, 9, 10, 0])?;
    let hash = Hash::Signatures8(gpu.view(&signatures));
    let inputs = SdimQueryInputs::<_, f32>::new(gpu.view(&table), hash);
    gpu.sdim_query(&op, &gpu.jagged(&one)?, inputs)?;
    gpu.synchronize()
}

fn look_ups() -> Vec<Twin> {
    let lookup = LookupCase { pool: Pool::Mean, ..Default::default() };
    let long_bags = LookupCase { bags: vec![700, 3], ..lookup.clone() };
    vec![
        // The last part of a long bag left out.
        twin(&long_bags, "shared/sum_parts", "p < min(begin + 32u,", "p + 1u < min(begin + 32u,"),
        twin(&lookup, "lookup/gather", "params.pooling == MEAN", "params.pooling > MEAN"),
        twin_of_check(
            "lookup: ids[1] is 3, which must be below 3",
            |gpu| {
                let (table, ids) = (gpu.zeros::<f32>(6)?, gpu.upload(&[0u32, 3, 4])?);
                let tables = [Table::new(3, 2, TableData::F32(gpu.view(&table)))];
                let inputs = LookupInputs::new(gpu.view(&ids), &tables);
                gpu.lookup(&Lookup::default(), Bags::Each, inputs)?;
                gpu.synchronize()
            },
            "lookup/gather",
            "atomicMin(",
            "atomicMax(",
        ),
    ]
}

fn decoupled() -> Vec<Twin> {
    let case = DecoupledCase { histories: vec![3000, 5], targets: vec![13, 2], ..Default::default() };
    let int8 = DecoupledCase {
        storage: Storage::Int8,
        table_rows: vec![50],
        attention_widths: vec![6],
        representation_widths: vec![8],
        ..case.clone()
    };
    let outside = DecoupledCase { policy: IdPolicy::Zero, ..case.clone() };
    vec![
        // The third table read for the second; a neighbour's score; the threshold of another vec4 of candidates.
        twin(
            &case,
            "decoupled/search",
            "return table1_vec4(place, left);",
            "return table2_vec4(place, left);",
        ),
        twin(
            &case,
            "decoupled/search",
            "let keys2 = select(keys4.xy, keys4.zw,",
            "let keys2 = select(keys4.zw, keys4.xy,",
        ),
        twin(&case, "decoupled/search", "let b = threshold_of(4u);", "let b = threshold_of(0u);"),
        // Entries that found no place dropped; a sort without its last steps; ties ordered by descending position.
        twin(&case, "decoupled/search", "again |= 1u << bit;", "again |= 0u << bit;"),
        twin(
            &case,
            "decoupled/search",
            "while (2u << pairs_bits) < entries",
            "while (4u << pairs_bits) < entries",
        ),
        twin(&case, "decoupled/search", "than_key && row < than_row", "than_key && row > than_row"),
        twin(&int8, "decoupled/search", "vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left)", "vec4<bool>(false)"),
        // Ids outside the table scored.
        twin(&outside, "decoupled/search", "id.x), known.x);", "id.x), true);"),
        twin(&case, "decoupled/search_queries", "params.factor * value", "value"),
        // Large scales left out.
        twin_that(
            |gpu| check_scales_near_the_limits(gpu, gpu.rules()),
            "decoupled/search",
            "let f = params.factor;",
            "let f = 1.0;",
        ),
        // Positions one too high; the first list of a history left out.
        twin(&case, "selection/combine", "row - result.history;", "row - result.history + 1u;"),
        twin(
            &case,
            "selection/combine",
            "let own_slot = first_slot + member;",
            "let own_slot = first_slot + member + 1u;",
        ),
        twin(&case, "selection/given", "/ state.y;", "* state.y;"),
        twin(&case, "decoupled/aggregate", "0.5 * bitcast<f32>(entry.x) * value_of", "0.5 * value_of"),
        twin_of_check(
            "decoupled_search: history_ids[3] is 7, which must be below 4",
            |gpu| search_ids(gpu, &[0, 1, 2, 7, 9, 0], &[0, 0]),
            "decoupled/search",
            "atomicMin(",
            "atomicMax(",
        ),
        twin_of_check(
            "decoupled_search: target_ids[1] is 4, which must be below 4",
            |gpu| search_ids(gpu, &[0; 6], &[2, 4]),
            "decoupled/search_queries",
            "atomicMin(&report[0], place);",
            "",
        ),
    ]
}

/// One user's search among behaviours of two features, in tables of 3 and 4 rows.
fn search_ids(gpu: &Wgpu, ids: &[u32], target_ids: &[u32]) -> Result<()> {
    let one = |rows| Jagged::from_lengths(&[rows]);
    let batch = gpu.batch(&one(ids.len() / 2)?, &one(target_ids.len() / 2)?)?;
    let data = gpu.zeros::<f32>(8)?;
    let table = |rows| Ok(Table::new(rows, 2, TableData::F32(gpu.view(&data).slice(0, 2 * rows)?)));
    let (attention, ids, target_ids) = ([table(3)?, table(4)?], gpu.upload(ids)?, gpu.upload(target_ids)?);
    let inputs = SearchInputs::new(&attention, gpu.view(&ids), gpu.view(&target_ids));
    gpu.decoupled_search(&Decoupled::new([1.0, 1.0]), &batch, inputs)?;
    gpu.synchronize()
}

#[test]
fn wrong_attention_is_caught() {
    Twin::assert_caught(&attention());
}

#[test]
fn wrong_gradients_of_attention_are_caught() {
    Twin::assert_caught(&attention_gradients());
}

#[test]
fn wrong_gradients_of_rows_and_merges_are_caught() {
    Twin::assert_caught(&attention_gradients_of_rows());
}

#[test]
fn wrong_shared_blocks_are_caught() {
    if device().is_none() {
        return;
    }
    for subgroups in [true, false] {
        let gpu = Wgpu::with_options(&options().with_subgroups(subgroups)).expect("a second device");
        shared_blocks(gpu.uses_subgroups()).iter().for_each(|twin| twin.assert_caught_on(&gpu));
    }
}

#[test]
fn wrong_din_is_caught() {
    Twin::assert_caught(&din());
}

#[test]
fn wrong_sdim_is_caught() {
    Twin::assert_caught(&sdim());
}

#[test]
fn wrong_look_ups_are_caught() {
    Twin::assert_caught(&look_ups());
}

#[test]
fn wrong_decoupled_embeddings_are_caught() {
    Twin::assert_caught(&decoupled());
}

#[test]
fn every_kernel_has_a_wrong_twin() {
    let others = [
        super::copies::twins(),
        attention_gradients(),
        attention_gradients_of_rows(),
        super::din_gradients::twins(),
        super::sdim_gradients::twins(),
        super::wrong_decoupled_gradients::twins(),
        super::wrong_interest_channels::twins(),
        super::wrong_lookup_gradients::twins(),
        super::wrong_sdim::twins(),
        super::wrong_search::twins(),
        super::wrong_selected::twins(),
        super::wrong_tin::twins(),
    ];
    let twins = [attention(), din(), sdim(), look_ups(), decoupled()].into_iter().chain(others);
    let twins: Vec<Twin> = twins.flatten().collect();
    for (name, _) in webgpu::shaders() {
        let has_twin = twins.iter().any(|twin| name.split(' ').next() == Some(twin.kernel));
        assert!(has_twin, "no twin of {name} is wrong on purpose");
    }
}
