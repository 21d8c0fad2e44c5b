//! Given signatures beyond the table, and items that are not there.

use longseq::*;

use super::batch;

/// Also where nobody reads it, as there is no candidate.
pub(super) fn finds_a_signature_outside<B: Backend>(backend: &B) {
    for candidates in [0, 1] {
        let run = || -> Result<()> {
            let (history, signatures) = (backend.upload(&[1.0f32])?, backend.upload(&[9u8])?);
            let target = backend.upload(&vec![0u8; candidates])?;
            let [given, target] = [&signatures, &target].map(|codes| Hash::Signatures8(backend.view(codes)));
            let op = Sdim::new(1).with_groups(1, 1);
            let inputs = SdimAttendInputs::new(backend.view(&history), given, target);
            let _ = backend.sdim_attend(&op, &batch(backend, 1, candidates), inputs)?;
            backend.synchronize()
        };
        match run() {
            Err(Error::IndexOutOfRange { argument: "signatures", position: 0, id: 9, bound: 2, .. }) => {}
            other => panic!("{candidates} candidates: {other:?}"),
        }
    }
}

/// Ids of items far outside, also where there is no candidate, or no item at all.
pub(super) fn finds_an_item_outside<B: Backend>(backend: &B) {
    for (items, id) in [(0, 0), (0, u32::MAX), (3, 3), (3, u32::MAX), (3, u32::MAX / 3 + 1)] {
        for candidates in [0, 1] {
            let run = || -> Result<()> {
                let (history, signatures) =
                    (backend.upload(&[1.0f32])?, backend.upload(&vec![0u8; 3 * items])?);
                let (ids, target) = (backend.upload(&[id])?, backend.upload(&vec![0u8; 3 * candidates])?);
                let given = Hash::Items8 { signatures: backend.view(&signatures), ids: backend.view(&ids) };
                let op = Sdim::new(1).with_groups(3, 1);
                let target = Hash::Signatures8(backend.view(&target));
                let inputs = SdimAttendInputs::new(backend.view(&history), given, target);
                let _ = backend.sdim_attend(&op, &batch(backend, 1, candidates), inputs)?;
                backend.synchronize()
            };
            match run() {
                Err(Error::IndexOutOfRange { argument: "ids", position: 0, id: got, bound, .. })
                    if got == u64::from(id) && bound == items as u64 => {}
                other => panic!("{id} of {items}, {candidates} candidates: {other:?}"),
            }
        }
    }
}
