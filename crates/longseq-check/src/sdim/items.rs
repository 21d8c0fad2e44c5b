//! Signatures of items, which the rows of a call name by their ids.

use longseq::*;

use super::{Inputs, SdimBackwardCase, SdimCase, Weights};
use crate::case::{Failure, Rules, assert_check};
use crate::data::{self, Ids};

/// Where given signatures are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Given {
    /// Each row has its own.
    #[default]
    Rows,
    /// So many items have them, one byte each.
    Items8(usize),
    /// So many items have them, two bytes each.
    Items16(usize),
}

impl Given {
    /// The number of items, if there are any.
    fn items(self) -> Option<usize> {
        match self {
            Self::Rows => None,
            Self::Items8(items) | Self::Items16(items) => Some(items),
        }
    }
}

/// The signatures of items, and the items of behaviours and of candidates.
#[derive(Debug)]
pub(super) struct Items {
    signatures: Vec<u16>,
    ids: [Vec<u32>; 2],
}

impl Items {
    /// Those of a case, if it has items.
    pub(super) fn of(case: &SdimCase) -> Option<Self> {
        let items = case.given.items()?;
        let (batch, mut rng) = (case.batch(), data::rng(case.seed ^ 0x17e5));
        let ids = [batch.histories(), batch.targets()].map(|rows| {
            // The last row has the last item.
            let mut ids = data::ids(&mut rng, Ids::Uniform, rows.total(), items);
            if rows.total() > 1 {
                ids[0] = 0;
            }
            // Nothing reads those of rows after the last user's.
            ids.resize(rows.rows(), u32::MAX);
            ids
        });
        Some(Self { signatures: data::signatures(&mut rng, items * case.groups, case.bits), ids })
    }

    /// The signatures of each row of a side.
    pub(super) fn of_rows(&self, side: usize, groups: usize) -> Vec<u16> {
        let own = |&id: &u32| match id {
            u32::MAX => vec![0; groups],
            id => self.signatures[id as usize * groups..][..groups].to_vec(),
        };
        self.ids[side].iter().flat_map(own).collect()
    }
}

/// Given signatures of one side on a device. Those of items, and ids, are at odd offsets.
pub(super) enum Source<B: Backend> {
    Rows8(Buffer<B, u8>),
    Rows16(Buffer<B, u16>),
    Items8(Buffer<B, u8>, Buffer<B, u32>),
    Items16(Buffer<B, u16>, Buffer<B, u32>),
}

/// A copy of a list that begins after so many other numbers, and ends before one.
fn upload_after<B: Backend, T: Scalar>(
    backend: &B,
    before: usize,
    list: &[T],
    other: T,
) -> Result<Buffer<B, T>, Failure> {
    let mut all = vec![other; before];
    all.extend_from_slice(list);
    all.push(other);
    Ok(backend.upload(&all)?)
}

/// The list in such a copy.
fn after<'a, B: Backend, T: Scalar>(
    backend: &B,
    before: usize,
    buffer: &'a Buffer<B, T>,
) -> View<'a, B::Memory, T> {
    let all = backend.view(buffer);
    let length = all.len() - before - 1;
    all.slice(before, length).expect("a part of it")
}

fn bytes(words: &[u16]) -> Vec<u8> {
    words.iter().map(|&word| word as u8).collect()
}

impl<B: Backend> Source<B> {
    /// How many other numbers are before the signatures and the ids of items.
    const BEFORE: [usize; 2] = [3, 1];

    /// The signatures of behaviours (side 0) or of candidates, where each row has its own in one byte if it is to.
    pub(super) fn new<T: Element>(
        backend: &B,
        case: &SdimCase,
        inputs: &Inputs<T>,
        (side, in_bytes): (usize, bool),
    ) -> Result<Self, Failure> {
        let [words, numbers] = Self::BEFORE;
        let rows = if side == 0 { &inputs.history_signatures } else { &inputs.target_signatures };
        Ok(match (&inputs.items, case.given) {
            (Some(items), Given::Items8(_)) => Self::Items8(
                upload_after(backend, words, &bytes(&items.signatures), u8::MAX)?,
                upload_after(backend, numbers, &items.ids[side], u32::MAX)?,
            ),
            (Some(items), _) => Self::Items16(
                upload_after(backend, words, &items.signatures, u16::MAX)?,
                upload_after(backend, numbers, &items.ids[side], u32::MAX)?,
            ),
            (None, _) if in_bytes => Self::Rows8(backend.upload(&bytes(rows))?),
            (None, _) => Self::Rows16(backend.upload(rows)?),
        })
    }

