//! Shaders of interest channels and their gradients that are wrong on purpose.

use longseq::*;
use longseq_check::data::Data;
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};

use super::wrong_shaders::{Twin, twin, twin_of_check};

/// Two users with several candidates, and more behaviours than channels keep.
fn plain() -> ChannelsCase {
    ChannelsCase { histories: vec![60, 40], targets: vec![3, 4], ..Default::default() }
}

/// A channel that there is not in every second candidate; others keep behaviours of negative scores, too.
fn zeros() -> ChannelsCase {
    ChannelsCase { dependent: Some(1), top_k: 100, ..plain() }
}

fn all() -> ChannelsCase {
    ChannelsCase { among: KeptAmong::All, ..plain() }
}

fn gradients(forward: ChannelsCase) -> ChannelsBackwardCase {
    ChannelsBackwardCase { forward, ..Default::default() }
}

pub(super) fn twins() -> Vec<Twin> {
    [axes(), searches(), lists(), of_sums(), of_axes()].into_iter().flatten().collect()
}

fn axes() -> Vec<Twin> {
    let (plain, zeros) = (plain(), zeros());
    let kernel = "interest_channels/axes";
    vec![
        // What lies along other axes added; an axis of any length; a channel that there is not.
        twin(&plain, kernel, "rest -= triangle", "rest += triangle"),
        twin(&plain, kernel, "axes[row + k] * inverse, exists", "axes[row + k], exists"),
        twin(&zeros, kernel, "select(NO_CHANNEL, CHANNEL, exists)", "CHANNEL"),
        // The first axis of the candidate instead of the one that depends on others; R without a diagonal, or of one time.
        twin_of_check(
            "interest_channels: axes: expected axes that do not depend on each other (or DependentAxes::Zero), \
             got axis 2 of candidate 1, which depends on those before it",
            dependent,
            kernel,
            "atomicMin(&report[0], first + i);",
            "atomicMin(&report[0], first);",
        ),
        twin(&gradients(plain.clone()), kernel, "square * inverse, exists", "1.0, exists"),
        twin(
            &gradients(plain.clone()),
            kernel,
            "triangle[(first + j) * params.channels + i] += triangle",
            "triangle[(first + j) * params.channels + i] = triangle",
        ),
        // Columns of another vec4; flags of every channel.
        twin(&plain, "interest_channels/pack_axes", "width + 4u * k,", "width + 4u * (k ^ 1u),"),
        twin(&zeros, "interest_channels/pack_axes", "select(0.0, 1.0, states[axis].x == CHANNEL)", "1.0"),
    ]
}

/// Three axes of the second candidate, of which the third is the sum of the others.
fn dependent(gpu: &Wgpu) -> Result<()> {
    let right = [1.0_f32, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let wrong = [1.0_f32, 2.0, 0.0, 3.0, 1.0, 0.0, 4.0, 3.0, 0.0];
    let (axes, history) = (gpu.upload(&[right, wrong].concat())?, gpu.upload(&[1.0_f32; 6])?);
    let batch = gpu.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[2])?)?;
    let op = InterestChannels::new(3).with_channels(3).with_top_k(1);
    let inputs = InterestChannelsInputs::new(gpu.view(&axes), gpu.view(&history));
    gpu.interest_channels(&op, &batch, inputs)?;
    gpu.synchronize()
}

fn searches() -> Vec<Twin> {
    let (plain, zeros) = (plain(), zeros());
    // Two lists to a workgroup.
    let long = ChannelsCase { histories: vec![900, 300], targets: vec![1, 2], top_k: 300, ..plain.clone() };
    let kernel = "interest_channels/search";
    vec![
        // The worst channel; the last of equal ones; every channel; the first of a tile alone; those of another candidate.
        twin(&plain, kernel, "(keys > before.keys)", "(keys < before.keys)"),
        twin(
            &ChannelsCase { data: Data::Zeros, ..plain.clone() },
            kernel,
            "(keys > before.keys)",
            "(keys >= before.keys)",
        ),
        twin(&zeros, kernel, "& vec4<bool>(exists > 0.0)", "& vec4<bool>(true)"),
        twin(&plain, kernel, "vec4<u32>(first_own + r));", "vec4<u32>(first_own));"),
        twin(&plain, kernel, "tile / params.tiles * params.blocks", "0u"),
        // The keys of another tile's channels.
        twin(&long, kernel, "select(moved, moved.zwww, (at & 2u) != 0u)", "moved"),
        twin(&long, kernel, "tile % params.tiles * LISTS", "0u"),
        // Lists of one candidate written as those of candidates.
        twin(
            &plain,
            "selection/combine",
            "(rows.x + row / params.rows) * params.channels + channel",
            "rows.x + row",
        ),
    ]
}

