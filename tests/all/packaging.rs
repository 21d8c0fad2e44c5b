//! The licences of every dependency, and the list of commands and variables.

use std::process::Command;

use serde_json::Value;

/// The accepted licences; they cover development dependencies, too.
const ALLOWED: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_an_allowed_licence() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--all-features"])
        .current_dir(longseq_check::repository())
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 10);
    for package in packages {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{name}: licence {licence:?}: {error}"));
        let allowed = expression.evaluate(|requirement| ALLOWED.contains(&requirement.to_string().as_str()));
        assert!(allowed, "{name}: licence {licence:?} is not among the allowed");
    }
}

#[test]
fn contributing_lists_every_script_and_variable() {
    let root = longseq_check::repository();
    let listed = std::fs::read_to_string(root.join("CONTRIBUTING.md")).expect("CONTRIBUTING.md");
    let scripts = std::fs::read_dir(root.join("scripts")).expect("scripts");
    for script in scripts.map(|entry| entry.expect("a readable folder").file_name()) {
        let script = script.to_string_lossy().into_owned();
        let name = format!("`scripts/{script}");
        // A script's own data have an ending.
        assert!(script.contains('.') || listed.contains(&name), "CONTRIBUTING.md does not list {name}`");
    }
    let grep = Command::new("git")
        .args(["grep", "-hoE", "LONGSEQ_[A-Z_]*[A-Z]", "--", "src", "tests", "crates", "benches", "scripts"])
        .current_dir(root)
        .output();
    let Ok(found) = grep.map(|found| String::from_utf8_lossy(&found.stdout).into_owned()) else { return };
    for name in found.lines() {
        assert!(listed.contains(&format!("`{name}`")), "CONTRIBUTING.md does not list the variable {name}");
    }
}
