//! Offsets, and starts and lengths, are accepted exactly when they are valid.

use longseq::{Batch, Decoupled, Din, Error, Jagged, Lookup, Sdim, TargetAttention};
use proptest::prelude::*;

proptest! {
    #[test]
    fn offsets_are_taken_exactly_when_they_are_right(
        offsets in prop::collection::vec(-1i64..6, 0..6),
        rows in 0usize..6,
    ) {
        let right = offsets.first() == Some(&0)
            && offsets.windows(2).all(|pair| pair[0] <= pair[1])
            && offsets.last().is_some_and(|&last| last <= rows as i64);
        let jagged = Jagged::new(&offsets, rows);
        prop_assert_eq!(jagged.is_ok(), right, "{:?}", jagged);
        if let Ok(jagged) = jagged {
            let ranges: Vec<_> = jagged.ranges().collect();
            prop_assert_eq!(ranges.len(), jagged.users());
            prop_assert_eq!(jagged.total() as i64, *offsets.last().expect("at least one"));
            for (user, range) in ranges.into_iter().enumerate() {
                prop_assert_eq!(range.start as i64..range.end as i64, offsets[user]..offsets[user + 1]);
                prop_assert_eq!(jagged.range(user), range);
            }
        }
    }
}

proptest! {
    #[test]
    fn starts_and_lengths_are_taken_exactly_when_they_are_right(
        ranges in prop::collection::vec((-1i64..8, -1i64..5), 0..6),
        rows in 0usize..10,
    ) {
        let (starts, lengths): (Vec<i64>, Vec<i64>) = ranges.iter().copied().unzip();
        let right = ranges.iter().all(|&(start, length)| start.min(length) >= 0 && start + length <= rows as i64);
        let jagged = Jagged::from_starts(&starts, &lengths, rows);
        prop_assert_eq!(jagged.is_ok(), right, "{:?}", jagged);
        let Ok(jagged) = jagged else { return Ok(()) };
        prop_assert_eq!((jagged.users(), jagged.rows()), (ranges.len(), rows));
        prop_assert_eq!(jagged.total_length() as i64, lengths.iter().sum::<i64>());
        let (mut end, mut largest) = (0_i64, 0_i64);
        let mut is_run = true;
        for (own, &(start, length)) in jagged.ranges().zip(&ranges) {
            prop_assert_eq!(own.len() as i64, length);
            if length > 0 {
                prop_assert_eq!(own.start as i64, start);
                is_run &= start == end;
                end = start + length;
                largest = largest.max(end);
            }
        }
        prop_assert_eq!(jagged.total() as i64, largest);
        // What is one after the other has offsets, and equals what is made of them.
        prop_assert_eq!(jagged.offsets().is_some(), is_run);
        if let Some(offsets) = jagged.offsets() {
            prop_assert_eq!(&Jagged::new(offsets, rows).expect("offsets"), &jagged);
        }
        let newest = jagged.newest(2);
        for (newest, all) in newest.ranges().zip(jagged.ranges()).filter(|(newest, _)| !newest.is_empty()) {
            prop_assert_eq!(newest, all.end - all.len().min(2)..all.end);
        }
        let users: Vec<u32> = (0..jagged.users() as u32).flat_map(|user| [user, 0]).rev().collect();
        let chosen = jagged.of_users(&users).expect("users that are there");
        prop_assert_eq!((chosen.users(), chosen.rows()), (users.len(), rows));
        for (chosen, &user) in chosen.ranges().zip(&users) {
            let all = jagged.range(user as usize);
            prop_assert!(chosen == all || chosen.is_empty() && all.is_empty());
        }
    }
}

#[test]
fn users_that_are_not_there_are_refused() {
    let error = Jagged::from_lengths(&[1, 2]).expect("lengths").of_users(&[1, 0, 2]).unwrap_err();
    let expected = Error::IndexOutOfRange {
        operation: "Jagged::of_users",
        argument: "users",
        position: 2,
        id: 2,
        bound: 2,
    };
    assert_eq!(error, expected);
}

