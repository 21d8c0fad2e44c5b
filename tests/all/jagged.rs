//! Offsets are accepted exactly when they are valid.

use longseq::{Batch, Decoupled, Din, Jagged, Lookup, Sdim, TargetAttention};
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
