//! Reading the memory of several tensors at once.

use std::cell::RefCell;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// The memory of some contiguous tensors, locked for reading.
pub(crate) struct Slices<'a> {
    parts: &'a [(&'a CpuStorage, &'a Layout)],
}

impl<'a> Slices<'a> {
    /// The elements of one of the tensors.
    pub(crate) fn of<T: WithDType>(&self, index: usize) -> Result<&'a [T]> {
        let (storage, layout) = self.parts[index];
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("longseq-candle: tensor {index} is strided; call .contiguous() on it first")
        };
        Ok(&storage.as_slice::<T>()?[start..end])
    }
}

/// Calls `f` with the memory of all tensors.
///
/// Tensors may share memory. `Tensor::storage_and_layout` takes a lock that must not be taken twice where another thread waits to write
/// (as `Var::set` does): both would wait for ever. Custom ops get theirs recursively, so one op per tensor is nested in that of the tensor
/// before. Nothing is computed by candle.
pub(crate) fn read<R>(tensors: &[Tensor], f: impl FnOnce(&Slices<'_>) -> Result<R>) -> Result<R> {
    let Some((first, rest)) = tensors.split_first() else { return f(&Slices { parts: &[] }) };
    let state = RefCell::new((Some(f), None));
    let then = |parts: &[Held<'_>]| {
        let f = state.borrow_mut().0.take();
        if let Some(f) = f {
            let result = f(&Slices { parts })?;
            state.borrow_mut().1 = Some(result);
        }
        Ok(())
    };
    first.apply_op1_no_bwd(&Reach { held: Vec::new(), layout: first.layout(), rest, then: &then })?;
    match state.into_inner().1 {
        Some(result) => Ok(result),
        None => candle_core::bail!("longseq-candle: candle did not read the tensors"),
    }
}

/// A tensor's memory and where it lies there.
type Held<'a> = (&'a CpuStorage, &'a Layout);

/// The op that has the memory of one tensor and asks for the next.
struct Reach<'a> {
    held: Vec<Held<'a>>,
    layout: &'a Layout,
    rest: &'a [Tensor],
    then: &'a dyn Fn(&[Held<'_>]) -> Result<()>,
}

impl CustomOp1 for Reach<'_> {
    fn name(&self) -> &'static str {
        "longseq-read"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut held = self.held.clone();
        held.push((storage, self.layout));
        match self.rest.split_first() {
            None => (self.then)(&held)?,
            Some((next, rest)) => {
                next.apply_op1_no_bwd(&Reach { held, layout: next.layout(), rest, then: self.then })?;
            }
        }
        Ok((CpuStorage::U8(Vec::new()), Shape::from(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn tensors_that_share_memory_are_read_while_another_thread_waits_to_write() -> Result<()> {
        let var = Var::zeros((64, 4), DType::F32, &Device::Cpu)?;
        let parts = [var.as_tensor().clone(), var.narrow(0, 8, 3)?, var.narrow(0, 0, 64)?];
        let new = Tensor::ones((64, 4), DType::F32, &Device::Cpu)?;
        std::thread::scope(|threads| {
            let writer = threads.spawn(|| (0..2000).try_for_each(|_| var.set(&new)));
            for _ in 0..2000 {
                let lengths = read(&parts, |parts| {
                    Ok([parts.of::<f32>(0)?.len(), parts.of::<f32>(1)?.len(), parts.of::<f32>(2)?.len()])
                })?;
                assert_eq!(lengths, [256, 12, 256]);
            }
            writer.join().expect("no panic")
        })
    }

    #[test]
    fn a_strided_tensor_is_refused() -> Result<()> {
        let strided = Tensor::zeros((3, 4), DType::F32, &Device::Cpu)?.t()?;
        let error = read(&[strided], |parts| parts.of::<f32>(0).map(<[f32]>::len)).unwrap_err();
        assert!(error.to_string().contains(".contiguous()"), "{error}");
        Ok(())
    }
}
