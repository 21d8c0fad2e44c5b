//! Plans cached with their batch.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::gpu::sync::lock;
use crate::plan::Cut;

/// The plans of one batch on the device, by their parameters. Each is made and uploaded once, at its first use. None is given up: a
/// captured graph may read it.
#[derive(Debug)]
pub(crate) struct PlanCache<P, K = Cut>(Mutex<HashMap<K, Arc<P>>>);

impl<P, K> Default for PlanCache<P, K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P, K: Copy + Eq + Hash> PlanCache<P, K> {
    /// The plan for `cut`. If two threads miss at the same time, both make it and the first to finish is kept.
    pub(crate) fn get_or_make(&self, cut: &K, make: impl FnOnce() -> Result<P>) -> Result<Arc<P>> {
        if let Some(plan) = lock(&self.0).get(cut) {
            return Ok(plan.clone());
        }
        let made = Arc::new(make()?);
        Ok(lock(&self.0).entry(*cut).or_insert(made).clone())
    }
}
