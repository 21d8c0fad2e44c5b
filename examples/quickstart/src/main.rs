//! Target attention for two users: `cargo run --release -p quickstart`.

use longseq::prelude::*;
use longseq::{Cpu, Jagged, TargetAttention, TargetAttentionInputs};

fn main() -> longseq::Result<()> {
    // Rows of width 2, concatenated over users: user 0 has 3 behaviours and 1 candidate, user 1 has 2 and 2.
    let history = [4.0_f32, 0.0, 0.0, 4.0, 4.0, 4.0, 0.0, 4.0, 4.0, 0.0];
    let candidates = [1.0_f32, 0.0, 1.0, 0.0, 0.0, 1.0];

    let backend = Cpu::new(); // or Wgpu::new()?, Cuda::new(0)?
    let batch = backend.batch(&Jagged::from_lengths(&[3, 2])?, &Jagged::from_lengths(&[1, 2])?)?;
    let (history, candidates) = (backend.upload(&history)?, backend.upload(&candidates)?);
    // The history is both keys and values; `with_values` would separate them.
    let inputs = TargetAttentionInputs::new(backend.view(&candidates), backend.view(&history));
    let interest = backend.target_attention(&TargetAttention::new(2), &batch, inputs)?;
    let interest = backend.download(backend.view(&interest))?; // [3, 2]: one row per candidate

    println!("Device: {}", backend.device());
    for (user, candidates) in batch.targets().ranges().enumerate() {
        for candidate in candidates {
            println!("user {user}, candidate {candidate}: interest {:.3?}", &interest[2 * candidate..][..2]);
        }
    }
    Ok(())
}
