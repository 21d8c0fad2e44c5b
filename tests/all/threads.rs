//! The CPU's results do not depend on the number of threads.
use longseq::Cpu;
use longseq_check::AnyCase;
use longseq_check::decoupled::DecoupledCase;
use longseq_check::device::TestDevice;
use longseq_check::din::DinCase;
use longseq_check::lookup::{LookupCase, Pool};
use longseq_check::sdim::SdimCase;
use longseq_check::target_attention::AttentionCase;

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
    assert_same_on_any_pool(&(&DinCase { histories: h, targets: t, ..Default::default() }).into());
    let (h, t) = (histories.clone(), targets.clone());
    assert_same_on_any_pool(&(&SdimCase { histories: h, targets: t, ..Default::default() }).into());
    assert_same_on_any_pool(&(&DecoupledCase { histories, targets, ..Default::default() }).into());
    let bags = vec![500, 0, 3, 80];
    assert_same_on_any_pool(&(&LookupCase { pool: Pool::Mean, bags, ..Default::default() }).into());
}