#[test]
fn sums_of_starts_and_lengths_do_not_overflow() {
    let text = |starts: &[u64], lengths: &[u64], rows| {
        Jagged::from_starts(starts, lengths, rows).expect_err("wrong ranges").to_string()
    };
    assert_eq!(
        text(&[3], &[u64::MAX - 1], 10),
        "Jagged::from_starts: lengths: expected lengths[0] <= 7, the rows from starts[0] = 3 on, got 18446744073709551614"
    );
    assert_eq!(
        text(&[0, u64::MAX], &[1, 1], 10),
        "Jagged::from_starts: starts: expected starts[1] in 0..=10, got 18446744073709551615"
    );
    assert_eq!(
        text(&[1, 2], &[1], 10),
        "Jagged::from_starts: lengths: expected 2, as many as there are starts, got 1"
    );
    let error = Jagged::from_starts(&[0_u64, 5], &[1, 1 << 32], usize::MAX).expect_err("a long history");
    assert!(matches!(error, Error::Limit { needed: 4_294_967_296, .. }), "{error}");
    // The sum of the lengths of all users may be any number.
    let most = Jagged::from_starts(&[7; 3], &[Jagged::MAX_LENGTH; 3], usize::MAX).expect("ranges");
    assert_eq!((most.total(), most.total_length()), (7 + Jagged::MAX_LENGTH, 3 * Jagged::MAX_LENGTH));
    let ones = Jagged::from_lengths(&[1; 3]).expect("lengths");
    assert_eq!(Batch::new(most, ones).expect("three users").pairs(), 3 * Jagged::MAX_LENGTH as u64);
}

#[test]
fn candidates_are_one_user_after_the_other() {
    let histories = Jagged::from_starts(&[9, 2], &[3, 4], 20).expect("ranges");
    let error = Batch::new(histories.clone(), histories.clone()).expect_err("candidates anywhere");
    assert_eq!(
        error.to_string(),
        "Batch::new: targets: expected the rows of one user after the other, from 0 on, got sub-ranges"
    );
    let batch = Batch::new(histories, Jagged::from_lengths(&[1, 2]).expect("lengths")).expect("a batch");
    assert_eq!(batch.requests().collect::<Vec<_>>(), [(9..12, 0..1), (2..6, 1..3)]);
}

/// Costs are counted before any buffer exists: no product of sizes overflows.
#[test]
fn counts_end_at_the_largest_number() {
    let most = Jagged::from_lengths(&[Jagged::MAX_LENGTH; 8]).expect("lengths within the limit");
    let batch = Batch::new(most.clone(), most.clone()).expect("as many users on both sides");
    assert_eq!(batch.pairs(), u64::MAX);
    let one = Batch::new(Jagged::from_lengths(&[3]).unwrap(), Jagged::from_lengths(&[2]).unwrap()).unwrap();
    assert_eq!(one.pairs(), 6);
    let wide = TargetAttention::new(usize::MAX).with_heads(usize::MAX, usize::MAX);
    assert_eq!([wide.flops(&batch), wide.bytes::<f32>(&batch, false)], [u64::MAX; 2]);
    assert_eq!([wide.merge_flops(usize::MAX), wide.merge_bytes::<f32>(usize::MAX)], [u64::MAX; 2]);
    assert_eq!(TargetAttention::new(5).flops(&one), 2 * 6 * 10);
    let din = Din::new(usize::MAX);
    assert_eq!([din.flops(&batch, &[usize::MAX; 3]), din.bytes::<f32>(&batch)], [u64::MAX; 2]);
    let sdim = Sdim::new(usize::MAX).with_groups(usize::MAX, usize::MAX);
    assert_eq!(sdim.buckets(), usize::MAX);
    assert_eq!([sdim.encode_flops(usize::MAX), sdim.encode_bytes::<f32>(&most)], [u64::MAX; 2]);
    assert_eq!([sdim.attend_flops(&batch), sdim.attend_bytes::<f32>(&batch)], [u64::MAX; 2]);
    assert_eq!([sdim.query_bytes::<f32>(usize::MAX), sdim.signatures_flops(usize::MAX)], [u64::MAX; 2]);
    let decoupled = Decoupled::new([1.0, 1.0]).with_top_k(None);
    let widths = [usize::MAX; 2];
    assert_eq!(
        [decoupled.search_flops(&batch, &widths), decoupled.search_bytes::<f32>(&batch, &widths)],
        [u64::MAX; 2]
    );
    assert_eq!(decoupled.aggregate_flops(&batch, &widths), u64::MAX);
    assert_eq!(Lookup::default().bytes::<f32>(usize::MAX, usize::MAX, 2, &widths), u64::MAX);
    assert_eq!(Decoupled::dare(usize::MAX, usize::MAX, 1).features(), 3);
    assert_eq!(
        TargetAttention::new(1).with_heads(usize::MAX, usize::MAX).kv_head(usize::MAX - 1),
        usize::MAX - 1
    );
}

