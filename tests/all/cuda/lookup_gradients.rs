//! Gradients of look-ups on the emulated CUDA device: every kernel in every mode of the emulator, and kernels that are wrong on
//! purpose.

use cuda_emulator::Device;
use longseq::*;
use longseq_check::data::{Data, Ids};
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::lookup::{Form, LookupBackwardCase, LookupCase, Pool, UpdateRowsCase};
use longseq_check::{Case, Failure};

use super::wrong_kernels::{Check, Mutant, assert_caught, assert_caught_in, checked, everywhere};

/// Ids of which a third are one, in more blocks than one, or all.
fn gradients(pool: Pool, ids: Ids, width: usize) -> LookupBackwardCase {
    let forward = LookupCase {
        pool,
        ids,
        table_rows: vec![5000],
        widths: vec![width],
        second_widths: vec![3],
        bags: vec![2500, 0, 40],
        ..Default::default()
    };
    LookupBackwardCase { forward, ..Default::default() }
}

/// Weights of ids, of which some are outside; of rows of whole vec4s and others.
fn weighted() -> LookupBackwardCase {
    let case = gradients(Pool::Sum, Ids::Skewed, 64);
    let (weights, policy) = (Some(Data::Normal), IdPolicy::Skip);
    let forward = LookupCase { weights, policy, bags: vec![2500, 0, 40, 1, 9, 3], ..case.forward };
    LookupBackwardCase { forward, ..Default::default() }
}

/// Means without the ids outside.
fn skipped() -> LookupBackwardCase {
    let case = gradients(Pool::Mean, Ids::Uniform, 6);
    let forward = LookupCase { policy: IdPolicy::Skip, ..case.forward };
    LookupBackwardCase { forward, ..Default::default() }
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let cases = [
        gradients(Pool::Each, Ids::Uniform, 64),
        gradients(Pool::Sum, Ids::Hot, 6),
        gradients(Pool::Mean, Ids::Last, 64),
        LookupBackwardCase { sorted: true, ..gradients(Pool::Mean, Ids::Hot, 1) },
        LookupBackwardCase { forms: vec![Form::Dense], ..gradients(Pool::Sum, Ids::Skewed, 8) },
        weighted(),
        skipped(),
    ];
    for forward in [weighted().forward, skipped().forward] {
        assert_check(&forward, &gpu);
    }
    for (index, case) in cases.iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
        }
    }
    let optimisers = [
        Optimiser::sgd(0.1),
        Optimiser::row_wise_adagrad(0.1),
        Optimiser::adagrad(0.1),
        Optimiser::adam(0.1, 3),
    ];
    for (index, optimiser) in optimisers.into_iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            for (dtype, width) in [(DType::F32, 64), (DType::F16, 20), (DType::Bf16, 7), (DType::F32, 150)] {
                assert_check(&UpdateRowsCase { optimiser, dtype, width, ..Default::default() }, &gpu);
            }
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

/// The gradients have the same bits whatever the order of blocks and warps.
#[test]
fn gradients_of_tables_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    let case = gradients(Pool::Mean, Ids::Hot, 20);
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

/// A row that a third of 100,000 ids name costs little more than any other: warp instructions of a backward pass, the sort included.
#[test]
fn a_hot_row_costs_at_most_half_as_much_again() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let instructions = |ids| {
        let forward = LookupCase {
            ids,
            pool: Pool::Each,
            table_rows: vec![100_000],
            widths: vec![8],
            bags: vec![100_000],
            data: Data::Zeros,
            ..Default::default()
        };
        let case = LookupBackwardCase { forward, ..Default::default() };
        let gpu = Cuda::new(0).expect("a device");
        assert_check(&case, &gpu);
        emulator.take_counts().iter().map(|launch| launch.counts.total()).sum::<u64>()
    };
    let (uniform, hot) = (instructions(Ids::Uniform), instructions(Ids::Hot));
    assert!(2 * hot <= 3 * uniform, "{hot} instructions for a hot row, {uniform} without");
}

/// More blocks of keys than a block of the scan has threads.
#[test]
fn many_ids_are_sorted() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let ids: Vec<u32> = (0..530_000u32).map(|i| i.wrapping_mul(2_654_435_761) >> 25).collect();
    let run = || -> Result<()> {
        let gpu = Cuda::new(0)?;
        let on_device = gpu.upload(&ids)?;
        let sorted = gpu.sort_ids(IdColumn::new(gpu.view(&on_device), 1, 0, 128))?;
        let exact = reference::sort_ids(&IdColumn::new(Host::view(&ids), 1, 0, 128))?;
        let views = sorted.sorted();
        assert_eq!(gpu.download(views.ids)?, exact.ids);
        assert_eq!(gpu.download(views.starts)?, exact.starts);
        assert!(gpu.download(views.positions)? == exact.positions);
        Ok(())
    };
    run().expect("a valid column");
}

