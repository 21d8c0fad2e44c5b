//! The fuzz targets of `fuzz/`, on the committed inputs and on random ones.

use std::path::Path;

use longseq_check::device::thorough;
use longseq_check::fuzz::{TARGETS, Target};
use longseq_check::repository;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The input that a target fails on, if it does.
fn failing(target: Target, input: &[u8]) -> Option<String> {
    std::panic::catch_unwind(|| target(input)).err().map(|cause| {
        let text = cause.downcast_ref::<String>().cloned().unwrap_or_default();
        format!("{text}\ninput: {input:?}")
    })
}

#[test]
fn every_target_passes_on_its_committed_inputs() {
    for (name, target) in TARGETS {
        let folder = repository().join("fuzz/corpus").join(name);
        let files = inputs(&folder);
        assert!(!files.is_empty(), "{} has no inputs", folder.display());
        for file in files {
            let input = std::fs::read(&file).expect("a readable file");
            if let Some(failure) = failing(target, &input) {
                panic!("{}: {failure}", file.display());
            }
        }
    }
}

/// The files of a folder, in order of their names.
fn inputs(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_passes_on_random_inputs() {
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut rng = StdRng::seed_from_u64(seed.unwrap_or_else(rand::random));
    let inputs = if thorough() { 300 } else { 40 };
    for (name, target) in TARGETS {
        for _ in 0..inputs {
            let length = rng.random_range(0..400);
            let input: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            if let Some(failure) = failing(target, &input) {
                panic!("{name}: {failure}");
            }
        }
    }
}

/// What libFuzzer runs and what these tests run are the same targets.
#[test]
fn every_target_is_a_program_of_its_own() {
    let manifest = std::fs::read_to_string(repository().join("fuzz/Cargo.toml")).expect("a manifest");
    for (name, _) in TARGETS {
        let file = format!("targets/{name}.rs");
        let program = std::fs::read_to_string(repository().join("fuzz").join(&file)).expect("a program");
        assert!(program.contains(&format!("longseq_check::fuzz::{name}(")), "{file}");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{file}\"")), "{name}");
    }
}
