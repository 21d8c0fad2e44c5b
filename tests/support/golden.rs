//! Results of published implementations, read from `tests/golden`.

use std::path::Path;

use longseq::Jagged;
use safetensors::SafeTensors;
use serde_json::Value;

/// How far a published implementation's result may be from ours, relative to the largest number of the result: they
/// computed in `f32`, in their own order, over up to a hundred additions a number.
pub const PEER: f64 = 5e-6;

/// One published result.
pub struct Golden {
    bytes: Vec<u8>,
    pub meta: Value,
}

impl Golden {
    pub fn load(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let meta =
            header.metadata().as_ref().and_then(|metadata| metadata.get("meta")).expect("a meta string");
        let meta = serde_json::from_str(meta).expect("meta is JSON");
        Self { bytes, meta }
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).expect("a safetensors file").tensor(name).is_ok()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).0
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        bytemuck::pod_collect_to_vec(&self.tensor(name).1)
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        self.f32(name).into_iter().map(f64::from).collect()
    }

    pub fn i64(&self, name: &str) -> Vec<i64> {
        bytemuck::pod_collect_to_vec(&self.tensor(name).1)
    }

    pub fn u32(&self, name: &str) -> Vec<u32> {
        self.i64(name).into_iter().map(|id| id.try_into().expect("a u32")).collect()
    }

    /// Offsets into a tensor's rows.
    pub fn jagged(&self, offsets: &str, rows: &str) -> Jagged {
        Jagged::new(&self.i64(offsets), self.shape(rows)[0]).expect("valid offsets")
    }

    pub fn number(&self, key: &str) -> usize {
        self.meta[key].as_u64().unwrap_or_else(|| panic!("{key} is a number")) as usize
    }

    pub fn flag(&self, key: &str) -> bool {
        self.meta[key].as_bool().unwrap_or_else(|| panic!("{key} is a flag"))
    }
}

/// The bound for a peer's result.
pub fn bound(reference: &[f64]) -> super::compare::Bound {
    let max = reference.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    super::compare::Bound::uniform(PEER * max, false)
}
