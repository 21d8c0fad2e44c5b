//! Results in burn's graph: any number of inputs that get gradients, one step.
//!
//! A step of burn has a number of inputs that is part of its type. Here it is one of a few: places that are left over are taken by a constant,
//! which has no gradient. A step keeps its inputs' tensors, without their place in the graph, so that a graph that nobody needs is freed.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use burn_core::backend::autodiff::checkpoint::base::Checkpointer;
use burn_core::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn_core::backend::autodiff::grads::Gradients;
use burn_core::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn_core::backend::{
    Autodiff, AutodiffBackend, DispatchAutodiffContext, DispatchTensor, TensorMetadata,
};
use burn_core::tensor::kind::Basic;
use burn_core::tensor::{DType, Tensor};
use longseq::Result;

use crate::error::wrong;
use crate::place::{Place, Values};
use crate::tensors::{Opened, Tensors, Tracked};

/// An input of an operation: its elements, contiguous, and where its gradient goes.
pub(crate) struct Input<P: Place> {
    values: Values<P>,
    node: Option<Tracked<P::Burn>>,
    autodiff: DispatchAutodiffContext,
}

impl<P: Place> Input<P> {
    pub(crate) fn new(opened: Opened<P::Burn>, autodiff: DispatchAutodiffContext) -> Self {
        let (values, node) = match opened {
            Opened::Plain(values) => (values, None),
            Opened::Tracked(tensor) => {
                let node = tensor.is_tracked().then(|| tensor.clone());
                (tensor.into_primitive(), node)
            }
        };
        Self { values: <P::Burn as Tensors>::contiguous(values), node, autodiff }
    }

    /// The same with other elements.
    pub(crate) fn map(self, f: impl FnOnce(Values<P>) -> Result<Values<P>>) -> Result<Self> {
        Ok(Self { values: f(self.values)?, ..self })
    }

    /// The same as a constant.
    pub(crate) fn detached(self) -> Self {
        Self { node: None, ..self }
    }

    pub(crate) fn dtype(&self) -> DType {
        self.values.dtype()
    }

    /// Whether it gets a gradient.
    pub(crate) fn is_tracked(&self) -> bool {
        self.node.is_some()
    }
}

/// The elements of inputs.
pub(crate) fn values<P: Place>(inputs: &[Input<P>]) -> Vec<Values<P>> {
    inputs.iter().map(|input| input.values.clone()).collect()
}

/// The backward pass of an operation.
pub(crate) trait Differentiate<P: Place>: Send + Sync + 'static {
    /// The name of the operation.
    fn name(&self) -> &'static str;

    /// The gradients of those inputs that are wanted, each in its input's shape and type.
    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>>;
}

/// What a backward pass is about.
pub(crate) struct Pass<'a, P: Place> {
    /// The inputs, as they were recorded.
    pub(crate) inputs: &'a [Values<P>],
    /// Which of them have gradients.
    pub(crate) wanted: &'a [bool],
    /// The gradient of the result, contiguous.
    pub(crate) grad: &'a Values<P>,
}