#[test]
fn wrong_gradients_of_lookups_are_caught() {
    assert_caught(wrong());
    // A device with one processor gets pieces of more than a block of rows from bags that are not as long.
    let Some(emulator) = session() else { return };
    emulator.set_device(Device { multiprocessors: 1, ..Device::sm_80() });
    assert_caught_in(&emulator, wrong_in_long_pieces());
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let sort = |kernel, fault, edit| mutant("lookup_sort", kernel, fault, edit);
    let of = |kernel, fault, edit| mutant("lookup_backward", kernel, fault, edit);
    let update = |fault, edit| mutant("lookup_update", "update_rows", fault, edit);
    let case = gradients(Pool::Mean, Ids::Hot, 6);
    let dense = LookupBackwardCase { forms: vec![Form::Dense], ..case.clone() };
    let one = gradients(Pool::Each, Ids::Last, 6);
    let outside = LookupCase { policy: IdPolicy::Zero, ..case.forward.clone() };
    let outside = LookupBackwardCase { forward: outside, ..case.clone() };
    let (less, less_or_equal) = (("setp.ge.u64", "setp.gt.u64"), ("setp.le.u64", "setp.lt.u64"));
    let twins = [
        (sort("sort_load", "one id too many", less), &outside),
        (sort("sort_count", "counted before all are zero", ("bar.sync \t0;", "")), &case),
        (sort("sort_scan", "lanes exchanged the other way", ("shfl.sync.up", "shfl.sync.down")), &case),
        (everywhere(sort("sort_scatter", "lanes apart", APART)), &case),
        (everywhere(sort("sort_scatter", "places read too early", ("bar.sync \t0;", ""))), &case),
        (everywhere(sort("sort_heads", "heads not counted", ("popc.b32", "clz.b32"))), &case),
        (everywhere(sort("sort_runs", "heads not counted", ("popc.b32", "clz.b32"))), &case),
        (everywhere(of("bags_of_rows", "the bag before", less_or_equal)), &case),
        (of("bags_of_rows", "multiplied by the length", ("rcp.rn.f32", "neg.f32")), &case),
        (of("gradient_ids", "one id too many", ("setp.ge.u64", "setp.gt.u64")), &case),
        (of("gradient_clear", "not cleared", ("setp.ge.u64", "setp.lt.u64")), &dense),
        (of("gradient_windows", "no run ends", ("redux.sync.or", "redux.sync.and")), &case),
        (of("gradient_windows", "runs end a place early", ("not.b32", "neg.s32")), &case),
        (everywhere(of("gradient_windows", "staged rows read too early", APART)), &case),
        (everywhere(of("gradient_heads", "heads subtracted", ("add.rn.f32", "sub.rn.f32"))), &one),
        (everywhere(of("gradient_long_runs", "heads subtracted", ("add.rn.f32", "sub.rn.f32"))), &one),
    ];
    let mut twins: Vec<(Mutant, Check)> = twins.map(|(mutant, case)| (mutant, checked(case))).into();
    twins.extend(wrong_weights());
    let step = |optimiser| UpdateRowsCase { optimiser, width: 20, ..Default::default() };
    for (mutant, case) in [
        (
            update("the factor of one lane", ("shfl.sync.idx", "shfl.sync.bfly")),
            Optimiser::row_wise_adagrad(0.1),
        ),
        (everywhere(update("not a root", ("sqrt.rn.f32", "neg.f32"))), Optimiser::adagrad(0.1)),
        (everywhere(update("steps added", ("sub.rn.f32", "add.rn.f32"))), Optimiser::adam(0.1, 3)),
    ] {
        twins.push((mutant, checked(&step(case))));
    }
    let check = || Check::new("reports an order", reports_an_order);
    twins.push((of("order_check", "equal ids in order", ("setp.lt.u32", "setp.le.u32")), check()));
    twins.push((
        of("order_begin", "as many ids as there is room for ignored", ("setp.lt.u64", "setp.le.u64")),
        check(),
    ));
    twins.push((
        of("order_begin", "as many ids as there is room for refused", ("setp.ge.u64", "setp.gt.u64")),
        check(),
    ));
    twins
}

