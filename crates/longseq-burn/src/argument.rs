//! What tensors may be given, and what becomes of them.

use burn_core::backend::ops::FloatTensorOps;
use burn_core::backend::{Dispatch, DispatchTensor, TensorMetadata};
use burn_core::tensor::kind::Basic;
use burn_core::tensor::{DType, FloatDType, Tensor};
use longseq::half::{bf16, f16};
use longseq::{Element, GradientOf, Result};

use crate::error::wrong;
use crate::graph::Input;
use crate::place::{Number, Place, Values};
use crate::tensors::{Refused, Tensors};

/// A storage type that burn and longseq share.
pub(crate) trait Float: Number + Element + GradientOf<Self> {}

impl Float for f32 {}
impl Float for f16 {}
impl Float for bf16 {}

/// Runs an expression with the storage type `$T` that a tensor's type stands for.
macro_rules! by_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            burn_core::tensor::DType::F16 => {
                type $T = longseq::half::f16;
                $body
            }
            burn_core::tensor::DType::BF16 => {
                type $T = longseq::half::bf16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}
pub(crate) use by_float;

/// One dimension of a shape: its letter and its size.
pub(crate) type Dim = (&'static str, usize);

/// An argument of an operation.
pub(crate) struct Argument {
    operation: &'static str,
    name: &'static str,
    tensor: DispatchTensor,
    shape: Vec<usize>,
}

impl Argument {
    pub(crate) fn new<const D: usize, K: Basic>(
        operation: &'static str,
        name: &'static str,
        tensor: &Tensor<D, K>,
    ) -> Self {
        let (tensor, shape) = (tensor.clone().into_dispatch(), tensor.dims().to_vec());
        Self { operation, name, tensor, shape }
    }

    /// The error that something else was expected.
    fn wrong<T>(&self, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
        Err(wrong(self.operation, self.name, expected, got))
    }

    fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    /// Checks that the tensor has one of some shapes.
    pub(crate) fn of_shape(self, shapes: &[&[Dim]]) -> Result<Self> {
        let sizes = |shape: &[Dim]| shape.iter().map(|dim| dim.1).collect::<Vec<_>>();
        if shapes.iter().any(|shape| sizes(shape) == self.shape) {
            return Ok(self);
        }
        let describe = |shape: &&[Dim]| {
            let letters: Vec<&str> = shape.iter().map(|dim| dim.0).collect();
            let sizes: Vec<String> = shape.iter().map(|dim| dim.1.to_string()).collect();
            format!("[{}] = [{}]", letters.join(", "), sizes.join(", "))
        };
        let expected: Vec<String> = shapes.iter().map(describe).collect();
        self.wrong(expected.join(" or "), format!("{:?}", self.shape))
    }

    /// What is in it, of the backend of burn that the place reads.
    fn open<P: Place>(self) -> Result<Input<P>> {
        let (operation, name) = (self.operation, self.name);
        let DispatchTensor { kind, autodiff } = self.tensor;
        let device = kind.device();
        match <P::Burn as Tensors>::open(kind) {
            Some(opened) => Ok(Input::new(opened, autodiff)),
            None => {
                Err(wrong(operation, name, <P::Burn as Tensors>::WHERE, format!("a tensor on {device:?}")))
            }
        }
    }

    /// Rows of 16 or 32 bits, contiguous: a strided tensor is copied.
    pub(crate) fn float<P: Place>(self) -> Result<Input<P>> {
        match self.dtype() {
            DType::F32 | DType::F16 | DType::BF16 => self.open(),
            other => self.wrong("f32, f16 or bf16 (convert with .cast(FloatDType::F32))", other.name()),
        }
    }

    /// The same of the type of other rows.
    pub(crate) fn float_as<P: Place>(self, dtype: DType) -> Result<Input<P>> {
        match self.dtype() {
            own if own == dtype => self.float(),
            DType::F32 | DType::F16 | DType::BF16 => {
                let got = self.dtype().name();
                self.wrong(format!("{} like the other rows (convert with .cast)", dtype.name()), got)
            }
            _ => self.float(),
        }
    }

    /// `f32`, contiguous: 16 bits are widened, in the graph.
    pub(crate) fn f32<P: Place>(mut self) -> Result<Input<P>> {
        if matches!(self.dtype(), DType::F16 | DType::BF16) {
            self.tensor = Dispatch::float_cast(self.tensor, FloatDType::F32);
        }
        self.float()
    }

    /// Ids: `u32`, contiguous. Other integers are converted; negative ones are in no table.
    pub(crate) fn ids<P: Place>(self) -> Result<Input<P>> {
        self.integers(<P::Burn as Tensors>::ids)
    }

    /// Integers as `u16`, contiguous.
    pub(crate) fn words<P: Place>(self) -> Result<Input<P>> {
        self.integers(<P::Burn as Tensors>::words)
    }

    /// Elements of this type, contiguous.
    pub(crate) fn of_type<P: Place>(self, dtype: DType) -> Result<Input<P>> {
        match self.dtype() {
            own if own == dtype => self.open(),
            other => self.wrong(dtype.name(), other.name()),
        }
    }

    fn integers<P: Place>(
        self,
        f: impl Fn(Values<P>) -> std::result::Result<Values<P>, Refused>,
    ) -> Result<Input<P>> {
        let (operation, name) = (self.operation, self.name);
        let input = self.open::<P>()?;
        input.map(|tensor| f(tensor).map_err(|(expected, got)| wrong(operation, name, expected, got)))
    }
}

/// Checks rows of heads: `[rows, heads, width]`, `[rows, heads·width]`, and where both are 1 `[rows]`.
pub(crate) fn heads_of(argument: Argument, rows: Dim, heads: usize, width: usize) -> Result<Argument> {
    let flat = [rows, ("heads·width", heads.saturating_mul(width))];
    let apart = [rows, ("heads", heads), ("width", width)];
    let shapes: &[&[Dim]] = if flat[1].1 == 1 { &[&apart, &flat, &flat[..1]] } else { &[&apart, &flat] };
    argument.of_shape(shapes)
}
