//! The device of programs that cannot describe one: those that load the library through `LD_LIBRARY_PATH`.

use super::{CudaVersion, Device};

/// Selects one of the built-in devices: `sm_75`, `sm_80` or `sm_90`.
const DEVICE: &str = "CUDA_EMULATOR_DEVICE";
/// Selects the driver version: `12.9`.
const DRIVER: &str = "CUDA_EMULATOR_DRIVER";

impl Device {
    /// The device that the environment selects; by default an sm_80.
    pub(crate) fn from_environment() -> Self {
        let device = match variable(DEVICE).as_deref() {
            None | Some("sm_80") => Self::sm_80(),
            Some("sm_75") => Self::sm_75(),
            Some("sm_90") => Self::sm_90(),
            Some(other) => {
                eprintln!("cuda-emulator: unknown device {DEVICE}={other}; using sm_80");
                Self::sm_80()
            }
        };
        let Some(driver) = variable(DRIVER) else { return device };
        match parse(&driver) {
            Some(version) => device.with_driver_version(version),
            None => {
                eprintln!(
                    "cuda-emulator: invalid version {DRIVER}={driver}; using {}",
                    device.driver_version
                );
                device
            }
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn parse(version: &str) -> Option<CudaVersion> {
    let (major, minor) = version.split_once('.')?;
    Some(CudaVersion::new(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_two_numbers() {
        assert_eq!(parse("12.9"), Some(CudaVersion::new(12, 9)));
        assert_eq!(parse("12"), None);
        assert_eq!(parse("12.x"), None);
    }
}