/// A tensor of these values, which depends on `inputs`.
pub(crate) fn record<P: Place>(
    result: Values<P>,
    inputs: Vec<Input<P>>,
    backward: impl Differentiate<P>,
) -> Result<DispatchTensor> {
    let name = backward.name();
    let autodiff = merged(name, &inputs)?;
    if autodiff == DispatchAutodiffContext::Disabled {
        return Ok(DispatchTensor { kind: <P::Burn as Tensors>::close(result), autodiff });
    }
    let (mut kept, mut tracked, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for (index, input) in inputs.into_iter().enumerate() {
        kept.push(input.values);
        if let Some(node) = input.node {
            tracked.push(index);
            nodes.push(node);
        }
    }
    let step = Arc::new(Step { backward: Box::new(backward), inputs: kept, tracked });
    let tensor = match nodes.len() {
        0 => constant::<P>(result),
        1..=4 => attach::<P, 4>(result, nodes, step),
        5..=32 => attach::<P, 32>(result, nodes, step),
        33..=256 => attach::<P, 256>(result, nodes, step),
        more => {
            let expected = "at most 256 that have gradients";
            return Err(wrong(name, "inputs", expected, more.to_string()));
        }
    };
    Ok(DispatchTensor { kind: <P::Burn as Tensors>::close_tracked(tensor), autodiff })
}

/// The autodiff of a result: that of all inputs which have one.
///
/// # Errors
/// Inputs with different strategies of checkpointing.
fn merged<P: Place>(operation: &'static str, inputs: &[Input<P>]) -> Result<DispatchAutodiffContext> {
    let mut merged = DispatchAutodiffContext::Disabled;
    for input in inputs {
        let own = input.autodiff;
        if merged == DispatchAutodiffContext::Disabled {
            merged = own;
        } else if own != DispatchAutodiffContext::Disabled && own != merged {
            let expected = format!("tensors of one strategy of gradient checkpointing, {merged:?}");
            return Err(wrong(operation, "inputs", expected, format!("{own:?}")));
        }
    }
    Ok(merged)
}

/// A tensor without autodiff.
pub(crate) fn plain<P: Place, const D: usize, K: Basic>(values: Values<P>) -> Tensor<D, K> {
    let (kind, autodiff) = (<P::Burn as Tensors>::close(values), DispatchAutodiffContext::Disabled);
    Tensor::from_dispatch(DispatchTensor { kind, autodiff })
}

/// A tensor with autodiff that depends on nothing.
fn constant<P: Place>(values: Values<P>) -> Tracked<P::Burn> {
    <Autodiff<P::Burn> as AutodiffBackend>::from_inner(values)
}

/// Puts a result into the graph after up to `N` tensors.
fn attach<P: Place, const N: usize>(
    result: Values<P>,
    nodes: Vec<Tracked<P::Burn>>,
    step: Arc<Step<P>>,
) -> Tracked<P::Burn> {
    let rest = constant::<P>(result.clone());
    let guards = std::array::from_fn(|index| nodes.get(index).unwrap_or(&rest).node());
    let operation = Operation::<P>(PhantomData);
    let prepared = <Operation<P> as Backward<P::Burn, N>>::prepare::<NoCheckpointing>(operation, guards);
    // Nothing is computed again, whatever the strategy: longseq's backward passes need the inputs, and what the step keeps.
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(step, result),
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    }
}

/// An operation in the graph.
struct Step<P: Place> {
    backward: Box<dyn Differentiate<P>>,
    inputs: Vec<Values<P>>,
    /// The inputs that have gradients, in the order of the operation's parents.
    tracked: Vec<usize>,
}

impl<P: Place> fmt::Debug for Step<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.backward.name()).field("inputs", &self.inputs).finish()
    }
}

struct Operation<P>(PhantomData<fn() -> P>);

impl<P> fmt::Debug for Operation<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("longseq")
    }
}

impl<P: Place, const N: usize> Backward<P::Burn, N> for Operation<P> {
    type State = Arc<Step<P>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let step = &ops.state;
        let grad = <P::Burn as Tensors>::contiguous(grads.consume::<P::Burn>(&ops.node));
        let mut wanted = vec![false; step.inputs.len()];
        for (&index, parent) in step.tracked.iter().zip(&ops.parents) {
            wanted[index] = parent.is_some();
        }
        let pass = Pass { inputs: &step.inputs, wanted: &wanted, grad: &grad };
        match step.backward.gradients(&pass) {
            Ok(mut gradients) => {
                for (&index, parent) in step.tracked.iter().zip(&ops.parents) {
                    let Some(node) = parent else { continue };
                    // burn takes it for granted that a parent gets one.
                    match gradients[index].take() {
                        Some(grad) => grads.register::<P::Burn>(node.id, grad),
                        None => panic!("{}: no gradient of input {index}", step.backward.name()),
                    }
                }
            }
            // burn's backward passes return nothing.
            Err(error) => panic!("{error}"),
        }
    }
}
