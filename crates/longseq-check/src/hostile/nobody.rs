//! Calls for nobody.

use longseq::*;

use crate::case::Rules;

/// Counts that no memory could hold rows of, in batches without rows: a result without rows, or an error.
pub(super) fn takes_parameters_of_any_size_for_nobody<B: Backend>(backend: &B, _: Rules) {
    let run = || -> Result<()> {
        let empty = Jagged::from_lengths(&[0])?;
        let batch = backend.batch(&empty, &empty)?;
        let (rows, words) = (backend.zeros::<f32>(0)?, backend.zeros::<u8>(0)?);
        let ids = backend.zeros::<u32>(0)?;
        for heads in [1 << 40, 1 << 58, 1 << 60] {
            let inputs = TargetAttentionInputs::new(backend.view(&rows), backend.view(&rows));
            let op = TargetAttention::new(1).with_heads(heads, heads);
            if let Ok(out) = backend.target_attention(&op, &batch, inputs) {
                assert!(backend.download(backend.view(&out))?.is_empty());
            }
            let (saved, lse) = (backend.zeros::<f32>(0)?, backend.zeros::<f32>(0)?);
            let saved = TargetAttentionSaved::new(backend.view(&saved), backend.view(&lse));
            let grad_out = TargetAttentionGradOut::new(backend.view(&rows));
            let mut grads = [backend.zeros::<f32>(0)?, backend.zeros::<f32>(0)?];
            let [queries, keys] = &mut grads;
            let grads = TargetAttentionGradients::new()
                .with_queries(backend.view_mut(queries))
                .with_keys(backend.view_mut(keys));
            // Answered, with an error or without.
            let _ = backend.target_attention_backward_into(&op, &batch, inputs, saved, grad_out, grads);
            let signatures = backend.view(&words);
            let ids = backend.view(&ids);
            for hash in [Hash::Signatures8(signatures), Hash::Items8 { signatures, ids }] {
                let inputs = SdimAttendInputs::new(backend.view(&rows), hash, hash);
                let op = Sdim::new(1).with_groups(heads, 1);
                if let Ok(out) = backend.sdim_attend(&op, &batch, inputs) {
                    assert!(backend.download(backend.view(&out))?.is_empty());
                }
                let mut grads = backend.zeros::<f32>(0)?;
                let to = backend.view_mut(&mut grads);
                let _ = backend.sdim_attend_backward_into(&op, &batch, inputs, backend.view(&rows), to);
            }
        }
        Ok(())
    };
    run().expect("valid calls");
}
