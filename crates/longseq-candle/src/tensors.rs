//! What tensors may be given, and what becomes of them.

use candle_core::{DType, Device, Result, Tensor, WithDType};
use longseq::half::{bf16, f16};
use longseq::{Element, GradientOf};

use crate::error::wrong;

/// A storage type that candle and longseq share.
pub(crate) trait Float: Element + WithDType + GradientOf<Self> {}

impl Float for f32 {}
impl Float for f16 {}
impl Float for bf16 {}

/// Runs an expression with the storage type `$T` that a tensor's type stands for.
macro_rules! by_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F16 => {
                type $T = longseq::half::f16;
                $body
            }
            candle_core::DType::BF16 => {
                type $T = longseq::half::bf16;
                $body
            }
            other => candle_core::bail!("longseq-candle: no rows of {}", other.as_str()),
        }
    };
}
pub(crate) use by_float;

/// One dimension of a shape: its letter and its size.
pub(crate) type Dim = (&'static str, usize);

/// An argument of an operation.
#[derive(Clone, Copy)]
pub(crate) struct Argument<'a> {
    operation: &'static str,
    name: &'static str,
    tensor: &'a Tensor,
}

impl<'a> Argument<'a> {
    pub(crate) fn new(operation: &'static str, name: &'static str, tensor: &'a Tensor) -> Self {
        Self { operation, name, tensor }
    }

    /// The error that something else was expected.
    fn wrong<T>(&self, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
        Err(wrong(self.operation, self.name, expected, got))
    }

    fn on_cpu(&self) -> Result<()> {
        match self.tensor.device() {
            Device::Cpu => Ok(()),
            other => self.wrong(
                "a tensor on candle's CPU (move it with .to_device(&Device::Cpu))",
                format!("a tensor on {:?}", other.location()),
            ),
        }
    }

    /// Checks that the tensor has one of some shapes.
    pub(crate) fn of_shape(self, shapes: &[&[Dim]]) -> Result<Self> {
        let fits = |shape: &&&[Dim]| shape.iter().map(|dim| dim.1).eq(self.tensor.dims().iter().copied());
        if shapes.iter().any(|shape| fits(&shape)) {
            return Ok(self);
        }
        let describe = |shape: &&[Dim]| {
            let letters: Vec<&str> = shape.iter().map(|dim| dim.0).collect();
            let sizes: Vec<String> = shape.iter().map(|dim| dim.1.to_string()).collect();
            format!("[{}] = [{}]", letters.join(", "), sizes.join(", "))
        };
        let expected: Vec<String> = shapes.iter().map(describe).collect();
        self.wrong(expected.join(" or "), format!("{:?}", self.tensor.dims()))
    }

    /// Rows of 16 or 32 bits, contiguous: a strided tensor is copied, in the graph.
    pub(crate) fn float(&self) -> Result<Tensor> {
        self.on_cpu()?;
        match self.tensor.dtype() {
            DType::F32 | DType::F16 | DType::BF16 => self.tensor.contiguous(),
            other => self.wrong("f32, f16 or bf16 (convert with .to_dtype(DType::F32))", other.as_str()),
        }
    }

    /// The same of the type of other rows.
    pub(crate) fn float_as(&self, dtype: DType) -> Result<Tensor> {
        let tensor = self.float()?;
        if tensor.dtype() == dtype {
            return Ok(tensor);
        }
        let expected = format!("{0} like the other rows (convert with .to_dtype)", dtype.as_str());
        self.wrong(expected, tensor.dtype().as_str())
    }

    /// `f32`, contiguous: 16 bits are widened, in the graph.
    pub(crate) fn f32(&self) -> Result<Tensor> {
        self.float()?.to_dtype(DType::F32)
    }

    /// Ids: `u32`, contiguous. Other integers are converted; negative ones become `u32::MAX`, which is in no table.
    pub(crate) fn ids(&self) -> Result<Tensor> {
        self.on_cpu()?;
        match self.tensor.dtype() {
            DType::U32 => Ok(self.tensor.detach().contiguous()?),
            DType::U8 => self.tensor.detach().to_dtype(DType::U32),
            DType::I16 => self.converted::<i16>(),
            DType::I32 => self.converted::<i32>(),
            DType::I64 => self.converted::<i64>(),
            other => self.wrong("integers (u32 is read as it is)", other.as_str()),
        }
    }

    fn converted<I: WithDType + Into<i64>>(&self) -> Result<Tensor> {
        let given = self.tensor.flatten_all()?.to_vec1::<I>()?;
        let mut ids = Vec::with_capacity(given.len());
        for (position, id) in given.into_iter().enumerate() {
            let id: i64 = id.into();
            match u32::try_from(id) {
                Ok(id) => ids.push(id),
                Err(_) if id < 0 => ids.push(u32::MAX),
                Err(_) => return self.wrong("ids below 2^32", format!("{id} at position {position}")),
            }
        }
        Tensor::from_vec(ids, self.tensor.shape(), &Device::Cpu)
    }

    /// Bytes, contiguous.
    pub(crate) fn bytes(&self) -> Result<Tensor> {
        self.on_cpu()?;
        match self.tensor.dtype() {
            DType::U8 => self.tensor.detach().contiguous(),
            other => self.wrong("u8", other.as_str()),
        }
    }
}

/// A tensor of values that nothing else holds.
pub(crate) fn tensor<T: WithDType>(values: Vec<T>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), &Device::Cpu)
}

/// Checks rows of heads: `[rows, heads, width]`, `[rows, heads·width]`, and where both are 1 `[rows]`.
pub(crate) fn heads_of<'a>(
    argument: Argument<'a>,
    rows: Dim,
    heads: usize,
    width: usize,
) -> Result<Argument<'a>> {
    let flat = [rows, ("heads·width", heads.saturating_mul(width))];
    let apart = [rows, ("heads", heads), ("width", width)];
    let shapes: &[&[Dim]] = if flat[1].1 == 1 { &[&apart, &flat, &flat[..1]] } else { &[&apart, &flat] };
    argument.of_shape(shapes)
}

/// Checks rows of some columns: `[rows, columns]`, and where that is one `[rows]`.
pub(crate) fn columns_of<'a>(argument: Argument<'a>, rows: Dim, columns: Dim) -> Result<Argument<'a>> {
    let shape = [rows, columns];
    let shapes: &[&[Dim]] = if columns.1 == 1 { &[&shape, &shape[..1]] } else { &[&shape] };
    argument.of_shape(shapes)
}
