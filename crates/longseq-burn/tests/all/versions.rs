//! One version of what longseq and burn share; the README's code is the example's.

#[test]
fn the_graph_of_packages_holds_one_of_each() {
    let lock = include_str!("../../Cargo.lock");
    let count = |name: &str| lock.matches(&format!("name = \"{name}\"\n")).count();
    for name in ["burn-core", "burn-flex", "burn-tensor", "cudarc", "half", "longseq", "rayon", "wgpu"] {
        assert_eq!(count(name), 1, "{name}");
    }
}

#[test]
fn the_readme_has_the_code_of_the_example() {
    let example = include_str!("../../examples/in_a_burn_model.rs");
    let (_, code) = example.split_once("\n\n").expect("a line about the example");
    assert!(include_str!("../../README.md").contains(code));
}
