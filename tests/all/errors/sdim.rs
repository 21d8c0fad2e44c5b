//! SDIM.

use longseq::*;

use super::{assert_error, batch};

fn encode(op: &Sdim, rows: usize, hash: Hash<'_, Host>, table: &mut [f32]) -> Result<()> {
    let rows = vec![0.0f32; rows];
    let histories = Jagged::from_lengths(&[3]).expect("small lengths");
    let inputs = SdimEncodeInputs::new(Host::view(&rows), hash);
    Cpu::new().sdim_encode_into(op, &histories, inputs, Host::view_mut(table))?;
    Cpu::new().sdim_append(op, &histories, inputs, Host::view_mut(table))
}

#[test]
fn sdim_checks_its_parameters() {
    let op = Sdim::new(4).with_groups(2, 3);
    let rotations = [0.0; 24];
    let rotate = Hash::Rotations(Host::view(&rotations));
    encode(&op, 12, rotate, &mut [0.0; 64]).expect("a valid call");
    for (op, expected) in [
        (Sdim::new(0), "sdim_encode: width: expected at least 1, got 0"),
        (op.with_groups(0, 3), "sdim_encode: groups: expected at least 1, got 0"),
        (op.with_groups(2, 0), "sdim_encode: bits: expected at least 1, got 0"),
        (
            op.with_groups(2, 17),
            "sdim_encode: a signature of 17 bits is not supported; supported: 1 to 16 bits",
        ),
    ] {
        assert_error(encode(&op, 12, rotate, &mut [0.0; 64]), expected);
        assert!(op.rotations(1).is_err());
        assert!(op.table_length(1).is_err());
    }
    assert!(matches!(Sdim::new(usize::MAX / 8).rotations(1), Err(Error::Limit { .. })));
    assert!(matches!(op.table_length(usize::MAX / 8), Err(Error::Limit { .. })));
    let wide = op.with_groups(2, 9);
    let given = [0u8; 6];
    assert_error(
        encode(&wide, 12, Hash::Signatures8(Host::view(&given)), &mut [0.0; 4096]),
        "sdim_encode: a signature of 9 bits in a u8 is not supported; supported: u8 up to 8 bits, u16 up to 16",
    );
}

#[test]
fn sdim_checks_its_buffers() {
    let op = Sdim::new(4).with_groups(2, 3);
    let (rotations, given) = ([0.0; 24], [0u16; 6]);
    let rotate = Hash::Rotations(Host::view(&rotations));
    let short = Hash::Rotations(Host::view(&rotations[..23]));
    let few = Hash::Signatures16(Host::view(&given[..5]));
    let mut table = [0.0; 64];
    for (rows, hash, table, expected) in [
        (11, rotate, &mut table[..], "history: expected [N, d] = [3, 4], 12 elements, got 11 elements"),
        (
            12,
            short,
            &mut [0.0; 64],
            "rotations: expected [d, G, τ] = [4, 2, 3], 24 elements, got 23 elements",
        ),
        (12, few, &mut [0.0; 64], "signatures: expected [N, G] = [3, 2], 6 elements, got 5 elements"),
        (
            12,
            rotate,
            &mut [0.0; 63],
            "table: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 63 elements",
        ),
    ] {
        assert_error(encode(&op, rows, hash, table), &format!("sdim_encode: {expected}"));
    }

    let targets = Jagged::from_lengths(&[2]).expect("small lengths");
    let rows = [0.0f32; 8];
    let query = |table: &[f32], targets_given: Option<&[f32]>, out: usize| {
        let mut inputs = SdimQueryInputs::new(Host::view(table), rotate);
        inputs.targets = targets_given.map(Host::view);
        Cpu::new().sdim_query_into(&op, &targets, inputs, Host::view_mut(&mut vec![0.0; out]))
    };
    query(&[0.0; 64], Some(&rows), 8).expect("a valid call");
    assert_error(
        query(&[0.0; 60], Some(&rows), 8),
        "sdim_query: table: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 60 elements",
    );
    assert_error(
        query(&[0.0; 64], None, 8),
        "sdim_query: targets: expected the rows to hash with the rotations, got none",
    );
    assert_error(
        query(&[0.0; 64], Some(&rows[1..]), 8),
        "sdim_query: targets: expected [M, d] = [2, 4], 8 elements, got 7 elements",
    );
    assert_error(
        query(&[0.0; 64], Some(&rows), 9),
        "sdim_query: out: expected [M, d] = [2, 4], 8 elements, got 9 elements",
    );
    let history_rows = [0.0f32; 12];
    let inputs = SdimAttendInputs::new(Host::view(&history_rows), rotate, rotate);
    assert_error(
        Cpu::new().sdim_attend_into(&op, &batch(&[3], &[2]), inputs, Host::view_mut(&mut [0.0; 8])),
        "sdim_attend: targets: expected the rows to hash with the rotations, got none",
    );
    assert_error(
        Cpu::new().sdim_add_tables(&op, Host::view_mut(&mut [0.0; 65]), Host::view(&[0.0; 64])),
        "sdim_add_tables: table: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 65 elements",
    );
    assert_error(
        Cpu::new().sdim_add_tables(&op, Host::view_mut(&mut [0.0; 64]), Host::view(&[0.0; 65])),
        "sdim_add_tables: other: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 65 elements",
    );
    let signatures = |rows: &[f32], out: &mut [u8]| {
        Cpu::new().sdim_signatures_into(&op, Host::view(rows), Host::view(&rotations), Host::view_mut(out))
    };
    signatures(&rows, &mut [0; 4]).expect("a valid call");
    assert_error(
        signatures(&rows[1..], &mut [0; 4]),
        "sdim_signatures: rows: expected [rows, d] = [1, 4], 4 elements, got 7 elements",
    );
    assert_error(
        signatures(&rows, &mut [0; 3]),
        "sdim_signatures: out: expected [rows, G] = [2, 2], 4 elements, got 3 elements",
    );
}

