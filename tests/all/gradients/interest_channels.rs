//! Gradients of interest channels.

use longseq::reference::*;
use longseq::*;

use super::*;

/// Inputs of interest channels, what they keep, and the gradient that comes in.
struct Case {
    op: InterestChannels,
    batch: Batch,
    axes: Vec<f32>,
    history: Vec<f32>,
    positions: Vec<u32>,
    counts: Vec<u32>,
    grad_out: Vec<f64>,
}

impl Case {
    /// Users with and without behaviours and candidates, rows of nobody.
    fn new(op: InterestChannels) -> Self {
        let mut numbers = Numbers(7);
        let batch = batch(&[6, 0, 9, 1, 2], &[2, 3, 1, 2, 0], 1);
        let (n, lists) = (batch.histories().rows(), batch.targets().rows() * op.channels);
        let (axes, history) = (numbers.f32(lists * op.width), numbers.f32(n * op.width));
        let grad_out = numbers.f64(lists * op.width);
        let mut case = Self { op, batch, axes, history, positions: Vec::new(), counts: Vec::new(), grad_out };
        let kept = interest_channels(&case.op, &case.batch, &case.inputs()).expect("a valid case").kept;
        (case.positions, case.counts) = (kept.positions, kept.counts);
        case
    }

    fn inputs(&self) -> InterestChannelsInputs<'_, Host, f32> {
        InterestChannelsInputs::new(Host::view(&self.axes), Host::view(&self.history))
    }

    /// Calls a reference with what is kept.
    fn with_kept<R>(&self, call: impl FnOnce(&Selection<'_, Host>) -> Result<R>) -> R {
        let scores = vec![0.0; self.positions.len()];
        let kept = Selection::new(Host::view(&self.positions), Host::view(&scores), Host::view(&self.counts));
        call(&kept).expect("a valid case")
    }

    fn loss(&self) -> f64 {
        let out = self.with_kept(|kept| interest_channels_of(&self.op, &self.batch, &self.inputs(), kept));
        dot(&out, &self.grad_out)
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        vec![("axes", &mut self.axes), ("history", &mut self.history)]
    }

    fn gradient(&self) -> InterestChannelsGradientReference {
        self.with_kept(|kept| {
            interest_channels_backward(&self.op, &self.batch, &self.inputs(), kept, &self.grad_out)
        })
    }

    fn compare(&mut self, gradient: InterestChannelsGradientReference) -> Result<(), String> {
        let gradients = [("axes", gradient.axes), ("history", gradient.history)];
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }
}

fn op() -> InterestChannels {
    InterestChannels::new(5).with_channels(3).with_top_k(2)
}

#[test]
fn of_every_option() {
    for among in [KeptAmong::Routed, KeptAmong::All] {
        for normalise in [false, true] {
            for channels in [1, 2, 3] {
                let op = op().with_among(among).with_normalise(normalise).with_channels(channels);
                let mut case = Case::new(op);
                let gradient = case.gradient();
                case.compare(gradient).unwrap_or_else(|error| panic!("{op:?}: {error}"));
            }
        }
    }
}

/// Right angles, and what the closed form of their gradient gives, which is in the golden file.
#[test]
fn of_an_independent_program() {
    let golden = Golden::load("interest_channels");
    let (axes, history) = (golden.f32("axes"), golden.f32("history"));
    let batch = Batch::new(golden.jagged("offsets", "history"), golden.jagged("target_offsets", "axes"))
        .expect("a batch");
    let (channels, top_k) = (golden.number("channels"), golden.number("top_k"));
    let op = InterestChannels::new(golden.shape("history")[1]).with_channels(channels).with_top_k(top_k);
    let inputs = InterestChannelsInputs::new(Host::view(&axes), Host::view(&history));
    let same = |name: &str, got: &[f64]| compare(name, got, &golden.f64(name), 1e-12, 1.0).unwrap();
    let right = interest_axes(&op, &batch, &inputs).expect("axes");
    same("right_angles", &right.axes);
    same("triangle", &right.triangle);
    for (form, among) in [("routed", KeptAmong::Routed), ("all", KeptAmong::All)] {
        for normalise in [false, true] {
            let op = op.with_among(among).with_normalise(normalise);
            let kind = format!("{form}{}", if normalise { "_normalised" } else { "" });
            let result = interest_channels(&op, &batch, &inputs).expect("a valid call");
            assert_eq!(result.kept.positions, golden.u32(&format!("positions_{form}")));
            assert_eq!(result.kept.counts, golden.u32(&format!("counts_{form}")));
            same(&format!("out_{kind}"), &result.out);
            let scores = vec![0.0; result.kept.positions.len()];
            let (positions, counts) = (&result.kept.positions[..], &result.kept.counts[..]);
            let kept = Selection::new(Host::view(positions), Host::view(&scores), Host::view(counts));
            let grads = interest_channels_backward(&op, &batch, &inputs, &kept, &golden.f64("grad_out"));
            let grads = grads.expect("a valid call");
            same(&format!("grad_axes_{kind}"), &grads.axes);
            same(&format!("grad_history_{kind}"), &grads.history);
        }
    }
}

/// Channels that depend on others have no gradient, and give none to them.
#[test]
fn of_zero_channels() {
    let mut case = Case::new(op().with_dependent(DependentAxes::Zero));
    // The second axis of the first candidate is twice its first.
    let first: Vec<f32> = case.axes[..5].iter().map(|x| 2.0 * x).collect();
    case.axes[5..10].copy_from_slice(&first);
    let kept = interest_channels(&case.op, &case.batch, &case.inputs()).expect("a valid case").kept;
    (case.positions, case.counts) = (kept.positions, kept.counts);
    assert_eq!(case.counts[1], 0);
    let gradient = case.gradient();
    assert_eq!(gradient.axes[5..10], [0.0; 5]);
    // The others are as without that axis.
    let mut two = Case::new(op().with_channels(2));
    let (axes, grads) = (&case.axes, &case.grad_out);
    two.axes[..10].copy_from_slice(&[&axes[..5], &axes[10..15]].concat());
    two.grad_out[..10].copy_from_slice(&[&grads[..5], &grads[10..15]].concat());
    two.history.clone_from(&case.history);
    let kept = interest_channels(&two.op, &two.batch, &two.inputs()).expect("a valid case").kept;
    assert_eq!(kept.counts[..2], [case.counts[0], case.counts[2]]);
    (two.positions, two.counts) = (kept.positions, kept.counts);
    let other = two.gradient();
    let same = [&gradient.axes[..5], &gradient.axes[10..15]].concat();
    compare("axes", &same, &other.axes[..10], 1e-12, 1.0).unwrap();
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    let mut case = Case::new(op());
    let right = case.gradient();
    // The second axis' part along the first.
    let mut wrong = right.clone();
    let along = dot(&wrong.axes[5..10], &case.axes[..5].iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    assert!(along.abs() < 1e-9, "a gradient is at right angles to the axes before");
    wrong.axes[..5].iter_mut().for_each(|x| *x *= 1.001);
    assert!(case.compare(wrong).is_err());
    let mut wrong = right;
    wrong.history[0] += 1e-4;
    assert!(case.compare(wrong).is_err());
}

#[test]
fn buffers_of_the_wrong_size_are_named() {
    let case = Case::new(op());
    let grads = |grad_out: &[f64]| {
        case.with_kept(|kept| {
            Ok(interest_channels_backward(&case.op, &case.batch, &case.inputs(), kept, grad_out))
        })
    };
    assert_eq!(shape_argument(grads(&case.grad_out[1..])), "grad_out");
}