#[test]
fn slots_are_taken_exactly_when_they_are_right() {
    let jagged = || Jagged::from_lengths(&[2, 0, 1]).expect("small lengths");
    let with = |slots: &[u32], count| jagged().with_slots(slots, count);
    let kept = with(&[7, 0, 3], 8).expect("three slots");
    assert_eq!((kept.slots(), kept.slot_count(), kept.users()), (Some(&[7, 0, 3][..]), 8, 3));
    assert_eq!((jagged().slots(), jagged().slot_count()), (None, 3));
    // What is written is part of what it is.
    assert_ne!(kept, jagged());
    assert_ne!(kept, with(&[7, 0, 3], 9).expect("three slots"));
    assert_ne!(kept, with(&[0, 7, 3], 8).expect("three slots"));
    assert_ne!(with(&[0, 1, 2], 3).expect("three slots"), jagged());
    assert_eq!(
        kept,
        with(&[0, 1, 2], 3).expect("three slots").with_slots(&[7, 0, 3], 8).expect("three slots")
    );
    let none = Jagged::from_lengths(&[]).expect("no lengths").with_slots(&[], 5).expect("no slots");
    assert_eq!((none.slots(), none.slot_count()), (Some(&[][..]), 5));
    for (slots, count, expected) in [
        (&[7, 0][..], 8, "Jagged::with_slots: slots: expected 3, one per user, got 2"),
        (&[7, 8, 9], 8, "Jagged::with_slots: slots[1] is 8, which must be below 8"),
        (&[0, 0, 0], 0, "Jagged::with_slots: slots[0] is 0, which must be below 0"),
        (&[5, 0, 5], 8, "Jagged::with_slots: slots: expected each slot once, got 5 at 0 and 2"),
    ] {
        assert_eq!(with(slots, count).expect_err("wrong slots").to_string(), expected);
    }
}

#[test]
fn users_keep_their_slots() {
    let kept = Jagged::from_lengths(&[5, 2, 9]).expect("small lengths");
    let kept = kept.with_slots(&[7, 0, 3], 8).expect("three slots");
    let newest = kept.newest(3);
    assert_eq!((newest.range(2), newest.slots(), newest.slot_count()), (13..16, kept.slots(), 8));
    let some = kept.of_users(&[2, 0]).expect("users");
    assert_eq!((some.range(1), some.slots(), some.slot_count()), (0..5, Some(&[3, 7][..]), 8));
    assert_eq!(
        kept.of_users(&[1, 1]).expect_err("a slot twice").to_string(),
        "Jagged::of_users: users: expected each slot once, got 0 at 0 and 1"
    );
    let sub_ranges = Jagged::from_starts(&[4, 0], &[2, 3], 10).expect("ranges in the rows");
    let sub_ranges = sub_ranges.with_slots(&[1, 0], 2).expect("two slots");
    assert_eq!((sub_ranges.range(0), sub_ranges.slots()), (4..6, Some(&[1, 0][..])));
}

/// The calls that take rows without a batch, which refuses slots: `refuses_slots_that_name_nothing` has each of them that writes nothing by slot.
#[test]
fn calls_that_take_ranges_are_known() {
    let folder = longseq_check::repository().join("src/ops");
    let mut calls = Vec::new();
    let stems = std::fs::read_dir(folder).expect("a folder").map(|stem| stem.expect("an entry").path());
    for stem in stems.filter(|stem| stem.is_dir()) {
        for file in std::fs::read_dir(stem).expect("a folder") {
            let text = std::fs::read_to_string(file.expect("an entry").path()).expect("a source");
            for call in text.split("    fn ").skip(1) {
                let arguments = call.split("-> Result").next().unwrap_or_default();
                if arguments.contains("Self::Jagged") {
                    calls.push(call.split(['<', '(']).next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    calls.sort();
    let known = [
        "lookup",
        "lookup_backward_into",
        "lookup_into",
        "sdim_append",
        "sdim_encode",
        "sdim_encode_backward_into",
        "sdim_encode_into",
        "sdim_query",
        "sdim_query_backward_into",
        "sdim_query_into",
        "sdim_remove",
    ];
    assert_eq!(calls, known);
}
