//! Device memory and error codes, through the Rust interface.

use cuda_emulator::CudaError;
use cuda_emulator::memory::Memory;

#[test]
fn copies_at_odd_offsets_keep_bytes_and_initialisation() {
    let m = Memory::new(1 << 20);
    let (a, b) = (m.alloc(100).unwrap(), m.alloc(100).unwrap());
    let data: Vec<u8> = (0..50).collect();
    m.write(a + 3, &data).unwrap();
    m.copy(b + 1, a, 60).unwrap();
    let mut out = [0; 60];
    m.read(b + 1, &mut out).unwrap();
    assert_eq!(out[3..53], data);
    assert_eq!(out[..3], [0xcd; 3]);
    assert_eq!(out[53..], [0xcd; 7]);
    assert!(m.write(a + 60, &data).is_err());
    m.free(a).unwrap();
    assert!(m.free(a).unwrap_err().to_string().contains("freed"));
    assert_eq!(m.used(), 100);
}

/// A program that allocates and frees for days does not fill the emulator's own memory.
#[test]
fn few_of_many_freed_ranges_are_remembered() {
    let memory = Memory::new(1 << 20);
    let use_after_free = |address| {
        let mut byte = [0];
        memory.read(address, &mut byte).expect_err("it is freed").to_string()
    };
    let allocate_and_free = || {
        let address = memory.alloc(4).expect("it fits");
        memory.free(address).expect("an allocation");
        address
    };
    let first = allocate_and_free();
    assert!(use_after_free(first).contains("which was freed"));
    let all: Vec<u64> = (0..70_000).map(|_| allocate_and_free()).collect();
    assert!(!use_after_free(first).contains("which was freed"));
    assert!(use_after_free(all[all.len() - 1]).contains("which was freed"));
}

#[test]
fn codes_and_names_are_distinct() {
    for (index, error) in CudaError::ALL.iter().enumerate() {
        assert_eq!(CudaError::from_code(error.code()), Some(*error));
        for other in &CudaError::ALL[index + 1..] {
            assert_ne!(error.code(), other.code());
            assert_ne!(error.name(), other.name());
        }
    }
}
