//! Calls that fail: what they leave in their outputs.

use longseq::Error;

use crate::case::{Call, Calls, Failure};
use crate::device::TestDevice;
use crate::named::AnyCase;

/// Makes each call, and notes its name.
struct Names(Vec<&'static str>);

impl Calls for Names {
    fn make(&mut self, operation: &'static str, call: &mut Call<'_>) -> Result<(), Failure> {
        self.0.push(operation);
        call()
    }
}

/// Lets an allocation fail in the first call of one operation, or leaves it out. What comes after it would read what it did not write, and
/// is left out.
struct OneFails<'a> {
    operation: &'static str,
    /// 0: the call is left out.
    nth: u64,
    fail_allocation: &'a dyn Fn(u64),
    is_made: bool,
    failed: bool,
}

impl Calls for OneFails<'_> {
    fn make(&mut self, operation: &'static str, call: &mut Call<'_>) -> Result<(), Failure> {
        if self.failed {
            return Ok(());
        }
        if self.is_made || operation != self.operation {
            return call();
        }
        self.is_made = true;
        if self.nth == 0 {
            self.failed = true;
            return Ok(());
        }
        (self.fail_allocation)(self.nth);
        let result = call();
        (self.fail_allocation)(0);
        match result {
            Err(failure) if matches!(failure.error(), Some(Error::OutOfMemory { .. })) => self.failed = true,
            other => return other,
        }
        Ok(())
    }
}

/// Makes each allocation of each call of a case fail, one at a time: the call is out of memory, and has written nothing. Returns how many
/// failed. `fail_allocation` makes the nth allocation from then on fail, or none with 0.
///
/// # Errors
/// A call that failed otherwise, or wrote something.
pub fn fail_each_allocation(
    device: &impl TestDevice,
    case: &AnyCase,
    fail_allocation: &dyn Fn(u64),
) -> Result<usize, Failure> {
    let mut names = Names(Vec::new());
    let expected = device.run_case_with(case, &mut names)?;
    names.0.sort_unstable();
    names.0.dedup();
    let mut failed = 0;
    for operation in names.0 {
        let fails = |nth| OneFails { operation, nth, fail_allocation, is_made: false, failed: false };
        let untouched = device.run_case_with(case, &mut fails(0))?;
        for nth in 1.. {
            let mut calls = fails(nth);
            let output = device.run_case_with(case, &mut calls)?;
            let wanted = if calls.failed { &untouched } else { &expected };
            // As text, in which the poison, NaN, is equal to itself.
            if format!("{output:?}") != format!("{wanted:?}") {
                return Err(Failure::new(format!(
                    "{operation}, allocation {nth} of {case:?}: wrote something"
                )));
            }
            if !calls.failed {
                break;
            }
            failed += 1;
        }
    }
    Ok(failed)
}

/// Small cases of every operation that takes scratch memory between its outputs: gradients, and forward passes of several parts.
pub fn cases() -> Vec<AnyCase> {
    use longseq::{DType, DinPooling, IdPolicy};

    use crate::data::Data;
    use crate::decoupled::{DecoupledBackwardCase, DecoupledCase};
    use crate::din::{DinBackwardCase, DinCase, StatisticsCase};
    use crate::lookup::{Form, LookupBackwardCase, LookupCase, Pool, UpdateRowsCase};
    use crate::sdim::{SdimBackwardCase, SdimCase};
    use crate::target_attention::{AttentionBackwardCase, AttentionCase};

    let (histories, targets) = (vec![70, 0, 9], vec![3, 1, 2]);
    let attention = AttentionCase {
        dtype: DType::Bf16,
        histories: histories.clone(),
        targets: targets.clone(),
        ..Default::default()
    };
    let din = DinCase {
        dtype: DType::F16,
        histories: vec![20, 3],
        targets: vec![2, 1],
        hidden: vec![8, 4],
        pooling: DinPooling::Softmax,
        ..Default::default()
    };
    let sdim = SdimCase { histories: histories.clone(), targets: targets.clone(), ..Default::default() };
    let bags = LookupCase {
        pool: Pool::Mean,
        bags: vec![30, 0, 2],
        widths: vec![5, 4],
        table_rows: vec![9, 40],
        second_widths: vec![3, 1],
        ..Default::default()
    };
    let kept = DecoupledCase {
        histories: histories.clone(),
        targets: targets.clone(),
        multiply_target: true,
        ..Default::default()
    };
    let mut cases: Vec<AnyCase> = vec![
        (&AttentionBackwardCase { forward: attention.clone(), narrow: true, ..Default::default() }).into(),
        (&attention).into(),
        (&DinBackwardCase { forward: din.clone(), narrow: true, ..Default::default() }).into(),
        (&StatisticsCase { forward: din.clone() }).into(),
        (&din).into(),
        (&sdim).into(),
        (&bags).into(),
        (&kept).into(),
        (&UpdateRowsCase::default()).into(),
    ];
    for hashed in [false, true] {
        let case = SdimBackwardCase { forward: sdim.clone(), narrow: true, hashed, ..Default::default() };
        cases.push((&case).into());
    }
    let weighted = LookupCase { pool: Pool::Sum, weights: Some(Data::Normal), ..bags.clone() };
    let skipping = LookupCase { policy: IdPolicy::Skip, ..bags.clone() };
    for (forward, sorted) in [(&bags, false), (&bags, true), (&weighted, false), (&skipping, true)] {
        let forms = vec![Form::Sparse, Form::Dense];
        let case = LookupBackwardCase { forward: forward.clone(), forms, sorted, ..Default::default() };
        cases.push((&case).into());
    }
    cases.extend([(&weighted).into(), (&skipping).into()]);
    for given in [false, true] {
        let case = DecoupledBackwardCase { forward: kept.clone(), given, ..Default::default() };
        cases.push((&case).into());
    }
    cases
}
