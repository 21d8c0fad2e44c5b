//! What ptxas says about a kernel.

/// The figures that `ptxas -v` prints for one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of stack a thread.
    pub stack: u32,
    /// Bytes a thread stores because registers ran out.
    pub spill_stores: u32,
    /// Bytes a thread loads back.
    pub spill_loads: u32,
    /// Bytes of shared memory a block, dynamic memory not included.
    pub shared: u32,
}

impl Resources {
    /// Finds a kernel's figures in the output of `ptxas -v`; `None` if it does not speak of that kernel.
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

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'reduce' for 'sm_80'
ptxas info    : Function properties for reduce
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'reduce_again' for 'sm_80'
ptxas info    : Function properties for reduce_again
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, 360 bytes cmem[0]
";

    #[test]
    fn figures_are_those_of_the_kernel_named() {
        let expected = Resources { registers: 40, stack: 8, spill_stores: 4, spill_loads: 12, shared: 1024 };
        assert_eq!(Resources::from_ptxas(OUTPUT, "reduce"), Some(expected));
        let expected = Resources { registers: 10, ..Resources::default() };
        assert_eq!(Resources::from_ptxas(OUTPUT, "reduce_again"), Some(expected));
        assert_eq!(Resources::from_ptxas(OUTPUT, "scan"), None);
    }
}
