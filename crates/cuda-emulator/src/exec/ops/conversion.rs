//! The modifiers of cvt.

use crate::exec::decode::Form;
use crate::exec::rounding::{Finish, Rounding};

/// The modifiers of a conversion.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// `.rni`, `.rzi`, `.rmi`, `.rpi`: rounding to an integer.
    pub(super) integer: Option<Rounding>,
    /// `.rn`, `.rz`, `.rm`, `.rp`, `.rna`: rounding to a float format.
    pub(super) float: Option<Rounding>,
    pub(super) finish: Finish,
    pub(super) relu: bool,
}

/// Takes the modifiers.
pub(super) fn take(form: &mut Form<'_>) -> How {
    let integer = form.any(&["rni", "rzi", "rmi", "rpi"]).map(|m| match m {
        "rzi" => Rounding::Zero,
        "rmi" => Rounding::Down,
        "rpi" => Rounding::Up,
        _ => Rounding::Nearest,
    });
    let float = match form.any(&["rna"]) {
        Some(_) => Some(Rounding::NearestAway),
        None => form.rounding(),
    };
    let relu = form.flag("relu");
    How { integer, float, finish: Finish { ftz: form.flag("ftz"), sat: form.flag("sat") }, relu }
}

/// Applies `.sat` and `.relu` to a float result.
pub(super) fn bounded(x: f64, how: How) -> f64 {
    if how.finish.sat {
        if x > 0.0 { x.min(1.0) } else { 0.0 }
    } else if how.relu && x <= 0.0 {
        0.0
    } else {
        x
    }
}
