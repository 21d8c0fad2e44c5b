//! Target attention for two users: `cargo run --release -p quickstart`.

use longseq::prelude::*;
use longseq::{Cpu, Jagged, TargetAttention, TargetAttentionInputs};

fn main() -> longseq::Result<()> {
    // Embeddings of width 2. User 0 has 3 behaviours and 1 candidate, user 1 has 2 and 2; rows are concatenated.
    let history = [4.0, 0.0, 0.0, 4.0, 4.0, 4.0, 0.0, 4.0, 4.0, 0.0];
    let candidates = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];

    let backend = Cpu::new();
    let batch = backend.batch(&Jagged::from_lengths(&[3, 2])?, &Jagged::from_lengths(&[1, 2])?)?;
    let history = backend.upload::<f32>(&history)?; // [5, 2]
    let candidates = backend.upload::<f32>(&candidates)?; // [3, 2]
    let inputs = TargetAttentionInputs {
        queries: backend.view(&candidates),
        keys: backend.view(&history),
        values: None, // the keys are the values
        bias: None,
    };
    let interest = backend.target_attention(&TargetAttention::new(2), &batch, inputs)?; // [3, 2]
    let interest: Vec<f32> = backend.download(backend.view(&interest))?;

    println!("on {}", backend.device());
    for (candidate, row) in interest.chunks(2).enumerate() {
        println!("interest of candidate {candidate}: {row:.3?}");
    }
    Ok(())
}
