//! What burn's tensors are made of: the tensor of a backend, and its place in burn's graph.

use burn_core::backend::flex::FlexTensor;
use burn_core::backend::{
    Autodiff, Backend, BackendTensor, BackendTypes, DispatchTensorKind, Flex, TensorMetadata,
};
use burn_core::tensor::{DType, Element, TensorData};

/// A tensor in burn's graph.
pub type Tracked<B> = <Autodiff<B> as BackendTypes>::FloatTensorPrimitive;

/// What was expected of a tensor, and what came.
pub type Refused = (String, String);

/// What a tensor of burn holds.
pub enum Opened<B: Backend> {
    /// A tensor without autodiff, or one of integers.
    Plain(B::FloatTensorPrimitive),
    /// A tensor with autodiff, whether it needs a gradient or not.
    Tracked(Tracked<B>),
}

/// The tensors of one of burn's backends, out of burn's dispatch and into it.
pub trait Tensors: Backend {
    /// Where these tensors are, and how others get there: for errors.
    const WHERE: &'static str;

    /// What is in a tensor of numbers or of integers; `None` if it is another backend's.
    fn open(kind: DispatchTensorKind) -> Option<Opened<Self>>;

    /// A tensor of numbers without autodiff, or one of integers.
    fn close(tensor: Self::FloatTensorPrimitive) -> DispatchTensorKind;

    /// A tensor with autodiff.
    fn close_tracked(tensor: Tracked<Self>) -> DispatchTensorKind;

    /// The same elements one after the other, copied only if they are not.
    fn contiguous(tensor: Self::FloatTensorPrimitive) -> Self::FloatTensorPrimitive;

    /// Integers as `u32`, contiguous; negative ones become numbers that are in no table.
    ///
    /// # Errors
    /// Numbers that are too large, or of a type that is not read.
    fn ids(tensor: Self::FloatTensorPrimitive) -> Result<Self::FloatTensorPrimitive, Refused>;

    /// Integers as `u16`, contiguous.
    ///
    /// # Errors
    /// As [`ids`](Self::ids).
    fn words(tensor: Self::FloatTensorPrimitive) -> Result<Self::FloatTensorPrimitive, Refused>;
}

impl Tensors for Flex {
    const WHERE: &'static str = "a tensor of burn's Flex backend (move it with .to_device(&Device::flex()))";

    fn open(kind: DispatchTensorKind) -> Option<Opened<Self>> {
        match kind {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor) | BackendTensor::Int(tensor)) => {
                Some(Opened::Plain(tensor))
            }
            DispatchTensorKind::Autodiff(inner) => match *inner {
                DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => Some(Opened::Tracked(tensor)),
                _ => None,
            },
            _ => None,
        }
    }

    fn close(tensor: FlexTensor) -> DispatchTensorKind {
        DispatchTensorKind::Flex(match TensorMetadata::dtype(&tensor).is_float() {
            true => BackendTensor::Float(tensor),
            false => BackendTensor::Int(tensor),
        })
    }

    fn close_tracked(tensor: Tracked<Self>) -> DispatchTensorKind {
        DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor))))
    }

    fn contiguous(tensor: FlexTensor) -> FlexTensor {
        match tensor.is_contiguous() {
            true => tensor,
            false => tensor.to_contiguous(),
        }
    }

    fn ids(tensor: FlexTensor) -> Result<FlexTensor, Refused> {
        let tensor = Self::contiguous(tensor);
        match TensorMetadata::dtype(&tensor) {
            DType::U32 => return Ok(tensor),
            // The bits of numbers that are not negative are those of `u32`.
            DType::I32 if tensor.as_slice::<i32>().is_some_and(|ids| ids.iter().all(|&id| id >= 0)) => {
                let layout = tensor.layout().clone();
                return Ok(FlexTensor::from_arc(tensor.data_arc(), layout, DType::U32));
            }
            _ => {}
        }
        let convert = |(position, id): (usize, i128)| match u32::try_from(id) {
            Ok(id) => Ok(id),
            Err(_) if id < 0 => Ok(u32::MAX),
            Err(_) => Err(("ids below 2^32".into(), format!("{id} at position {position}"))),
        };
        let ids = integers(&tensor)?.enumerate().map(convert).collect::<Result<Vec<u32>, Refused>>()?;
        Ok(flex(ids, TensorMetadata::shape(&tensor).to_vec()))
    }

    fn words(tensor: FlexTensor) -> Result<FlexTensor, Refused> {
        let tensor = Self::contiguous(tensor);
        if TensorMetadata::dtype(&tensor) == DType::U16 {
            return Ok(tensor);
        }
        let convert = |(position, id): (usize, i128)| {
            u16::try_from(id)
                .map_err(|_| ("numbers from 0 to 65535".into(), format!("{id} at position {position}")))
        };
        let words = integers(&tensor)?.enumerate().map(convert).collect::<Result<Vec<u16>, Refused>>()?;
        Ok(flex(words, TensorMetadata::shape(&tensor).to_vec()))
    }
}

/// The numbers of a contiguous tensor of integers.
fn integers(tensor: &FlexTensor) -> Result<Box<dyn Iterator<Item = i128> + '_>, Refused> {
    macro_rules! of {
        ($T:ty) => {
            Ok(Box::new(tensor.as_slice::<$T>().unwrap_or_default().iter().map(|&number| i128::from(number))))
        };
    }
    match TensorMetadata::dtype(tensor) {
        DType::I64 => of!(i64),
        DType::I32 => of!(i32),
        DType::I16 => of!(i16),
        DType::I8 => of!(i8),
        DType::U64 => of!(u64),
        DType::U32 => of!(u32),
        DType::U16 => of!(u16),
        DType::U8 => of!(u8),
        other => Err(("integers".into(), other.name().into())),
    }
}

/// A tensor of Flex that keeps these values where they are. Their number is that of the shape.
pub(crate) fn flex<T: Element>(values: Vec<T>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
