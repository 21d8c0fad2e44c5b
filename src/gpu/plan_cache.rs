//! Plans cached with their batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::gpu::lock::lock;
use crate::plan::Cut;

/// The plans of one batch on the device, by their parameters. Each is made and uploaded once, at its first use.
#[derive(Debug)]
pub(crate) struct PlanCache<P>(Mutex<HashMap<Cut, Arc<P>>>);

impl<P> Default for PlanCache<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P> PlanCache<P> {
    /// The plan for `cut`. If two threads miss at the same time, both make it and the first to finish is kept.
    pub(crate) fn get_or_make(&self, cut: &Cut, make: impl FnOnce() -> Result<P>) -> Result<Arc<P>> {
        if let Some(plan) = lock(&self.0).get(cut) {
            return Ok(plan.clone());
        }
        let made = Arc::new(make()?);
        Ok(lock(&self.0).entry(*cut).or_insert(made).clone())
    }
}
