//! The CPU's results do not depend on the number of threads.
use longseq::Cpu;
use longseq_check::AnyCase;
use longseq_check::data::Ids;
use longseq_check::decoupled::{DecoupledBackwardCase, DecoupledCase};
use longseq_check::device::TestDevice;
use longseq_check::din::{DinBackwardCase, DinCase, StatisticsCase};
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use longseq_check::lookup::{LookupBackwardCase, LookupCase, Pool, UpdateRowsCase};
use longseq_check::sdim::SdimCase;
use longseq_check::selected::{KeysFrom, SelectedCase, SelectedTableBackwardCase, SelectedTableCase};
use longseq_check::target_attention::AttentionCase;
#[cfg(target_arch = "x86_64")]
use longseq_check::{
    Call, Calls, Failure,
    case::Once,
    lookup::Storage,
    support::{CALLS, small_case},
};

fn assert_same_on_any_pool(case: &AnyCase) {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| Cpu::new().run_case(case)).expect("a valid case")
    };
    let one = on(1);
    assert!([2, 3, 8].into_iter().all(|threads| on(threads) == one), "{case:?}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (histories, targets) = (vec![3000, 0, 700, 1], vec![5, 3, 40, 2]);
    let (h, t) = (histories.clone(), targets.clone());
    assert_same_on_any_pool(&(&AttentionCase { histories: h, targets: t, ..Default::default() }).into());
    let (h, t) = (histories.clone(), targets.clone());
    let din = DinCase { histories: h, targets: t, ..Default::default() };
    assert_same_on_any_pool(&(&din).into());
    assert_same_on_any_pool(&(&StatisticsCase { forward: din.clone() }).into());
    for pooling in [longseq::DinPooling::Sum, longseq::DinPooling::Softmax] {
        let forward = DinCase { pooling, ..din.clone() };
        assert_same_on_any_pool(&(&DinBackwardCase { forward, ..Default::default() }).into());
    }
    let (h, t) = (histories.clone(), targets.clone());
    assert_same_on_any_pool(&(&SdimCase { histories: h, targets: t, ..Default::default() }).into());
    for among in [longseq::KeptAmong::Routed, longseq::KeptAmong::All] {
        let (histories, targets) = (vec![20_000, 0, 700, 1], targets.clone());
        let forward = ChannelsCase { histories, targets, among, top_k: 70, ..Default::default() };
        assert_same_on_any_pool(&(&forward).into());
        assert_same_on_any_pool(&(&ChannelsBackwardCase { forward, ..Default::default() }).into());
    }
    let (h, t) = (histories.clone(), targets.clone());
    let kept = SelectedCase { histories: h, targets: t, top_k: 300, ..Default::default() };
    for keys in [KeysFrom::Rows, KeysFrom::Tables] {
        let forward = SelectedTableCase { forward: kept.clone(), keys, ..Default::default() };
        assert_same_on_any_pool(&(&forward).into());
        assert_same_on_any_pool(&(&SelectedTableBackwardCase { forward, ..Default::default() }).into());
    }
    let forward = DecoupledCase { histories, targets, multiply_target: true, ..Default::default() };
    assert_same_on_any_pool(&(&forward).into());
    // In chunks: more numbers than are held at a time.
    let (attention_widths, representation_widths) = (vec![600, 4], vec![2000, 5]);
    let wide = DecoupledCase { attention_widths, representation_widths, ..forward.clone() };
    for forward in [forward, wide] {
        assert_same_on_any_pool(&(&DecoupledBackwardCase { forward, ..Default::default() }).into());
    }
    let bags = vec![500, 0, 3, 80];
    assert_same_on_any_pool(&(&LookupCase { pool: Pool::Mean, bags, ..Default::default() }).into());
    let bags = vec![150_000, 0, 3];
    let forward =
        LookupCase { pool: Pool::Mean, bags, ids: Ids::Hot, table_rows: vec![1000], ..Default::default() };
    assert_same_on_any_pool(&(&LookupBackwardCase { forward, sorted: true, ..Default::default() }).into());
    let update = UpdateRowsCase { rows: 5000, ids: 9000, draw: Ids::Uniform, ..Default::default() };
    assert_same_on_any_pool(&(&update).into());
}

/// Flushes subnormal numbers to zero on this thread and the threads that it starts, until it is dropped.
#[cfg(target_arch = "x86_64")]
struct Flushing(u32);