    /// What calls are given.
    pub(super) fn hash(&self, backend: &B) -> Hash<'_, B::Memory> {
        let [words, numbers] = Self::BEFORE;
        match self {
            Self::Rows8(given) => Hash::Signatures8(backend.view(given)),
            Self::Rows16(given) => Hash::Signatures16(backend.view(given)),
            Self::Items8(signatures, ids) => Hash::Items8 {
                signatures: after(backend, words, signatures),
                ids: after(backend, numbers, ids),
            },
            Self::Items16(signatures, ids) => Hash::Items16 {
                signatures: after(backend, words, signatures),
                ids: after(backend, numbers, ids),
            },
        }
    }
}

/// Cases of every kernel that reads signatures: few buckets and many, odd numbers of groups, all bits of a word, one item and many.
pub(super) fn cases() -> Vec<SdimCase> {
    let shape =
        SdimCase { histories: vec![70, 0, 31], targets: vec![4, 1, 18], tail: 2, ..Default::default() };
    let sizes = [
        (64, 16, 3, Given::Items8(50)),
        (64, 16, 3, Given::Items16(1000)),
        (5, 3, 8, Given::Items8(7)),
        (7, 1, 9, Given::Items16(300)),
        (8, 1, 16, Given::Items16(9)),
        (16, 2, 12, Given::Items16(20)),
        (20, 5, 2, Given::Items16(1)),
        (3, 37, 1, Given::Items8(1)),
    ];
    sizes.map(|(width, groups, bits, given)| SdimCase { width, groups, bits, given, ..shape.clone() }).into()
}

/// Each part of a batch gathers its own.
pub(super) fn matches_gradients_with_signatures_of_items<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![9, 300, 0], vec![70, 3, 1]);
    let given = Given::Items16(30);
    let weighted = SdimCase { given, weights: Weights::Signed, histories, targets, ..Default::default() };
    for (i, forward) in cases().into_iter().chain([weighted]).enumerate() {
        let narrow = i.is_multiple_of(2);
        assert_check(&SdimBackwardCase { forward, narrow, ..Default::default() }, backend, rules);
    }
}

/// The reference gives the same from signatures of items as from those of rows, with which cases are compared.
fn assert_same_reference(case: &SdimCase) -> Result<(), Failure> {
    let (cpu, op, batch, inputs) = (Cpu::new(), case.op(), case.batch(), case.inputs::<f32>()?);
    let of_items = [0, 1].map(|side| Source::new(&cpu, case, &inputs, (side, false)));
    let [of_items, of_target_items] = of_items;
    let (of_items, of_target_items) = (of_items?, of_target_items?);
    let history = Host::view(&inputs.history);
    let by_items = SdimAttendInputs::new(history, of_items.hash(&cpu), of_target_items.hash(&cpu));
    let [given, target_given] = [&inputs.history_signatures, &inputs.target_signatures]
        .map(|signatures| Hash::Signatures16(Host::view(signatures)));
    let by_rows = SdimAttendInputs::new(history, given, target_given);
    assert_eq!(
        reference::sdim_attend(&op, &batch, &by_items)?,
        reference::sdim_attend(&op, &batch, &by_rows)?
    );
    Ok(())
}

pub(super) fn matches_reference_with_signatures_of_items<B: Backend>(backend: &B, rules: Rules) {
    for case in cases() {
        assert_same_reference(&case).expect("valid calls");
        assert_check(&case, backend, rules);
    }
    let (weights, given) = (Weights::Signed, Given::Items8(50));
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let (histories, targets) = (vec![9, 20, 0, 300, 7], vec![3, 0, 70, 1, 4]);
        let sizes = SdimCase { dtype, histories, targets, ..Default::default() };
        assert_check(&SdimCase { given, weights, shared: true, ..sizes }, backend, rules);
    }
    let (histories, targets) = (vec![20, 7000, 0], vec![2, 700, 1]);
    assert_check(&SdimCase { width: 8, histories, targets, given, ..Default::default() }, backend, rules);
}