fn lists() -> Vec<Twin> {
    let (plain, all) = (plain(), all());
    let (keep, write) = ("interest_channels/keep", "interest_channels/write_kept");
    let empty = ChannelsCase { top_k: 100, ..plain.clone() };
    // Several slots to a thread.
    let many = ChannelsCase { histories: vec![400], top_k: 300, targets: vec![2], ..all.clone() };
    vec![
        // Sums instead of means; behaviours of other channels; the last of equal channels; the rows of another user.
        twin(&plain, keep, "score / f32(max(history.y - history.x, 1u))", "score"),
        twin(&all, keep, "!= list % params.channels", "== NONE"),
        twin(&ChannelsCase { data: Data::Zeros, ..all.clone() }, keep, "|| score > best", "|| score >= best"),
        twin(&plain, keep, "row = history.x - params.first_history + position;", "row = position;"),
        twin(&all, keep, "axes_vec4(a + k,", "axes_vec4(a,"),
        // Places after those of other threads; slots that are left as they are; slots that are counted.
        twin(&many, write, "kept_counts[other], other < thread", "kept_counts[other], other <= thread"),
        twin(&empty, write, "k < params.out_top_k", "k < params.top_k"),
        twin(
            &all,
            write,
            "counts[params.counts_base + list] = total;",
            "counts[params.counts_base + list] = params.top_k;",
        ),
        twin(&many, write, "            place++;\n", ""),
    ]
}

fn of_sums() -> Vec<Twin> {
    let (plain, normalised) = (plain(), ChannelsCase { normalise: true, ..plain() });
    let gradient = gradients(plain.clone());
    let of_normalised = gradients(normalised.clone());
    let products = "interest_channels/products";
    let before = "interest_channels/before_division";
    vec![
        // Not divided by the length; by its square.
        twin(&normalised, "interest_channels/finish", "params.normalise == 1u", "params.normalise == 2u"),
        twin(
            &normalised,
            "interest_channels/finish",
            "length.y * (length.x *",
            "length.y * length.y * (length.x *",
        ),
        // The lists of candidates that are given.
        twin(&gradient, "selection/given", "tile.x * params.lists + tile.y", "tile.x + tile.y"),
        // Sums instead of means; a lane left out; the row of the first list.
        twin(&gradient, products, "sum / length", "sum"),
        twin(&gradient, products, "lane < params.lanes; lane++", "lane + 1u < params.lanes; lane++"),
        twin(
            &gradient,
            products,
            "params.vectors_base + part.candidate",
            "params.vectors_base + 0u * part.candidate",
        ),
        // The projection dropped; not divided by the length; the gradient of a channel that there is not.
        twin(&of_normalised, before, "number - product * unit", "number"),
        twin(&of_normalised, before, "length.y * ((number", "((number"),
        twin(&gradient, before, "select(0.0, number, exists)", "0.0"),
    ]
}

fn of_axes() -> Vec<Twin> {
    let plain = gradients(plain());
    let of = |right: &'static str, wrong: &'static str| {
        twin(&plain, "interest_channels/backward_axes", right, wrong)
    };
    vec![
        // What lies along other axes left in, or added; terms of the gradients of other axes dropped; scales forgotten.
        of("grad -= product *", "grad += product *"),
        of("- along * axes[axis + k]", ""),
        of("* rest + product * column;", "* rest;"),
        of("triangle[(first + j) * params.channels + i] * rest + product", "product"),
        of("power * matrices_at(", "matrices_at("),
        of("select(power * grad,", "select(grad,"),
        of(") / length;", ");"),
    ]
}

#[test]
fn wrong_interest_channels_are_caught() {
    Twin::assert_caught([axes(), searches(), lists()].iter().flatten());
}

#[test]
fn wrong_gradients_of_interest_channels_are_caught() {
    Twin::assert_caught([of_sums(), of_axes()].iter().flatten());
}
