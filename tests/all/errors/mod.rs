//! Every documented error, word for word: the operation, the argument, what was expected and what was given.

mod decoupled;
mod din;
mod interest_channels;
mod sdim;
mod search;
mod selected;
mod selected_tables;
mod target_attention;
mod tin;

use longseq::*;

/// Checks the text of an error.
#[track_caller]
fn assert_error<T>(result: Result<T>, expected: &str) {
    match result {
        Ok(_) => panic!("no error; expected: {expected}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

fn batch(histories: &[usize], targets: &[usize]) -> Batch {
    let jagged = |lengths| Jagged::from_lengths(lengths).expect("small lengths");
    Batch::new(jagged(histories), jagged(targets)).expect("as many users on both sides")
}

#[test]
fn offsets_are_checked() {
    assert_error(
        Jagged::new::<u32>(&[], 0),
        "Jagged::new: offsets: expected users + 1 offsets, at least one, got none",
    );
    assert_error(Jagged::new(&[1, 2], 2), "Jagged::new: offsets: expected offsets[0] = 0, got 1");
    assert_error(
        Jagged::new(&[0, 3, 2], 3),
        "Jagged::new: offsets: expected offsets[2] >= offsets[1] = 3, got 2",
    );
    assert_error(Jagged::new(&[0, -3i64], 3), "Jagged::new: offsets: expected offsets[1] in 0..=3, got -3");
    assert_error(
        Jagged::new(&[0, 4], 3),
        "Jagged::new: offsets: expected a last offset of at most 3, the number of rows, got 4",
    );
    assert_error(
        Jagged::new(&[0u64, 1 << 32], 1 << 32),
        "Jagged::new: length of one user needs 4294967296, above the limit of 4294967295",
    );
    assert_error(
        Jagged::from_lengths(&[usize::MAX, 1]),
        "Jagged::from_lengths: lengths needs 18446744073709551615, above the limit of 18446744073709551615",
    );
    assert_error(
        Batch::new(Jagged::from_lengths(&[1, 2]).unwrap(), Jagged::from_lengths(&[1]).unwrap()),
        "Batch::new: targets: expected 2 users, as many as there are histories, got 1 users",
    );
    assert!(Jagged::from_lengths(&[2]).unwrap().range(usize::MAX).is_empty());
}

#[test]
fn parts_of_views_are_checked() {
    let numbers = [0.0f32; 4];
    let message = "slice: start and length: expected a part of 4 elements, got 3 elements from 2 on";
    assert_error(Host::view(&numbers).slice(2, 3), message);
    assert_error(Host::view_mut(&mut numbers.clone()).slice(2, 3), message);
    assert_error(
        Host::view(&numbers).slice(usize::MAX, 2),
        &format!(
            "slice: start and length: expected a part of 4 elements, got 2 elements from {} on",
            usize::MAX
        ),
    );
}

#[test]
fn allocations_are_checked() {
    let elements = isize::MAX as usize / 2;
    let message = format!("zeros: out of memory for {} bytes", 4 * elements as u64);
    assert_error(Cpu::new().zeros::<f32>(elements), &message);
}
