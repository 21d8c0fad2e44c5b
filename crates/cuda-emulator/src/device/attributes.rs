//! Values of `CUdevice_attribute` for a device description.

use super::Device;

impl Device {
    /// The value of `cuDeviceGetAttribute`, or `None` if there is no attribute with this number.
    ///
    /// Textures, surfaces, managed memory, mapped host memory, peer access, inter-process handles and cooperative
    /// launches are not emulated, and the attributes report them as unsupported.
    pub fn attribute(&self, number: u32) -> Option<i32> {
        if let Some(value) = self.attributes.get(&number) {
            return Some(*value);
        }
        let limit = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
        Some(match number {
            1..=3 => 1024,
            4 => 64,
            5 => i32::MAX,
            6 | 7 => 65_535,
            8 => 48 * 1024,
            9 => 64 * 1024,
            10 => 32,
            11 => i32::MAX,
            12 | 82 => limit(self.registers_per_multiprocessor.into()),
            13 => limit(self.clock_khz.into()),
            14 | 30 => 512,
            15 | 31 | 32 | 79 | 80 | 90 => 1,
            16 => limit(self.multiprocessors.into()),
            33..=34 | 50 => 0,
            36 => limit(self.memory_clock_khz.into()),
            37 => limit(self.memory_bus_bits.into()),
            38 => limit(self.l2_bytes.into()),
            39 => limit(self.threads_per_multiprocessor.into()),
            40 => 3,
            41 => 1,
            51 => 32,
            75 => limit(self.compute_capability.0.into()),
            76 => limit(self.compute_capability.1.into()),
            78 => 1,
            81 => limit(self.shared_per_multiprocessor.into()),
            87 => 2,
            97 => limit(self.shared_per_block_optin.into()),
            106 => limit(self.blocks_per_multiprocessor.into()),
            111 => limit(self.shared_reserved_per_block.into()),
            115 => i32::from(self.memory_pools),
            _ if (1..=162).contains(&number) => 0,
            _ => return None,
        })
    }
}
