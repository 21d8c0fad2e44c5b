//! Given signatures beyond the table.

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
