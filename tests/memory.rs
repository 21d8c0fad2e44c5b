//! Memory beyond inputs and outputs stays small, however long a history is.

use longseq::prelude::*;
use longseq::{Activation, Din, DinGradients, DinInputs, DinLayer, DinLayerGradients, DinPooling};
use longseq::{Batch, Cpu, Host, Jagged, TargetAttention, TargetAttentionInputs, TargetAttentionOutputs};
use longseq::{Decoupled, DecoupledGradients, DecoupledInputs, DecoupledSaved, Table, TableData};
use longseq::{Hash, Sdim, SdimAttendInputs, SdimEncodeInputs};
use longseq::{TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionSaved};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Fails where the call takes more than 64 MiB.
fn assert_small(name: &str, call: impl FnOnce()) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    call();
    let beyond = ALLOCATOR.peak_usage() - before;
    assert!(beyond <= 64 << 20, "{name}: {beyond} bytes beyond inputs and outputs");
}

const LENGTH: usize = 1_000_000;
const CANDIDATES: usize = 100;

fn rows(count: usize) -> Vec<f32> {
    (0..count * 64).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect()
}

/// The only test of this binary: others would allocate at the same time.
#[test]
fn a_million_behaviours_need_less_than_64_mib() {
    let lengths = [LENGTH, CANDIDATES].map(|length| Jagged::from_lengths(&[length]).expect("a length"));
    let batch = Cpu::new().batch(&lengths[0], &lengths[1]).expect("a batch");
    attention_needs_little(&batch);
    decoupled_embeddings_need_little(&batch);
    din_needs_little();
    sdim_needs_little(&batch);
}

/// Two candidates: each behaviour of each goes through the network twice, and a hundred take minutes.
fn din_needs_little() {
    const UNITS: usize = 8;
    let lengths = [LENGTH, 2].map(|length| Jagged::from_lengths(&[length]).expect("a length"));
    let (backend, op) = (Cpu::new(), Din::new(64).with_pooling(DinPooling::Softmax));
    let batch = backend.batch(&lengths[0], &lengths[1]).expect("a batch");
    let (targets, history, grad_out) = (rows(2), rows(LENGTH), rows(2));
    let (weight, bias, output_weight) = (rows(4 * UNITS), [0.25; UNITS], [0.5; UNITS]);
    let hidden = [DinLayer::new(Host::view(&weight), Host::view(&bias), Activation::Relu)];
    let (output_weight, output_bias) = (Host::view(&output_weight), Host::view(&[0.0]));
    let inputs =
        DinInputs::new(Host::view(&targets), Host::view(&history), &hidden, output_weight, output_bias);
    let (mut grad_history, mut grad_weight) = (vec![0.0; LENGTH * 64], vec![0.0; weight.len()]);
    assert_small("din backward", || {
        let mut hidden = [DinLayerGradients::new().with_weight(Host::view_mut(&mut grad_weight))];
        let grads = DinGradients::<_, f32>::new()
            .with_history(Host::view_mut(&mut grad_history))
            .with_hidden(&mut hidden);
        backend.din_backward_into(&op, &batch, inputs, Host::view(&grad_out), grads).expect("a valid call");
    });
    assert!([grad_history, grad_weight].iter().all(|grads| grads.iter().any(|&grad| grad != 0.0)));
}

