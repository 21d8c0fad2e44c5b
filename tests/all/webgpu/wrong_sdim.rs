//! Shaders of SDIM that are wrong on purpose: they read the tables of other users, take weights wrongly, or change whole tables wrongly.

use longseq_check::sdim::{SdimBackwardCase, SdimCase, Weights};

use super::wrong_shaders::{Twin, twin};

fn three_users() -> SdimCase {
    SdimCase { histories: vec![9, 20, 7], targets: vec![3, 1, 4], ..Default::default() }
}

#[test]
fn wrong_tables_are_caught() {
    let case = SdimCase { shared: true, ..three_users() };
    let kernel = "sdim/query";
    let twins = [
        twin(&case, kernel, "owners[params.owners_base + first]", "first"),
        twin(&case, kernel, "params.owners_base + first", "params.owners_base"),
        twin(&case, kernel, "if params.tables > 0u", "if params.tables > 1000000u"),
    ];
    Twin::assert_caught(&twins);
}

/// Norms of rows of more than 256 numbers, and means over more than 64 groups, which are added up in parts.
#[test]
fn wrong_sums_by_parts_are_caught() {
    parts().iter().for_each(|twin| Twin::assert_caught([twin]));
}

fn parts() -> [Twin; 2] {
    let wide = SdimCase { width: 300, ..three_users() };
    let many = SdimCase { groups: 70, ..three_users() };
    [
        twin(&wide, "sdim/query", "squares += part;", "squares = part;"),
        twin(&many, "sdim/query", "sum += part;", "sum = part;"),
    ]
}

pub(super) fn twins() -> Vec<Twin> {
    [Vec::from(parts()), changes(), super::sdim_items::twins()].into_iter().flatten().collect()
}

fn changes() -> Vec<Twin> {
    let plain = three_users();
    let weighted = SdimCase { weights: Weights::Signed, ..plain.clone() };
    let many = SdimCase { bits: 7, groups: 2, ..weighted.clone() };
    let slots = SdimCase { histories: vec![2000, 5], targets: vec![3, 2], slots: true, ..Default::default() };
    let many_slots = SdimCase { bits: 7, groups: 2, ..slots.clone() };
    let gradients = SdimBackwardCase { forward: weighted.clone(), ..Default::default() };
    let first = "weights[params.weights_base]";
    vec![
        // Weights ignored, or the first behaviour's for all, with sums in workgroup memory and without; a removal that adds.
        twin(&weighted, "sdim/encode", "if params.weighted > 0u", "if params.weighted > 1u"),
        twin(&weighted, "sdim/encode", "weights[params.weights_base + row]", first),
        twin(&many, "sdim/encode", "weights[params.weights_base + row]", first),
        twin(&plain, "sdim/encode", "select(x, -x, params.subtract > 0u)", "x"),
        twin(&many, "sdim/encode", "select(x, -x, params.subtract > 0u)", "x"),
        twin(&gradients, "sdim/gather", "weights[params.weights_base + row]", first),
        twin(&gradients, "sdim/gather", "if params.weighted > 0u", "if params.weighted > 1u"),
        // The tables of the first slots; the first user's for all; what is no zero.
        twin(&slots, "sdim/encode", "slot = pieces[2u * piece].x", "slot = pieces[2u * piece].w"),
        twin(&many_slots, "sdim/encode", "slot = pieces[2u * piece].x", "slot = pieces[2u * piece].w"),
        twin(&slots, "sdim/combine_tables", "split_tiles[2u * tile].x", "split_tiles[2u * tile].w"),
        twin(&many_slots, "sdim/clear_tables", "params.size)].x", "params.size)].w"),
        twin(&many_slots, "sdim/clear_tables", "= 0.0", "= 1.0"),
        // Tables replaced; one user's factor for all.
        twin(&plain, "sdim/add_tables", "+= other", "= other"),
        twin(&plain, "sdim/decay_tables", "*= factors", "= factors"),
        twin(&plain, "sdim/decay_tables", "params.factors_base + index / params.size", "params.factors_base"),
    ]
}

#[test]
fn wrong_changes_of_tables_are_caught() {
    Twin::assert_caught(&changes());
}
