//! The resources of a kernel, as printed by ptxas.

/// The figures that `ptxas -v` prints for one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers per thread.
    pub registers: u32,
    /// Stack bytes per thread.
    pub stack: u32,
    /// Bytes per thread of spill stores.
    pub spill_stores: u32,
    /// Bytes per thread of spill loads.
    pub spill_loads: u32,
    /// Static shared memory per block in bytes.
    pub shared: u32,
}

impl Resources {
    /// Parses a kernel's figures from the output of `ptxas -v`; `None` if the kernel is not in the output.
    pub fn from_ptxas(output: &str, kernel: &str) -> Option<Self> {
        let quoted = format!("'{kernel}'");
        let mut lines = output.lines();
        lines.find(|line| line.contains("Compiling entry function") && line.contains(&quoted))?;
        let mut resources = Self::default();
        for line in lines.take_while(|line| !line.contains("Compiling entry function")) {
            for part in line.split([',', ':']) {
                let words: Vec<&str> = part.split_whitespace().collect();
                match words.as_slice() {
                    ["Used", count, "registers"] => resources.registers = count.parse().ok()?,
                    [bytes, "bytes", "stack", "frame"] => resources.stack = bytes.parse().ok()?,
                    [bytes, "bytes", "spill", "stores"] => resources.spill_stores = bytes.parse().ok()?,
                    [bytes, "bytes", "spill", "loads"] => resources.spill_loads = bytes.parse().ok()?,
                    [bytes, "bytes", "smem"] => resources.shared = bytes.parse().ok()?,
                    _ => {}
                }
            }
        }
        Some(resources)
    }
}
