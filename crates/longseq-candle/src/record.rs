//! Results in candle's graph: any number of inputs that get gradients.
//!
//! A custom op of candle has at most three inputs and one output. Here the result is computed first, from the memory of all inputs;
//! then it is put into the graph by an op whose forward pass hands it over, and whose inputs are the tensors that have gradients (the others
//! are only kept). Up to three are the op's own. Of more, the two largest are, and the others are one: they are widened, flattened
//! and joined with `Tensor::cat`, whose backward pass parts their gradient. So
//!
//! * each backward pass is one call of longseq, with nothing computed twice and no state that one backward pass leaves to the next:
//!   a graph may be used any number of times, by any threads, an input may occur in it twice, and a detached one costs nothing;
//! * where there are more than three, all but the two largest are copied once in the forward pass and once in the backward pass, as
//!   `f32` (a 16-bit gradient is widened and rounded back, which is exact).

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, WithDType,
};

/// How many inputs a custom op has at most.
const ARGUMENTS: usize = 3;

/// The backward pass of an operation.
pub(crate) trait Backward: Send + Sync + 'static {
    /// The name of the operation.
    fn name(&self) -> &'static str;

    /// The gradients of those inputs that are wanted, each in its input's shape and type, from the result and its gradient.
    ///
    /// The tensors are contiguous and in no graph.
    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>>;
}

/// What a backward pass is about.
pub(crate) struct Pass<'a> {
    /// The inputs, as they were recorded.
    pub(crate) inputs: &'a [Tensor],
    /// Which of them have gradients.
    pub(crate) wanted: &'a [bool],
    /// The result.
    pub(crate) out: &'a Tensor,
    /// Its gradient.
    pub(crate) grad: &'a Tensor,
}

impl Pass<'_> {
    /// The inputs, then others: what a backward pass reads.
    pub(crate) fn inputs_and(&self, more: &[&Tensor]) -> Vec<Tensor> {
        self.inputs.iter().chain(more.iter().copied()).cloned().collect()
    }
}

/// A tensor of these values, which depends on `inputs`. They must be contiguous.
pub(crate) fn record<T: WithDType>(
    values: Vec<T>,
    shape: impl Into<Shape>,
    inputs: Vec<Tensor>,
    backward: impl Backward,
) -> Result<Tensor> {
    let shape = shape.into();
    let tracked: Vec<usize> = (0..inputs.len()).filter(|&index| inputs[index].track_op()).collect();
    if tracked.is_empty() {
        return Tensor::from_vec(values, shape, &Device::Cpu);
    }
    let (direct, joined) = if tracked.len() <= ARGUMENTS {
        (tracked, Vec::new())
    } else {
        let mut by_size = tracked;
        by_size.sort_by_key(|&index| std::cmp::Reverse(inputs[index].elem_count()));
        let joined = by_size.split_off(ARGUMENTS - 1);
        (by_size, joined)
    };
    let mut arguments: Vec<Tensor> = direct.iter().map(|&index| inputs[index].clone()).collect();
    if !joined.is_empty() {
        let flat = |&index: &usize| inputs[index].to_dtype(DType::F32)?.flatten_all();
        arguments.push(Tensor::cat(&joined.iter().map(flat).collect::<Result<Vec<_>>>()?, 0)?);
    }
    let result = Mutex::new(Some((T::to_cpu_storage_owned(values), shape)));
    let inputs = inputs.iter().map(Tensor::detach).collect();
    let node = Node { backward, inputs, direct, joined, result };
    match &arguments[..] {
        [one] => one.apply_op1(node),
        [one, two] => one.apply_op2(two, node),
        [one, two, three] => one.apply_op3(two, three, node),
        _ => candle_core::bail!("longseq-candle: {} arguments of a node", arguments.len()),
    }
}

/// An operation in the graph.
struct Node<F> {
    backward: F,
    inputs: Vec<Tensor>,
    /// The inputs that are arguments of the op.
    direct: Vec<usize>,
    /// The inputs that are its last argument together.
    joined: Vec<usize>,
    /// The result, until candle has it.
    result: Mutex<Option<(CpuStorage, Shape)>>,
}

impl<F: Backward> Node<F> {
    fn hand_over(&self) -> Result<(CpuStorage, Shape)> {
        match self.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(result) => Ok(result),
            None => candle_core::bail!("{}: candle asked twice for a result", self.backward.name()),
        }
    }

    /// The gradients of the op's arguments, in their order.
    fn gradients(&self, out: &Tensor, grad: &Tensor) -> Result<std::vec::IntoIter<Option<Tensor>>> {
        let mut wanted = vec![false; self.inputs.len()];
        self.direct.iter().chain(&self.joined).for_each(|&index| wanted[index] = true);
        let (out, grad) = (out.detach(), grad.detach().contiguous()?);
        let pass = Pass { inputs: &self.inputs, wanted: &wanted, out: &out, grad: &grad };
        let mut grads = self.backward.gradients(&pass)?;
        // candle takes it for granted that an argument in the graph gets one.
        let mut take = |index: usize| match grads.get_mut(index).and_then(Option::take) {
            Some(grad) => Ok(grad),
            None => candle_core::bail!("{}: no gradient of input {index}", self.backward.name()),
        };
        let mut arguments = Vec::with_capacity(ARGUMENTS);
        for &index in &self.direct {
            arguments.push(Some(take(index)?));
        }
        if !self.joined.is_empty() {
            let mut flat = Vec::with_capacity(self.joined.len());
            for &index in &self.joined {
                flat.push(take(index)?.to_dtype(DType::F32)?.flatten_all()?);
            }
            arguments.push(Some(Tensor::cat(&flat, 0)?));
        }
        Ok(arguments.into_iter())
    }
}

impl<F: Backward> CustomOp1 for Node<F> {
    fn name(&self) -> &'static str {
        self.backward.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.hand_over()
    }

    fn bwd(&self, _: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.gradients(out, grad)?.next().flatten())
    }
}

impl<F: Backward> CustomOp2 for Node<F> {
    fn name(&self) -> &'static str {
        self.backward.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.hand_over()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.gradients(out, grad)?;
        Ok((grads.next().flatten(), grads.next().flatten()))
    }
}

impl<F: Backward> CustomOp3 for Node<F> {
    fn name(&self) -> &'static str {
        self.backward.name()
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.hand_over()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.gradients(out, grad)?;
        Ok((grads.next().flatten(), grads.next().flatten(), grads.next().flatten()))
    }
}