#[test]
fn sdim_checks_weights_and_factors() {
    let (op, rotations, mut table) = (Sdim::new(4).with_groups(2, 3), [0.0; 24], [0.0; 64]);
    let rotate = Hash::Rotations(Host::view(&rotations));
    let (history, three) = ([0.0f32; 12], Jagged::from_lengths(&[3]).expect("small lengths"));
    let inputs = SdimEncodeInputs::new(Host::view(&history), rotate).with_weights(Host::view(&[1.0; 4]));
    assert_error(
        Cpu::new().sdim_remove(&op, &three, inputs, Host::view_mut(&mut table)),
        "sdim_remove: weights: expected [N] = [3], 3 elements, got 4 elements",
    );
    assert_error(
        Cpu::new().sdim_decay(&op, Host::view_mut(&mut table), Host::view(&[1.0; 2])),
        "sdim_decay: factors: expected [B] = [1], 1 elements, got 2 elements",
    );
}

#[test]
fn gradients_of_tables_take_no_users() {
    let op = Sdim::new(4).with_groups(2, 3);
    let (rotations, rows) = ([0.0f32; 24], [0.0f32; 8]);
    let rotate = Hash::Rotations(Host::view(&rotations));
    let targets = Jagged::from_lengths(&[2]).expect("small lengths");
    let (table, users, mut gradient) = ([0.0f32; 64], [0u32], [0.0f32; 64]);
    let inputs = SdimQueryInputs::new(Host::view(&table), rotate)
        .with_targets(Host::view(&rows))
        .with_users(Host::view(&users));
    let (grad_out, gradient) = (Host::view(&rows), Host::view_mut(&mut gradient));
    assert_error(
        Cpu::new().sdim_query_backward_into(&op, &targets, inputs, grad_out, gradient),
        "sdim_query_backward: users: expected none: one table for each user of the batch, got users",
    );
}

#[test]
fn signatures_outside_the_table_are_errors_and_change_nothing() {
    let op = Sdim::new(4).with_groups(2, 3);
    let given = [0u8, 1, 7, 8, 9, 0];
    let mut table = [5.0; 64];
    let expected = "sdim_encode: signatures[3] is 8, which must be below 8";
    assert_error(encode(&op, 12, Hash::Signatures8(Host::view(&given)), &mut table), expected);
    assert_eq!(table, [5.0; 64]);
    let histories = Jagged::from_lengths(&[3]).expect("small lengths");
    let inputs = SdimEncodeInputs::new(Host::view(&[0.0f32; 12]), Hash::Signatures8(Host::view(&given)));
    assert_error(reference::sdim_encode(&op, &histories, &inputs), expected);
}

/// The first one, by the reference, too; signatures of items that no row names may be anything.
#[test]
fn items_that_are_not_there_are_errors_and_change_nothing() {
    let op = Sdim::new(4).with_groups(2, 3);
    let histories = Jagged::from_lengths(&[3]).unwrap();
    let check = |signatures: &[u8], ids: &[u32], expected: &str| {
        let (mut table, signatures) = ([5.0; 64], Host::view(signatures));
        let hash = Hash::Items8 { signatures, ids: Host::view(ids) };
        assert_error(encode(&op, 12, hash, &mut table), expected);
        assert_eq!(table, [5.0; 64]);
        let inputs = SdimEncodeInputs::new(Host::view(&[0.0f32; 12]), hash);
        assert_error(reference::sdim_encode(&op, &histories, &inputs), expected);
    };
    let signatures = [9, 0, 0, 1, 8, 9];
    check(&signatures, &[1, 3, 7], "sdim_encode: ids[1] is 3, which must be below 3");
    check(&signatures, &[1, 2, 2], "sdim_encode: signatures[4] is 8, which must be below 8");
    check(&[], &[0, 0, 0], "sdim_encode: ids[0] is 0, which must be below 0");
    let hash = Hash::Items8 { signatures: Host::view(&signatures), ids: Host::view(&[1; 3]) };
    encode(&op, 12, hash, &mut [5.0; 64]).expect("a valid call");
    check(
        &signatures[..5],
        &[1; 3],
        "sdim_encode: signatures: expected [items, G] = [2, 2], 4 elements, got 5 elements",
    );
    check(&signatures, &[1; 2], "sdim_encode: ids: expected [N] = [3], 3 elements, got 2 elements");
}
