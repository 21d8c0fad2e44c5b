//! The CPU's results do not depend on the number of threads.
#![cfg(feature = "rayon")]

mod support;

use longseq::Cpu;
use support::Case;
use support::attention::AttentionCase;
use support::decoupled::DecoupledCase;
use support::din::DinCase;
use support::lookup::{LookupCase, Pool};
use support::sdim::SdimCase;

fn assert_same_on_any_pool<C: Case + Sync>(case: &C)
where
    C::Output: Send,
{
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| case.run(&Cpu::new())).expect("a valid case")
    };
    let one = on(1);
    assert!([2, 3, 8].into_iter().all(|threads| on(threads) == one), "{case:?}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (histories, targets) = (vec![3000, 0, 700, 1], vec![5, 3, 40, 2]);
    let (h, t) = (histories.clone(), targets.clone());
    assert_same_on_any_pool(&AttentionCase { histories: h, targets: t, ..Default::default() });
    let (h, t) = (histories.clone(), targets.clone());
    assert_same_on_any_pool(&DinCase { histories: h, targets: t, ..Default::default() });
    let (h, t) = (histories.clone(), targets.clone());
    assert_same_on_any_pool(&SdimCase { histories: h, targets: t, ..Default::default() });
    assert_same_on_any_pool(&DecoupledCase { histories, targets, ..Default::default() });
    let bags = vec![500, 0, 3, 80];
    assert_same_on_any_pool(&LookupCase { pool: Pool::Mean, bags, ..Default::default() });
}
