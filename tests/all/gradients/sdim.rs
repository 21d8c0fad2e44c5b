//! Gradients of SDIM, from given signatures and from rotations.

use longseq::reference::*;
use longseq::*;
use longseq_check::golden::Golden;

use super::*;

/// Inputs of SDIM, and the gradients that come in.
struct Case {
    op: Sdim,
    batch: Batch,
    history: Vec<f32>,
    history_signatures: Vec<u16>,
    target_signatures: Vec<u16>,
    /// Those that `encode` may take.
    weights: Vec<f32>,
    table: Vec<f32>,
    grad_out: Vec<f64>,
    grad_table: Vec<f64>,
}

impl Case {
    fn new(normalise: bool) -> Self {
        let mut numbers = Numbers(31);
        let op = Sdim::new(3).with_groups(2, 2).with_normalise(normalise);
        let batch = batch(&[6, 0, 2, 3], &[3, 1, 2, 0], 1);
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let mut signatures = |rows: usize| numbers.ids(rows * 2, 4).into_iter().map(|id| id as u16).collect();
        let (history_signatures, target_signatures) = (signatures(n), signatures(m));
        let (history, table) = (numbers.f32(n * 3), numbers.f32(4 * 2 * 4 * 3));
        let (grad_out, grad_table) = (numbers.f64(m * 3), numbers.f64(table.len()));
        let weights = numbers.f32(n);
        Self {
            op,
            batch,
            history,
            history_signatures,
            target_signatures,
            weights,
            table,
            grad_out,
            grad_table,
        }
    }

    fn encode(&self) -> SdimEncodeInputs<'_, Host, f32> {
        let hash = Hash::Signatures16(Host::view(&self.history_signatures));
        SdimEncodeInputs::new(Host::view(&self.history), hash)
    }

    fn query(&self) -> SdimQueryInputs<'_, Host, f32> {
        let hash = Hash::Signatures16(Host::view(&self.target_signatures));
        SdimQueryInputs::new(Host::view(&self.table), hash)
    }

    fn attend(&self) -> SdimAttendInputs<'_, Host, f32> {
        let target_hash = Hash::Signatures16(Host::view(&self.target_signatures));
        SdimAttendInputs::new(Host::view(&self.history), self.encode().hash, target_hash)
    }

    fn query_gradient(&self) -> Vec<f64> {
        sdim_query_backward(&self.op, self.batch.targets(), &self.query(), &self.grad_out).unwrap()
    }

    fn compare_query(&mut self, gradient: Vec<f64>) -> Result<(), String> {
        let loss = |case: &Self| {
            dot(&sdim_query(&case.op, case.batch.targets(), &case.query()).unwrap(), &case.grad_out)
        };
        compare_with_differences(self, table_of, loss, &[("table", gradient)])
    }

    fn attend_gradient(&self) -> Vec<f64> {
        sdim_attend_backward(&self.op, &self.batch, &self.attend(), &self.grad_out).unwrap()
    }

    fn compare_attend(&mut self, gradient: Vec<f64>) -> Result<(), String> {
        let loss =
            |case: &Self| dot(&sdim_attend(&case.op, &case.batch, &case.attend()).unwrap(), &case.grad_out);
        let gradients = [("history", gradient)];
        compare_with_differences(self, history_of, loss, &gradients)
    }
}

fn history_of(case: &mut Case) -> Vec<Tensor<'_>> {
    vec![("history", &mut case.history)]
}

fn table_of(case: &mut Case) -> Vec<Tensor<'_>> {
    vec![("table", &mut case.table)]
}

#[test]
fn of_query_and_attend() {
    for normalise in [false, true] {
        let mut case = Case::new(normalise);
        let gradient = case.query_gradient();
        case.compare_query(gradient).unwrap();
        let gradient = case.attend_gradient();
        case.compare_attend(gradient).unwrap();
    }
}

/// The table that new behaviours are added to is linear in them: what holds for encode holds for append.
#[test]
fn of_encode_and_append() {
    for weighted in [false, true] {
        let mut case = Case::new(true);
        fn encode(case: &Case, weighted: bool) -> SdimEncodeInputs<'_, Host, f32> {
            let inputs = case.encode();
            if weighted { inputs.with_weights(Host::view(&case.weights)) } else { inputs }
        }
        let inputs = encode(&case, weighted);
        let gradient =
            sdim_encode_backward(&case.op, case.batch.histories(), &inputs, &case.grad_table).unwrap();
        assert_eq!(gradient[33..], [0.0; 3]);
        let appended = |case: &Case| {
            let new = sdim_encode(&case.op, case.batch.histories(), &encode(case, weighted)).unwrap();
            let table: Vec<f64> =
                case.table.iter().zip(new).map(|(&table, new)| f64::from(table) + new).collect();
            dot(&table, &case.grad_table)
        };
        compare_with_differences(&mut case, history_of, appended, &[("history", gradient)]).unwrap();
    }
}

