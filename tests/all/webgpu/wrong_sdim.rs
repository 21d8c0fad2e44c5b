//! Shaders of SDIM that read the tables of other users, on purpose.

use longseq_check::sdim::SdimCase;

use super::wrong_shaders::{Twin, twin};

#[test]
fn wrong_tables_are_caught() {
    let (histories, targets) = (vec![9, 20, 7], vec![3, 1, 4]);
    let case = SdimCase { shared: true, histories, targets, ..Default::default() };
    let kernel = "sdim/query";
    let twins = [
        twin(&case, kernel, "owners[params.owners_base + first]", "first"),
        twin(&case, kernel, "params.owners_base + first", "params.owners_base"),
        twin(&case, kernel, "if params.tables > 0u", "if params.tables > 1000000u"),
    ];
    twins.iter().for_each(Twin::assert_caught);
}
