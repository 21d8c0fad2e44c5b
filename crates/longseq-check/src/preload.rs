//! Every kernel of a device compiled, one file at a time, with the time that each took.

use std::cell::RefCell;
use std::time::Instant;

use longseq::AnyBackend;
use longseq::prelude::*;

use crate::case::Failure;

/// The names of the kernels that a device may compile, as [`warm_up`](DeviceOps::warm_up) knows them: on `Cuda` files of PTX.
///
/// # Errors
/// What the device returned.
pub fn names(device: &AnyBackend) -> Result<Vec<String>, Failure> {
    let names = RefCell::new(Vec::new());
    device.warm_up(|name| {
        names.borrow_mut().push(name.to_owned());
        false
    })?;
    Ok(names.into_inner())
}

/// Compiles each kernel that is not compiled yet, and passes on its name, and its seconds or what went wrong. One that fails keeps no
/// other from being compiled.
///
/// # Errors
/// What the device returned when it was asked for the names.
pub fn each(
    device: &AnyBackend,
    progress: &mut dyn FnMut(&str, Result<f64, Failure>),
) -> Result<(), Failure> {
    for name in names(device)? {
        let start = Instant::now();
        let compiled = device.warm_up(|kernel| kernel == name);
        progress(&name, compiled.map(|_| start.elapsed().as_secs_f64()).map_err(Failure::from));
    }
    Ok(())
}