/// The hash has no gradient: with rotations, it is that of the signatures which they give.
#[test]
fn with_rotations() {
    let mut case = Case::new(true);
    let rotations = case.op.rotations(5).unwrap();
    let targets = Numbers(37).f32(case.grad_out.len());
    let signatures = |rows: &[f32]| -> Vec<u16> {
        let signatures = sdim_signatures(&case.op, rows, &rotations).unwrap();
        signatures.into_iter().map(|signature| signature as u16).collect()
    };
    (case.history_signatures, case.target_signatures) = (signatures(&case.history), signatures(&targets));
    let hash = Hash::Rotations(Host::view(&rotations));
    let inputs =
        SdimAttendInputs::new(Host::view(&case.history), hash, hash).with_targets(Host::view(&targets));
    let gradient = sdim_attend_backward(&case.op, &case.batch, &inputs, &case.grad_out).unwrap();
    assert_eq!(gradient, case.attend_gradient());
    assert!(gradient.iter().any(|&grad| grad != 0.0));
}

/// A bucket row shorter than the floor has a gradient of 0, not of 1e12 and not NaN.
#[test]
fn at_the_floor_of_the_norm() {
    let mut case = Case::new(true);
    case.table.fill(0.0);
    assert!(case.query_gradient().iter().all(|&grad| grad == 0.0));
    case.table.fill(5e-13);
    assert!(case.query_gradient().iter().all(|&grad| grad == 0.0));
    case.table.fill(5e-12);
    assert!(case.query_gradient().iter().any(|&grad| grad.abs() > 1e9));
    // Two behaviours that cancel.
    case.history[..6].copy_from_slice(&[0.5, 0.25, -0.5, -0.5, -0.25, 0.5]);
    case.history_signatures.fill(0);
    case.history_signatures[4..].fill(1);
    case.target_signatures.fill(0);
    assert_eq!(case.attend_gradient()[..6], [0.0; 6]);
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    // Not orthogonal to the bucket row: the part u(u·dout) forgotten.
    let mut case = Case::new(true);
    case.op.normalise = false;
    let linear = case.query_gradient();
    case.op.normalise = true;
    let norm = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let wrong = linear.chunks(3).zip(case.table.chunks(3));
    let wrong = wrong.flat_map(|(grad, row)| grad.iter().map(move |grad| grad / norm(row))).collect();
    assert!(case.compare_query(wrong).is_err());
    // Only the newest of the candidates that read a bucket.
    let whole = case.grad_out.clone();
    case.target_signatures.fill(1);
    case.grad_out[..6].fill(0.0);
    let wrong = case.query_gradient();
    case.grad_out = whole;
    assert!(case.compare_query(wrong).is_err());
}

#[test]
fn need_gradients_of_the_right_size() {
    let case = Case::new(true);
    let (targets, histories) = (case.batch.targets(), case.batch.histories());
    let result = sdim_query_backward(&case.op, targets, &case.query(), &[0.0]);
    assert_eq!(shape_argument(result), "grad_out");
    let result = sdim_attend_backward(&case.op, &case.batch, &case.attend(), &[0.0]);
    assert_eq!(shape_argument(result), "grad_out");
    let result = sdim_encode_backward(&case.op, histories, &case.encode(), &[0.0]);
    assert_eq!(shape_argument(result), "grad_table");
}

#[test]
fn match_published_ones() {
    for name in ["sdim_g16_t3_l2", "sdim_g16_t3_sum", "sdim_g2_t4_l2", "sdim_g5_t1_l2", "sdim_g8_t8_l2"] {
        let golden = Golden::load(name);
        let op = Sdim::new(golden.shape("history")[1])
            .with_groups(golden.number("groups"), golden.number("tau"))
            .with_normalise(golden.flag("l2"));
        let batch =
            Batch::new(golden.jagged("offsets", "history"), golden.jagged("target_offsets", "targets"));
        let [history_signatures, target_signatures] = ["signature_history", "signature_targets"]
            .map(|name| golden.u32(name).into_iter().map(|id| id as u16).collect::<Vec<_>>());
        let history = golden.f32("history");
        let inputs = SdimAttendInputs::new(
            Host::view(&history),
            Hash::Signatures16(Host::view(&history_signatures)),
            Hash::Signatures16(Host::view(&target_signatures)),
        );
        let gradient = sdim_attend_backward(&op, &batch.unwrap(), &inputs, &golden.f64("grad_out")).unwrap();
        assert_published(&golden, "grad_history", &gradient);
    }
}