/// Encoded to a table, and without one.
fn sdim_needs_little(batch: &Batch) {
    let (backend, op) = (Cpu::new(), Sdim::new(64));
    let rotations = op.rotations(1).expect("a valid operation");
    let hash = Hash::Rotations(Host::view(&rotations));
    let (history, targets, grad_out) = (rows(LENGTH), rows(CANDIDATES), rows(CANDIDATES));
    let grad_table = rows(op.table_length(1).expect("a valid operation") / 64);
    let mut grads = vec![0.0; LENGTH * 64];
    assert_small("sdim encode backward", || {
        let inputs = SdimEncodeInputs::<_, f32>::new(Host::view(&history), hash);
        let (from, to) = (Host::view(&grad_table), Host::view_mut(&mut grads));
        let histories = batch.histories();
        backend
            .sdim_encode_backward_into::<f32, f32>(&op, histories, inputs, from, to)
            .expect("a valid call");
    });
    assert!(grads.iter().any(|&grad| grad != 0.0));
    grads.fill(0.0);
    assert_small("sdim attend backward", || {
        let inputs =
            SdimAttendInputs::new(Host::view(&history), hash, hash).with_targets(Host::view(&targets));
        let (from, to) = (Host::view(&grad_out), Host::view_mut(&mut grads));
        backend.sdim_attend_backward_into::<f32, f32>(&op, batch, inputs, from, to).expect("a valid call");
    });
    assert!(grads.iter().any(|&grad| grad != 0.0));
}

/// Over the whole history, from tables so large that most ids are met.
fn decoupled_embeddings_need_little(batch: &Batch) {
    const ROWS: usize = 50_000;
    let (backend, op) = (Cpu::new(), Decoupled::new([0.1]).with_top_k(None).with_multiply_target(true));
    let ids = |count: u32| -> Vec<u32> {
        (0..count).map(|i| i.wrapping_mul(2_654_435_761) % ROWS as u32).collect()
    };
    let (rows_of_table, grad_out) = (rows(ROWS), rows(CANDIDATES));
    let tables = [Table::new(ROWS, 64, TableData::F32(Host::view(&rows_of_table)))];
    let (history_ids, target_ids) = (ids(LENGTH as u32), ids(CANDIDATES as u32));
    let inputs = DecoupledInputs::new(&tables, &tables, Host::view(&history_ids), Host::view(&target_ids));
    let mut gradients = [0, 1].map(|_| backend.sparse_gradient(ROWS, 64).expect("memory"));
    let [attention, representation] = &mut gradients;
    assert_small("decoupled backward", || {
        let grads = DecoupledGradients::new()
            .with_attention([Some(attention.table_gradient())])
            .with_representation([Some(representation.table_gradient())]);
        let (saved, grad_out) = (DecoupledSaved::new(), Host::view(&grad_out));
        backend
            .decoupled_attend_backward_into(&op, batch, inputs, saved, grad_out, grads)
            .expect("a valid call");
    });
    assert!(gradients.iter().all(|gradient| gradient.rows.iter().any(|&grad| grad != 0.0)));
}

fn attention_needs_little(batch: &Batch) {
    let (backend, op) = (Cpu::new(), TargetAttention::new(64));
    let (queries, keys, grad_out) = (rows(CANDIDATES), rows(LENGTH), rows(CANDIDATES));
    let inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys));
    let (mut out, mut lse) = (vec![0.0; CANDIDATES * 64], vec![0.0; CANDIDATES]);
    assert_small("forward", || {
        let outputs =
            TargetAttentionOutputs::new(Host::view_mut(&mut out)).with_lse(Host::view_mut(&mut lse));
        backend.target_attention_into(&op, batch, inputs, outputs).expect("a valid call");
    });
    let (mut grad_queries, mut grad_keys) = (vec![0.0; CANDIDATES * 64], vec![0.0; LENGTH * 64]);
    assert_small("backward", || {
        let saved = TargetAttentionSaved::new(Host::view(&out), Host::view(&lse));
        let grads = TargetAttentionGradients::<_, f32>::new()
            .with_queries(Host::view_mut(&mut grad_queries))
            .with_keys(Host::view_mut(&mut grad_keys));
        let grad_out = TargetAttentionGradOut::new(Host::view(&grad_out));
        backend
            .target_attention_backward_into(&op, batch, inputs, saved, grad_out, grads)
            .expect("a valid call");
    });
    assert!(grad_keys.iter().chain(&grad_queries).any(|&grad| grad != 0.0));
}
