//! Results of published implementations and of independent computations, from `tests/golden`; compiled in, so that the program can be moved.

use longseq::Jagged;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::compare::Bound;

/// How far a published implementation's result may be from ours, relative to the largest number of the result: they
/// computed in `f32`, in their own order, over up to a hundred additions per number.
pub const PEER: f64 = 5e-6;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// The files by name.
        const FILES: &[(&str, &[u8])] = &[
            $(($name, include_bytes!(concat!("../../../tests/golden/", $name, ".safetensors")))),*
        ];
    };
}

files!(
    "decoupled_k20_da8_dr16",
    "decoupled_k5_da16_dr48",
    "din_deepctr_sigmoid_sum",
    "din_dice_softmax",
    "din_dice_sum",
    "din_relu_sum",
    "din_sigmoid_softmax",
    "eta_b32_k10",
    "interest_channels",
    "jagged_attention_d16_t4",
    "jagged_attention_d64_t9",
    "mhta_1x16",
    "mhta_2x64",
    "mhta_3x20",
    "mhta_4x8",
    "muse_k8",
    "qin_d12",
    "sdim_g16_t3_l2",
    "sdim_g16_t3_sum",
    "sdim_g2_t4_l2",
    "sdim_g5_t1_l2",
    "sdim_g8_t8_l2",
    "sim_k6_h2",
    "tin_counted",
    "tin_given",
    "twin_k5_h2",
);

/// One published result.
#[derive(Debug)]
pub struct Golden {
    bytes: &'static [u8],
    /// What the file says of itself.
    pub meta: Value,
}

impl Golden {
    /// The file of this name.
    ///
    /// # Panics
    /// Where there is none.
    pub fn load(name: &str) -> Self {
        let (_, bytes) = FILES
            .iter()
            .find(|file| file.0 == name)
            .unwrap_or_else(|| panic!("there is no golden file {name}"));
        let (_, header) = SafeTensors::read_metadata(bytes).expect("a safetensors header");
        let meta =
            header.metadata().as_ref().and_then(|metadata| metadata.get("meta")).expect("a meta string");
        let meta = serde_json::from_str(meta).expect("meta is JSON");
        Self { bytes, meta }
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(self.bytes).expect("a safetensors file");
        let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(self.bytes).expect("a safetensors file").tensor(name).is_ok()
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).0
    }

    /// A tensor of `f32`.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        bytemuck::pod_collect_to_vec(&self.tensor(name).1)
    }

    /// A tensor of `f64`, or one of `f32` as such.
    pub fn f64(&self, name: &str) -> Vec<f64> {
        let (_, bytes) = self.tensor(name);
        if self.shape(name).iter().product::<usize>() * size_of::<f64>() == bytes.len() {
            return bytemuck::pod_collect_to_vec(&bytes);
        }
        self.f32(name).into_iter().map(f64::from).collect()
    }

    /// A tensor of `i64`.
    pub fn i64(&self, name: &str) -> Vec<i64> {
        bytemuck::pod_collect_to_vec(&self.tensor(name).1)
    }

    /// A tensor of ids.
    pub fn u32(&self, name: &str) -> Vec<u32> {
        self.i64(name).into_iter().map(|id| id.try_into().expect("a u32")).collect()
    }

    /// Offsets into a tensor's rows.
    pub fn jagged(&self, offsets: &str, rows: &str) -> Jagged {
        Jagged::new(&self.i64(offsets), self.shape(rows)[0]).expect("valid offsets")
    }

    /// A number of the metadata.
    pub fn number(&self, key: &str) -> usize {
        self.meta[key].as_u64().unwrap_or_else(|| panic!("{key} is a number")) as usize
    }

    /// A flag of the metadata.
    pub fn flag(&self, key: &str) -> bool {
        self.meta[key].as_bool().unwrap_or_else(|| panic!("{key} is a flag"))
    }
}

/// The bound for a peer's result.
pub fn bound(reference: &[f64]) -> Bound {
    let max = reference.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    Bound::uniform(PEER * max, false)
}
