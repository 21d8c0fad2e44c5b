//! The instructions of every small named case on the emulator, against `benches/record/instructions-cuda.tsv`: a third more fails, as
//! `scripts/check-instructions` has it for `Cpu`. `LONGSEQ_WRITE_CALLS=1 cargo test --test all cuda::instructions` writes the record. Shapes of
//! `kernels/evidence.md` are larger, and compared exactly, but outside thorough tests a sample of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cuda_emulator::Emulator;
use longseq::*;
use longseq_check::device::TestDevice;
use longseq_check::device::cuda::session;
use longseq_check::{Named, cases};

/// Instructions of warps that the named call of a case takes.
fn count(emulator: &Emulator, gpu: &Cuda, case: &Named) -> u64 {
    let mut total = 0;
    let mut with = |call: &mut longseq_check::Call<'_>| {
        emulator.take_counts();
        call()?;
        gpu.synchronize()?;
        total = emulator.take_counts().iter().map(|launch| launch.counts.total()).sum();
        Ok(())
    };
    gpu.measure_case(case, &mut with).unwrap_or_else(|failure| panic!("{}: {failure}", case.name));
    total
}

/// What is wrong with a count, if something is.
fn judge(name: &str, counted: u64, recorded: Option<u64>) -> Option<String> {
    let Some(recorded) = recorded else { return Some(format!("{name}: {counted}, not in the record")) };
    if counted < recorded * 3 / 4 {
        println!("{name}: {counted} of {recorded} recorded: down, write the record anew");
    }
    (3 * counted > 4 * recorded)
        .then(|| format!("{name}: {counted} of {recorded} recorded: more than a third up"))
}

#[test]
fn have_not_grown_by_a_third() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    let gpu = Cuda::new(0).expect("a device");
    let path = longseq_check::repository().join("benches/record/instructions-cuda.tsv");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut recorded: BTreeMap<&str, u64> = committed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, count)| (name, count.parse().expect("a count")))
        .collect();
    let (mut text, mut wrong) = (String::new(), Vec::new());
    for case in &cases::small() {
        let known = recorded.remove(case.name);
        let counted = count(&emulator, &gpu, case);
        wrong.extend(judge(case.name, counted, known));
        let _ = writeln!(text, "{}\t{counted}", case.name);
    }
    if std::env::var("LONGSEQ_WRITE_CALLS").is_ok_and(|value| value == "1") {
        return std::fs::write(&path, text).expect("the file can be written");
    }
    wrong.extend(recorded.keys().map(|name| format!("{name}: recorded, and no case")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_third_more_is_too_much() {
    assert_eq!(judge("din", 133, Some(100)), None);
    assert!(judge("din", 134, Some(100)).is_some_and(|wrong| wrong.starts_with("din: 134 of 100")));
    assert!(judge("din", 1, None).is_some());
    assert_eq!(judge("din", 1, Some(100)), None);
}