#[cfg(target_arch = "x86_64")]
impl Flushing {
    fn new() -> Self {
        let before = mode();
        set_mode(before | 0x8040);
        Self(before)
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Flushing {
    fn drop(&mut self) {
        set_mode(self.0);
    }
}

#[cfg(target_arch = "x86_64")]
fn mode() -> u32 {
    let mut word = 0u32;
    // SAFETY: every x86-64 processor has the instruction; it writes four bytes to `word`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack)) };
    word
}

#[cfg(target_arch = "x86_64")]
fn set_mode(word: u32) {
    // SAFETY: no reserved bit is set, and the test calls nothing but the backend in this mode.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack)) };
}

/// Sums of subnormal numbers are the same where the calling thread, or the thread that started the pool, flushes them.
#[cfg(target_arch = "x86_64")]
#[test]
fn results_do_not_depend_on_the_callers_floating_point_mode() {
    use longseq::prelude::*;
    use longseq::*;
    let length = 3000;
    // Numbers around the smallest normal one: half of them, and many products, are subnormal.
    let number = |i: usize| f32::MIN_POSITIVE * ((i * 37 % 64) as f32 / 32.0 - 1.0);
    let rows: Vec<f32> = (0..length * 4).map(number).collect();
    let (queries, signatures) = ([1.0f32, -0.5, 0.25, 2.0], vec![0u8; length]);
    let (histories, one) =
        (Jagged::from_lengths(&[length]).expect("lengths"), Jagged::from_lengths(&[1]).expect("lengths"));
    let run = || -> Result<Vec<Vec<f32>>> {
        let cpu = Cpu::new();
        let batch = cpu.batch(&histories, &one)?;
        let inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&rows));
        let attention = cpu.target_attention(&TargetAttention::new(4), &batch, inputs)?;
        let identity = TargetAttention::new(4).with_weighting(Weighting::Identity).with_scale(1e30);
        let linear = cpu.target_attention(&identity, &batch, inputs)?;
        let op = Sdim::new(4).with_groups(1, 1).with_normalise(false);
        let hash = Hash::Signatures8(Host::view(&signatures));
        let table = cpu.sdim_encode(&op, &histories, SdimEncodeInputs::new(Host::view(&rows), hash))?;
        let tables = [Table::new(length, 4, TableData::F32(Host::view(&rows)))];
        let ids: Vec<u32> = (0..length as u32).collect();
        let lookup = LookupInputs::new(Host::view(&ids), &tables);
        let (mean, _) = cpu.lookup(&Lookup::default(), Bags::Mean(&histories), lookup)?;
        let (lse, mut merged) = ([0.0], [0.0; 4]);
        let part = PartialAttention::new(Host::view(&rows[..4]), Host::view(&lse));
        let outputs = TargetAttentionOutputs::new(Host::view_mut(&mut merged));
        cpu.merge_attention_into::<f32>(&TargetAttention::new(4), part, part, outputs)?;
        Ok(vec![attention.to_vec(), linear.to_vec(), table.to_vec(), mean.to_vec(), merged.to_vec()])
    };
    let expected = run().expect("valid calls");
    assert!(expected.iter().flatten().any(|x| x.is_subnormal()), "{expected:?}");
    for threads in [1, 3] {
        let (flushed, left) = {
            let _flushing = Flushing::new();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            (run().and_then(|here| Ok((here, pool.install(run)?))), mode() & 0x8040)
        };
        assert_eq!(left, 0x8040, "the caller's mode is left as it is");
        let (here, pooled) = flushed.expect("valid calls");
        assert_eq!((&here, &pooled), (&expected, &expected), "{threads} threads");
    }
}

/// Makes calls on a thread that rounds toward zero and flushes subnormal numbers.
#[cfg(target_arch = "x86_64")]
struct InAnotherMode;

#[cfg(target_arch = "x86_64")]
impl Calls for InAnotherMode {
    fn make(&mut self, _: &'static str, call: &mut Call<'_>) -> Result<(), Failure> {
        const MODE: u32 = 0xe040;
        let before = mode();
        set_mode(before | MODE);
        let made = call();
        let left = mode();
        set_mode(before);
        assert_eq!(left & MODE, MODE, "the caller's mode is left as it is");
        made
    }
}

/// Any numbers show whether a call computes in the mode of the calling thread, since nearly every operation rounds.
#[cfg(target_arch = "x86_64")]
#[test]
fn no_call_computes_in_the_callers_floating_point_mode() {
    let mut calls = 0;
    for (_, call) in CALLS {
        for storage in Storage::ALL {
            let Some(named) = small_case(call, storage) else { continue };
            let run = |how: &mut dyn Calls| Cpu::new().run_case_with(&named.case, how).expect("a valid case");
            let expected = run(&mut Once);
            assert!(run(&mut InAnotherMode) == expected, "{call} of {storage:?}");
            calls += 1;
        }
    }
    assert!(calls > 60, "{calls} calls");
}
