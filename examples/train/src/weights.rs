//! Named variables that begin with the same numbers for the same seed: candle's own generator for the CPU cannot be seeded.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};

use crate::protocol::Seeded;

/// The variables of a model. A variable's first numbers depend on its name and the seed, not on what else there is.
#[derive(Clone)]
pub(crate) struct Weights {
    map: VarMap,
    seed: u64,
}

/// Copies of all variables.
pub(crate) type Snapshot = HashMap<String, Tensor>;

impl Weights {
    pub(crate) fn new(seed: u64) -> Self {
        Self { map: VarMap::new(), seed }
    }

    /// Makes variables as layers ask for them.
    pub(crate) fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }

    fn vars(&self) -> MutexGuard<'_, HashMap<String, Var>> {
        self.map.data().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All variables, by name.
    pub(crate) fn named(&self) -> Vec<(String, Var)> {
        let mut named: Vec<_> = self.vars().iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    /// A variable.
    pub(crate) fn var(&self, name: &str) -> Result<Var> {
        match self.vars().get(name) {
            Some(var) => Ok(var.clone()),
            None => candle_core::bail!("the model has no weight {name}"),
        }
    }

    /// A variable in candle's graph.
    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor> {
        Ok(self.var(name)?.as_tensor().clone())
    }

    /// Copies of all variables as they are now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        self.named().into_iter().map(|(name, var)| Ok((name, var.as_detached_tensor().copy()?))).collect()
    }

    /// Gives variables the numbers of a snapshot, in the same memory.
    pub(crate) fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        for (name, values) in snapshot {
            self.var(name)?.set(values)?;
        }
        Ok(())
    }

    /// Lets square matrices begin as the identity.
    pub(crate) fn begin_as_identity(&self, names: &[impl AsRef<str>]) -> Result<()> {
        for name in names {
            let var = self.var(name.as_ref())?;
            var.set(&Tensor::eye(var.dim(0)?, DType::F32, &Device::Cpu)?)?;
        }
        Ok(())
    }
}

impl SimpleBackend for Weights {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        if let Some(var) = self.vars().get(name) {
            if *var.shape() != shape {
                candle_core::bail!("{name} is {:?}, and was asked for as {shape:?}", var.shape());
            }
            return Ok(var.as_tensor().clone());
        }
        let mut random = Seeded::new(self.seed ^ hash(name));
        let numbers = draw(init, &shape, &mut random);
        let var = Var::from_tensor(&Tensor::from_vec(numbers, shape, device)?.to_dtype(dtype)?)?;
        let tensor = var.as_tensor().clone();
        self.vars().insert(name.into(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        self.tensor(name)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.vars().contains_key(name)
    }
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The first numbers of a variable.
fn draw(init: Init, shape: &Shape, random: &mut Seeded) -> Vec<f32> {
    let count = shape.elem_count();
    let mut many = |mut one: Box<dyn FnMut(&mut Seeded) -> f64>| -> Vec<f32> {
        (0..count).map(|_| one(random) as f32).collect()
    };
    match init {
        Init::Const(value) => vec![value as f32; count],
        Init::Uniform { lo, up } => many(Box::new(move |random: &mut Seeded| lo + (up - lo) * share(random))),
        Init::Randn { mean, stdev } => {
            many(Box::new(move |random: &mut Seeded| mean + stdev * normal(random)))
        }
        Init::Kaiming { dist, fan, non_linearity } => {
            let deviation = non_linearity.gain() / (fan.for_shape(shape).max(1) as f64).sqrt();
            match dist {
                NormalOrUniform::Normal => {
                    many(Box::new(move |random: &mut Seeded| deviation * normal(random)))
                }
                NormalOrUniform::Uniform => {
                    let bound = 3f64.sqrt() * deviation;
                    many(Box::new(move |random: &mut Seeded| bound * (2.0 * share(random) - 1.0)))
                }
            }
        }
    }
}

/// A number from 0 to below 1.
fn share(random: &mut Seeded) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// A number of the standard normal distribution (Box and Muller).
fn normal(random: &mut Seeded) -> f64 {
    let radius = (-2.0 * (1.0 - share(random)).ln()).sqrt();
    radius * (std::f64::consts::TAU * share(random)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(weights: &Weights, name: &str, init: Init) -> Vec<f32> {
        let tensor = weights.builder().get_with_hints((50, 40), name, init).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn numbers_depend_on_seed_and_name_alone() {
        let normal = Init::Randn { mean: 0.0, stdev: 2.0 };
        let (one, two, other) = (Weights::new(1), Weights::new(1), Weights::new(2));
        numbers(&two, "before", normal);
        let a = numbers(&one, "a", normal);
        assert_eq!(a, numbers(&two, "a", normal));
        assert_ne!(a, numbers(&other, "a", normal));
        assert_ne!(a, numbers(&one, "b", normal));
        // 2000 numbers of deviation 2: their mean is within 0.2 and their deviation within 0.2 of it, at more than four deviations.
        let mean = a.iter().sum::<f32>() / 2000.0;
        let deviation = (a.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 2000.0).sqrt();
        assert!(mean.abs() < 0.2 && (deviation - 2.0).abs() < 0.2, "{mean} {deviation}");
    }

    #[test]
    fn kaiming_and_uniform_keep_their_bounds() {
        let weights = Weights::new(3);
        let kaiming = numbers(&weights, "kaiming", candle_nn::init::DEFAULT_KAIMING_UNIFORM);
        let bound = (6.0f32 / 40.0).sqrt();
        assert!(kaiming.iter().all(|x| x.abs() <= bound) && kaiming.iter().any(|x| x.abs() > 0.9 * bound));
        let uniform = numbers(&weights, "uniform", Init::Uniform { lo: 1.0, up: 3.0 });
        assert!(uniform.iter().all(|x| (1.0..3.0).contains(x)));
        assert_eq!(numbers(&weights, "constant", Init::Const(0.25)), vec![0.25; 2000]);
    }

    #[test]
    fn a_snapshot_brings_back_what_was() {
        let weights = Weights::new(1);
        let one = Init::Randn { mean: 0.0, stdev: 1.0 };
        let before = numbers(&weights, "a", one);
        let snapshot = weights.snapshot().unwrap();
        let var = weights.var("a").unwrap();
        var.set(&Tensor::zeros((50, 40), DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(numbers(&weights, "a", one), vec![0.0; 2000]);
        weights.restore(&snapshot).unwrap();
        assert_eq!(numbers(&weights, "a", one), before);
        assert!(weights.builder().get((2, 2), "a").is_err());
        assert!(weights.var("b").is_err());
    }
}
