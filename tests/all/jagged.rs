//! Offsets are accepted exactly when they are valid.

use longseq::Jagged;
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
