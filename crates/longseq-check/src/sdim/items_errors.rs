//! What calls answer to items that are not there, and to signatures of too many bits.

use longseq::*;

use crate::case::Rules;

/// Items that the tests of this file have signatures of.
const ITEMS: usize = 4;
/// Rows of behaviours, of a user with and one without candidates, and of candidates.
const ROWS: [usize; 2] = [5, 3];

/// Calls of one kind with ids of items.
struct Calls<'b, B: Backend> {
    backend: &'b B,
    op: Sdim,
    signatures: Vec<u8>,
    /// Of behaviours and of candidates.
    ids: [Vec<u32>; 2],
}

impl<'b, B: Backend> Calls<'b, B> {
    /// Every row names an item that is there, with valid signatures.
    fn new(backend: &'b B) -> Self {
        let op = Sdim::new(2).with_groups(3, 2);
        let signatures = (0..ITEMS * op.groups).map(|i| (i % 4) as u8).collect();
        let ids = ROWS.map(|rows| (0..rows as u32).map(|row| row % ITEMS as u32).collect());
        Self { backend, op, signatures, ids }
    }

    /// The names of the calls, and which sides they read.
    const NAMES: [(&'static str, [bool; 2]); 8] = [
        ("sdim_encode", [true, false]),
        ("sdim_append", [true, false]),
        ("sdim_remove", [true, false]),
        ("sdim_query", [false, true]),
        ("sdim_attend", [true; 2]),
        ("sdim_query_backward", [false, true]),
        ("sdim_encode_backward", [true, false]),
        ("sdim_attend_backward", [true; 2]),
    ];

    /// Makes a call, and waits for it.
    fn make(&self, name: &str) -> Result<()> {
        let (backend, op) = (self.backend, &self.op);
        let (histories, targets) = (Jagged::from_lengths(&[2, 3])?, Jagged::from_lengths(&[ROWS[1], 0])?);
        let batch = backend.batch(&histories, &targets)?;
        let (histories, targets) = (backend.jagged(&histories)?, backend.jagged(&targets)?);
        let rows = backend.upload(&[1.0f32; 10])?;
        let signatures = backend.upload(&self.signatures)?;
        let ids = [backend.upload(&self.ids[0])?, backend.upload(&self.ids[1])?];
        let [hash, target_hash] = ids
            .each_ref()
            .map(|ids| Hash::Items8 { signatures: backend.view(&signatures), ids: backend.view(ids) });
        let mut table = backend.zeros::<f32>(op.table_length(2)?)?;
        let other = backend.zeros::<f32>(op.table_length(2)?)?;
        let mut out = backend.zeros::<f32>(2 * ROWS[0])?;
        let grad_out = backend.view(&rows).slice(0, 2 * ROWS[1])?;
        let encode = SdimEncodeInputs::new(backend.view(&rows), hash);
        let query = SdimQueryInputs::<_, f32>::new(backend.view(&other), target_hash);
        let attend = SdimAttendInputs::new(backend.view(&rows), hash, target_hash);
        let (to, out) = (backend.view_mut(&mut table), backend.view_mut(&mut out));
        match name {
            "sdim_encode" => backend.sdim_encode_into(op, &histories, encode, to),
            "sdim_append" => backend.sdim_append(op, &histories, encode, to),
            "sdim_remove" => backend.sdim_remove(op, &histories, encode, to),
            "sdim_query" => backend.sdim_query_into(op, &targets, query, out.slice(0, 2 * ROWS[1])?),
            "sdim_attend" => backend.sdim_attend_into(op, &batch, attend, out.slice(0, 2 * ROWS[1])?),
            "sdim_query_backward" => backend.sdim_query_backward_into(op, &targets, query, grad_out, to),
            "sdim_encode_backward" => {
                backend.sdim_encode_backward_into(op, &histories, encode, backend.view(&other), out)
            }
            _ => backend.sdim_attend_backward_into(op, &batch, attend, grad_out, out),
        }?;
        backend.synchronize()
    }

    /// Makes all calls; those that read one of the sides answer that a number at a position is not below a bound.
    fn assert_found(&self, sides: [bool; 2], (argument, position, id, bound): (&'static str, u64, u64, u64)) {
        for (operation, reads) in Self::NAMES {
            let finds = reads[0] && sides[0] || reads[1] && sides[1];
            let error = Error::IndexOutOfRange { operation, argument, position, id, bound };
            let expected = if finds { Err(error) } else { Ok(()) };
            assert_eq!(self.make(operation), expected, "{sides:?} in {operation}");
        }
    }
}

/// At the first, the last and each other place, of either side, in every call; the first of several.
pub(super) fn finds_items_that_are_not_there<B: Backend>(backend: &B, _: Rules) {
    Calls::new(backend).assert_found([false; 2], ("ids", 0, 0, 0));
    for side in [0, 1] {
        let sides = [side == 0, side == 1];
        for place in 0..ROWS[side] {
            let id = if place.is_multiple_of(2) { ITEMS as u32 } else { u32::MAX };
            let mut calls = Calls::new(backend);
            calls.ids[side][place..].fill(id);
            calls.assert_found(sides, ("ids", place as u64, id.into(), ITEMS as u64));
        }
        // No item at all; and one, whose signatures are all that there are.
        let mut calls = Calls::new(backend);
        calls.signatures.truncate(3);
        calls.ids = ROWS.map(|rows| vec![0; rows]);
        calls.assert_found([false; 2], ("ids", 0, 0, 0));
        calls.ids[side][ROWS[side] - 1] = 1;
        calls.assert_found(sides, ("ids", ROWS[side] as u64 - 1, 1, 1));
        calls.signatures.clear();
        calls.ids = ROWS.map(|rows| vec![0; rows]);
        calls.assert_found([true; 2], ("ids", 0, 0, 0));
    }
}

/// In the first and the last item, in either of several; those of items that no row names may be anything.
pub(super) fn finds_signatures_outside_of_items<B: Backend>(backend: &B, _: Rules) {
    let groups = Calls::new(backend).op.groups;
    let all: Vec<usize> = (0..ITEMS * groups).collect();
    for bad in [vec![0], vec![4], vec![ITEMS * groups - 1], vec![7, 2], all] {
        let mut calls = Calls::new(backend);
        bad.iter().for_each(|&place| calls.signatures[place] = 4 + place as u8);
        // The first in the order of rows is not that in the order of items.
        calls.ids.iter_mut().for_each(|ids| ids.reverse());
        let first = |side: usize| {
            let read = |&place: &usize| calls.ids[side].contains(&((place / groups) as u32));
            bad.iter().copied().filter(read).min()
        };
        for (operation, reads) in Calls::<B>::NAMES {
            let first = [0, 1].into_iter().filter(|&side| reads[side]).filter_map(first).min();
            let expected = first.map_or(Ok(()), |place| {
                let (position, id) = (place as u64, 4 + place as u64);
                Err(Error::IndexOutOfRange { operation, argument: "signatures", position, id, bound: 4 })
            });
            assert_eq!(calls.make(operation), expected, "{bad:?} in {operation}");
        }
    }
}

/// Nothing is computed then.
pub(super) fn refuses_items_that_do_not_fit<B: Backend>(backend: &B, _: Rules) {
    let error = |change: fn(&mut Calls<'_, B>), name: &str| {
        let mut calls = Calls::new(backend);
        change(&mut calls);
        calls.make(name).expect_err("does not fit").to_string()
    };
    for (name, reads) in Calls::<B>::NAMES {
        let words = error(|calls| calls.signatures.truncate(11), name);
        let expected = "signatures: expected [items, G] = [3, 3], 9 elements, got 11 elements";
        assert_eq!(words, format!("{name}: {expected}"));
        let (rows, count) = if reads[0] { ("N", 5) } else { ("M", 3) };
        let few = error(|calls| calls.ids.iter_mut().for_each(|ids| ids.truncate(ids.len() - 1)), name);
        let got = count - 1;
        assert_eq!(
            few,
            format!("{name}: ids: expected [{rows}] = [{count}], {count} elements, got {got} elements")
        );
        let bits = error(|calls| calls.op = calls.op.with_groups(3, 9), name);
        let supported =
            "a signature of 9 bits in a u8 is not supported; supported: u8 up to 8 bits, u16 up to 16";
        assert_eq!(bits, format!("{name}: {supported}"));
    }
}
