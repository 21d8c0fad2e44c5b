//! Look-ups and decoupled embeddings on the emulated CUDA device: ids, counts and positions out of range, and long pieces.

use cuda_emulator::Device;
use longseq::*;
use longseq_check::decoupled::DecoupledCase;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::session;

fn error(operation: &'static str, argument: &'static str, position: u64, id: u64, rows: u64) -> Error {
    Error::IndexOutOfRange { operation, argument, position, id, bound: rows }
}

/// Nothing is read outside the tables and histories, and the next wait reports the first position.
#[test]
fn ids_counts_and_positions_out_of_range_are_reported() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let run = || -> Result<()> {
        let numbers = gpu.upload(&[1.0f32; 12])?;
        let tables = [Table::new(3, 4, TableData::F32(gpu.view(&numbers)))];
        let (good, bad) = (gpu.upload(&[0u32, 1, 2, 0])?, gpu.upload(&[0u32, 3, 2, u32::MAX])?);
        let (good, bad) = (gpu.view(&good), gpu.view(&bad));
        let reported = || gpu.synchronize().unwrap_err();
        let bags = gpu.jagged(&Jagged::from_lengths(&[1, 3])?)?;
        for bags in [Bags::Each, Bags::Sum(&bags), Bags::Mean(&bags)] {
            let inputs = LookupInputs::new(bad, &tables);
            gpu.lookup(&Lookup::default(), bags, inputs)?;
            assert_eq!(reported(), error("lookup", "ids", 1, 3, 3));
        }
        // The second user has no candidates, the third no history.
        let batch = gpu.batch(&Jagged::from_lengths(&[1, 3, 0])?, &Jagged::from_lengths(&[2, 0, 2])?)?;
        let op = Decoupled::new([1.0]).with_top_k(Some(2));
        for (ids, target_ids, argument) in [(bad, good, "history_ids"), (good, bad, "target_ids")] {
            let inputs = SearchInputs::new(&tables, ids, target_ids);
            gpu.decoupled_search(&op, &batch, inputs)?;
            assert_eq!(reported(), error("decoupled_search", argument, 1, 3, 3));
            let inputs = DecoupledInputs::new(&tables, &tables, ids, target_ids);
            for top_k in [Some(2), None] {
                gpu.decoupled_attend(&op.clone().with_top_k(top_k), &batch, inputs)?;
                assert_eq!(reported(), error("decoupled_attend", argument, 1, 3, 3));
            }
        }
        let batch = gpu.batch(&Jagged::from_lengths(&[4])?, &Jagged::from_lengths(&[4])?)?;
        let scores = gpu.upload(&[0.0f32; 8])?;
        for (counts, positions, expected) in [
            ([2, 3, 2, 9], [0; 8], error("decoupled_aggregate", "counts", 1, 3, 3)),
            ([2, 1, 2, 2], [0, 0, 0, 9, 0, 4, 7, 0], error("decoupled_aggregate", "positions", 5, 4, 4)),
        ] {
            let (counts, positions) = (gpu.upload::<u32>(&counts)?, gpu.upload::<u32>(&positions)?);
            let selection = Selection::new(gpu.view(&positions), gpu.view(&scores), gpu.view(&counts));
            let inputs = AggregateInputs::new(&tables, good, good);
            gpu.decoupled_aggregate(&op, &batch, inputs, selection)?;
            assert_eq!(reported(), expected);
        }
        gpu.synchronize()
    };
    run().expect("valid calls");
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

/// Pieces that are longer than lists, on a device with few processors: floors reject entries, and lists are cut while they fill.
#[test]
fn lists_of_rows_of_tables_are_cut_in_long_pieces() {
    let Some(emulator) = session() else { return };
    emulator.set_device(Device { multiprocessors: 4, ..Device::sm_80() });
    let gpu = Cuda::new(0).expect("a device");
    let case = DecoupledCase {
        attention_widths: vec![4, 2],
        representation_widths: vec![2, 1],
        table_rows: vec![5000, 50],
        ..Default::default()
    };
    for (length, candidates, top_k) in [(9000, 16, 50), (20_000, 4, 700), (40_000, 2, 3000)] {
        assert_check(
            &DecoupledCase { histories: vec![length], targets: vec![candidates], top_k, ..case.clone() },
            &gpu,
        );
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}