/// Kernels of weights of ids and of means without those outside.
fn wrong_weights() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: true };
    let of = |kernel, fault, edit| mutant("lookup_weights", kernel, fault, edit);
    let forward = |kernel, fault, edit| mutant("lookup", kernel, fault, edit);
    let (weighted, skipped) = (weighted(), skipped());
    let lookups = [
        (
            forward("lookup_weighted_bags", "one row too many", ("setp.ge.u32", "setp.gt.u32")),
            &weighted.forward,
        ),
        (of("clear_counts", "not cleared", ("setp.ge.u64", "setp.lt.u64")), &skipped.forward),
        (of("count_ids", "ids outside counted", ("setp.le.u64", "setp.gt.u64")), &skipped.forward),
        (of("count_ids", "two for each", ("], 1;", "], 2;")), &skipped.forward),
    ];
    let gradients = [
        (of("weigh_ids", "counts for shares", ("rcp.rn.f32", "neg.f32")), &skipped),
        (of("weigh_ids", "the bag before", ("setp.le.u64", "setp.lt.u64")), &weighted),
        (of("weight_gradient", "lanes subtracted", ("add.rn.f32", "sub.rn.f32")), &weighted),
    ];
    let lookups = lookups.map(|(mutant, case)| (mutant, checked(case)));
    lookups.into_iter().chain(gradients.map(|(mutant, case)| (mutant, checked(case)))).collect()
}

/// Sums of several blocks of rows of a bag, or of columns of a row, of which the second is left out.
pub(super) fn wrong_in_long_pieces() -> Vec<(Mutant, Check)> {
    let of = |stem, kernel, edit| Mutant {
        stem,
        kernel,
        fault: "the second block left out",
        edit,
        everywhere: true,
    };
    let rows = (", 256;\n\tsetp.gt.u32", ", 512;\n\tsetp.gt.u32");
    let columns = (", 2048;\n\tsetp.gt.u32", ", 4096;\n\tsetp.gt.u32");
    let (weighted, skipped) = (weighted(), skipped());
    let forward = LookupCase { widths: vec![2500], bags: vec![3, 0, 2], ..weighted.forward.clone() };
    let wide = LookupBackwardCase { forward, ..Default::default() };
    vec![
        (of("lookup", "lookup_weighted_bags", rows), checked(&weighted.forward)),
        (of("lookup", "lookup_bags", rows), checked(&skipped.forward)),
        (of("lookup_weights", "weight_gradient", columns), checked(&wide)),
    ]
}

/// Mutation: the lanes of a warp need not meet.
const APART: (&str, &str) = ("bar.warp.sync", "//");

/// The first id that is not above the one before is reported, and nothing of a gradient that is right.
fn reports_an_order(gpu: &Cuda) -> Result<(), Failure> {
    let update = |ids: &[u32]| -> Result<Vec<f32>> {
        let mut table = gpu.zeros::<f32>(6)?;
        let (rows, count) = (gpu.upload(&vec![-1.0f32; 2 * ids.len()])?, gpu.upload(&[ids.len() as u32])?);
        let ids = gpu.upload(ids)?;
        let gradient = SparseGradient::new(gpu.view(&ids), gpu.view(&rows), gpu.view(&count));
        let changed = TableMut::new(3, 2, gpu.view_mut(&mut table));
        gpu.update_rows(&Optimiser::sgd(1.0), changed, OptimiserState::Empty, gradient)?;
        gpu.download(gpu.view(&table))
    };
    let changed = update(&[0, 2])?;
    if changed != [1.0, 1.0, 0.0, 0.0, 1.0, 1.0] {
        return Err(Failure::new(format!("updated to {changed:?}")));
    }
    match update(&[1, 1, 0]) {
        Err(Error::Parameter { argument: "gradient.ids", got, .. }) if got == "1 at position 1" => Ok(()),
        other => Err(Failure::new(format!("reported {other:?}"))),
    }
}

#[test]
fn wrong_lookups_are_caught() {
    assert_caught(wrong_lookups());
}

pub(super) fn wrong_lookups() -> Vec<(Mutant, Check)> {
    let mutant = |kernel, fault, edit| Mutant { stem: "lookup", kernel, fault, edit, everywhere: false };
    let each = LookupCase::default();
    let bags = LookupCase { pool: Pool::Mean, bags: vec![3, 1000, 0], ..each.clone() };
    let twins = [
        (mutant("lookup_each", "one row too many", ("setp.ge.u64", "setp.gt.u64")), &each),
        (mutant("lookup_combine", "parts subtracted", ("add.rn.f32", "sub.rn.f32")), &bags),
        (
            everywhere(mutant("lookup_combine", "multiplied by the length", ("div.rn.f32", "mul.rn.f32"))),
            &bags,
        ),
        (everywhere(mutant("lookup_bags", "multiplied by the length", ("div.rn.f32", "mul.rn.f32"))), &bags),
    ];
    twins.map(|(mutant, case)| (mutant, checked(case))).into()
}
