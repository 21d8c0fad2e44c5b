//! One version of what longseq and burn share.

#[test]
fn the_graph_of_packages_holds_one_of_each() {
    let lock = include_str!("../../Cargo.lock");
    let count = |name: &str| lock.matches(&format!("name = \"{name}\"\n")).count();
    for name in ["burn-core", "burn-flex", "burn-tensor", "cudarc", "half", "longseq", "rayon", "wgpu"] {
        assert_eq!(count(name), 1, "{name}");
    }
}
