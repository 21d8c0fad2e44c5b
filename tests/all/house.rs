//! House rules of the repository: short files, short functions (in kernels/ too), no circular imports, names that a search finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The most lines of a file, and of a function.
const FILE_LINES: usize = 450;
const FUNCTION_LINES: usize = 80;

/// The files below a folder whose names end so, without what tools generate.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            let generated =
                ["target", "ptx"].iter().any(|name| path.file_name().is_some_and(|file| file == *name));
            if path.is_dir() && !generated {
                walk(&path, extensions, found);
            } else if path.extension().is_some_and(|end| extensions.iter().any(|wanted| end == *wanted)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&longseq_check::repository().join(folder), extensions, &mut found);
    found.sort();
    found
}

/// Every Rust file.
fn rust_files() -> Vec<PathBuf> {
    ["src", "tests", "benches", "crates", "examples"]
        .iter()
        .flat_map(|folder| files(folder, &["rs"]))
        .collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a readable file")
}

/// The path from the repository's root.
fn short(path: &Path) -> String {
    let path = path.strip_prefix(longseq_check::repository()).unwrap_or(path);
    path.display().to_string().replace('\\', "/")
}

#[track_caller]
fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn files_are_short() {
    let mut all = rust_files();
    all.extend(["kernels", "shaders"].iter().flat_map(|folder| files(folder, &["cu", "cuh", "wgsl"])));
    assert!(all.len() > 200, "{} files", all.len());
    let long = all.iter().map(|path| (read(path).lines().count(), path));
    let long: Vec<String> = long
        .filter(|(lines, _)| *lines > FILE_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", short(path)))
        .collect();
    assert_none(&format!("files of more than {FILE_LINES} lines"), &long);
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    let kernels = files("kernels", &["cu", "cuh"]).into_iter().chain(files("shaders", &["wgsl"]));
    for path in rust_files().into_iter().chain(kernels) {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let Some(name) = function_name(code).or_else(|| device_function_name(code)) else { continue };
            // rustfmt and clang-format put the closing brace where the function begins.
            let indent = &line[..line.len() - code.len()];
            let end = format!("{indent}}}");
            let length = lines[start..]
                .iter()
                .position(|line| *line == end || is_declaration(line, indent))
                .map(|last| last + 1);
            if let Some(length) = length.filter(|length| *length > FUNCTION_LINES) {
                long.push(format!("{}:{}: {name}: {length} lines", short(&path), start + 1));
            }
        }
    }
    assert_none(&format!("functions of more than {FUNCTION_LINES} lines"), &long);
}

/// The name of the function that a line begins, if it does.
fn function_name(code: &str) -> Option<&str> {
    let words = [
        "pub ",
        "pub(crate) ",
        "pub(super) ",
        "pub(in crate::cuda) ",
        "const ",
        "unsafe ",
        "extern \"C\" ",
        "async ",
    ];
    let mut code = code;
    while let Some(rest) = words.iter().find_map(|word| code.strip_prefix(word)) {
        code = rest;
    }
    code.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// The name of the CUDA function that a line begins, if it does and does not end it, too.
fn device_function_name(code: &str) -> Option<&str> {
    let is_function = code.contains("__device__ ") || code.contains("__global__ ");
    let more = !code.starts_with("//") && !code.ends_with(['}', ';', '\\']);
    let rest = code
        .split_once("__launch_bounds__(")
        .map_or(code, |(_, rest)| rest.split_once(") ").unwrap_or_default().1);
    let name = rest.split('(').next()?.split(' ').next_back()?;
    (is_function && more && rest.contains('(')).then(|| name.trim_start_matches('*'))
}

/// The end of a function of a trait without a body.
fn is_declaration(line: &str, indent: &str) -> bool {
    line.strip_prefix(indent).is_some_and(|line| line.starts_with("fn ") || line.starts_with(')'))
        && line.ends_with(';')
}

/// The module of a file of `src`: `["cuda", "lookup"]`.
fn module_of(path: &Path) -> Vec<String> {
    let path = short(path);
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Names of the paths that a file's `use` lines and inline paths import from this crate, each as words.
fn imports(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let code: String = text
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some(start) = statement.rfind("use ") else { continue };
        if !statement[..start].trim_end().ends_with(['}', ']', ')']) && !statement[..start].trim().is_empty()
        {
            let before = statement[..start].split_whitespace().last().unwrap_or_default();
            // What a module passes on is not an import of its own.
            if before.starts_with("pub") {
                continue;
            }
        }
        expand(&statement[start + 4..], &mut Vec::new(), &mut found);
    }
    found.into_iter().filter_map(|path| absolute(&path, module)).collect()
}

/// Splits `a::{b, c::d}` into its paths.
fn expand(tree: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    match tree.split_once("::") {
        Some((first, rest)) if !first.contains(['{', ',']) => {
            prefix.push(first.trim().to_owned());
            expand(rest, prefix, found);
            prefix.pop();
        }
        _ if tree.starts_with('{') => {
            let inner = tree.trim_start_matches('{').strip_suffix('}').unwrap_or(tree);
            let (mut depth, mut start) = (0, 0);
            for (place, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        expand(&inner[start..place], prefix, found);
                        start = place + 1;
                    }
                    _ => {}
                }
            }
        }
        _ => {
            let name = tree.split(" as ").next().unwrap_or_default();
            let mut path = prefix.clone();
            if !["", "self", "*"].contains(&name) {
                path.push(name.to_owned());
            }
            found.push(path);
        }
    }
}

/// The path from the crate's root, or `None` where it is another crate's.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|word| *word == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([&module[..module.len().saturating_sub(supers)], &path[supers..]].concat()),
        _ => None,
    }
}

/// The imports among the files of `src`: from each module to the modules it uses items of.
fn graph() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let texts: BTreeMap<Vec<String>, String> =
        files("src", &["rs"]).iter().map(|path| (module_of(path), read(path))).collect();
    let owner = |path: &[String]| -> Option<Vec<String>> {
        let module =
            (0..=path.len()).rev().map(|end| &path[..end]).find(|module| texts.contains_key(*module))?;
        // An item that a module only passes on belongs to the child that has it.
        let item = path.get(module.len());
        Some(item.and_then(|item| passed_on(&texts, module, item)).unwrap_or_else(|| module.to_vec()))
    };
    let mut graph = BTreeMap::new();
    for (module, text) in &texts {
        let paths = imports(text, module);
        let uses = paths.iter().filter_map(|path| owner(path)).filter(|used| used != module);
        // The root only declares and passes on.
        let uses: BTreeSet<_> = uses.filter(|used| !used.is_empty()).collect();
        graph.insert(module.clone(), uses);
    }
    graph
}

/// The module below `module` from which `module` passes `item` on, by `pub use child::item`.
fn passed_on(texts: &BTreeMap<Vec<String>, String>, module: &[String], item: &str) -> Option<Vec<String>> {
    for statement in texts[module].split(';') {
        let Some(start) = statement.find("pub").filter(|_| statement.contains(" use ")) else { continue };
        let mut found = Vec::new();
        let tree = statement[start..].split_once(" use ")?.1;
        expand(tree, &mut Vec::new(), &mut found);
        for path in found.iter().filter(|path| path.last().is_some_and(|last| last == item) && path.len() > 1)
        {
            let words = if path[0] == "self" { &path[1..] } else { &path[..] };
            let target = if path[0] == "crate" { path[1..].to_vec() } else { [module, words].concat() };
            let child = &target[..target.len() - 1];
            if texts.contains_key(child) {
                return passed_on(texts, child, item).or_else(|| Some(child.to_vec()));
            }
        }
    }
    None
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let graph = graph();
    let reaches = |from: &Vec<String>| {
        let mut seen: BTreeSet<Vec<String>> = BTreeSet::new();
        let mut left: Vec<Vec<String>> = graph[from].iter().cloned().collect();
        while let Some(next) = left.pop() {
            if seen.insert(next.clone()) {
                left.extend(graph.get(&next).into_iter().flatten().cloned());
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = graph.keys().map(|module| (module, reaches(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, reached_from) in &reached {
        let circle =
            reached_from.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*module)));
        let circle: BTreeSet<String> = circle.map(|module| module.join("::")).collect();
        if !circle.is_empty() {
            circles.insert(circle.into_iter().collect::<Vec<_>>().join(", "));
        }
    }
    assert_none("circular imports", &circles.into_iter().collect::<Vec<_>>());
}

/// A kernel's symbol that is put together at run time cannot be found by a search.
#[test]
fn names_of_kernels_are_written_out() {
    let mut found = Vec::new();
    let backends = ["src/cuda", "src/webgpu", "src/gpu"].iter().flat_map(|folder| files(folder, &["rs"]));
    // The tests of the contracts compare names with the sources, and put them together for that.
    for path in backends.filter(|path| !short(path).contains("/contracts/")) {
        for (number, line) in read(&path).lines().enumerate() {
            let literals = line.split("format!(\"").skip(1).filter_map(|rest| rest.split('"').next());
            let is_symbol = |text: &str| {
                let letters = |letter: char| letter.is_ascii_alphanumeric() || "_{}".contains(letter);
                text.chars().all(letters) && text.contains('_') && text.contains('{')
            };
            if literals.into_iter().any(is_symbol) {
                found.push(format!("{}:{}: {}", short(&path), number + 1, line.trim()));
            }
        }
    }
    assert_none("names of kernels made with format!", &found);
}

/// Every file with unsafe code is in the table of docs/decisions/unsafe-code.md, with as many blocks as it has and with tests that
/// exist.
#[test]
fn unsafe_code_has_tests_that_show_it_wrong() {
    let page = read(&longseq_check::repository().join("docs/decisions/unsafe-code.md"));
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| row.trim_end_matches(" |").split(" | ").collect())
        .collect();
    let listed: BTreeMap<&str, usize> = rows
        .iter()
        .map(|row| (row[0].trim_end_matches('`'), row[1].parse().expect("a number of blocks")))
        .collect();
    let texts: Vec<String> = rust_files().iter().map(|path| read(path)).collect();
    // Tests and examples are no part of what is used.
    let paths = ["src", "crates"].iter().flat_map(|folder| files(folder, &["rs"]));
    let blocks: BTreeMap<String, usize> = paths
        .filter(|path| !["/tests/", "/examples/"].iter().any(|folder| short(path).contains(folder)))
        .map(|path| (short(&path), read(&path).matches("// SAFETY:").count()))
        .filter(|(_, blocks)| *blocks > 0)
        .collect();
    let blocks: BTreeMap<&str, usize> = blocks.iter().map(|(file, blocks)| (&**file, *blocks)).collect();
    assert_eq!(listed, blocks, "the table on the left");
    for row in &rows {
        let (file, tests) = (row[0], row[3]);
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{file} has no test");
        for name in names {
            let is_script = longseq_check::repository().join(name).is_file();
            let is_test = texts.iter().any(|text| text.contains(&format!("fn {name}")));
            assert!(is_script || is_test, "{file}: there is no test {name}");
        }
    }
}

/// A call that a backend of this crate has, `AnyBackend` has too: a default in its place would answer that there is none.
#[test]
fn any_backend_passes_every_call_on() {
    let has = |text: &str, name: &str| {
        [format!("\n    fn {name}("), format!("\n    fn {name}<")].iter().any(|start| text.contains(start))
    };
    let (mut calls, mut missing) = (0, Vec::new());
    let traits = files("src/ops", &["rs"]).into_iter().filter(|path| path.ends_with("calls.rs"));
    for path in traits.chain(files("src", &["rs"]).into_iter().filter(|path| short(path) == "src/device.rs"))
    {
        // `ops/tin/calls.rs` is the trait of `tin`, `device.rs` that of `device`.
        let module = module_of(&path);
        let stem = module.get(1).unwrap_or(&module[0]);
        let any = read(&longseq_check::repository().join(format!("src/any/{stem}.rs")));
        let folder = if module.len() > 1 { format!("/{stem}") } else { String::new() };
        let backends =
            ["cpu", "cuda", "webgpu"].map(|backend| files(&format!("src/{backend}{folder}"), &["rs"]));
        let backends: String = backends.iter().flatten().map(|path| read(path)).collect();
        for line in read(&path).lines().filter(|line| line.starts_with("    fn ")) {
            let name = function_name(line.trim_start()).unwrap_or_default();
            if has(&backends, name) {
                calls += 1;
                missing.extend((!has(&any, name)).then(|| format!("{stem}: {name}")));
            }
        }
    }
    assert!(calls > 45, "{calls} calls");
    assert_none("calls that AnyBackend lacks", &missing);
}

/// A function that is compiled for instructions of some processors is called where all of them are asked for.
#[test]
fn vector_instructions_are_asked_for() {
    let mut functions = 0;
    for path in rust_files().iter().filter(|path| !short(path).ends_with("/house.rs")) {
        let text = read(path);
        for attribute in text.split("#[target_feature(enable = \"").skip(1) {
            functions += 1;
            for feature in attribute.split('"').next().unwrap_or_default().split(',') {
                let asked = text.contains(&format!("is_x86_feature_detected!(\"{feature}\")"));
                assert!(asked, "{}: nothing asks for {feature}", short(path));
            }
        }
    }
    assert!(functions > 2, "{functions} functions");
}

/// Between floats, naga translates `!=` to a comparison that is false for NaN: `!(x == 0.0)` is right.
#[test]
fn shaders_compare_floats_in_a_way_that_holds_for_nan() {
    let mut found = Vec::new();
    for path in files("shaders", &["wgsl"]) {
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let is_float = |right: &str| {
                let right: String =
                    right.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                right.contains('.')
            };
            if code.split("!=").skip(1).any(is_float) {
                found.push(format!("{}:{}", short(&path), number + 1));
            }
        }
    }
    assert_none("a float compared with !=", &found);
}

/// Tests that try every call go by a list, which no call of an operation's trait is missing from.
#[test]
fn every_call_is_in_the_list_of_calls() {
    let (mut calls, mut missing) = (BTreeSet::new(), Vec::new());
    for path in files("src/ops", &["rs"]).into_iter().filter(|path| path.ends_with("calls.rs")) {
        for line in read(&path).lines().filter(|line| line.starts_with("    fn ")) {
            let name = function_name(line.trim_start()).unwrap_or_default();
            calls.insert(name.strip_suffix("_into").unwrap_or(name).to_owned());
        }
    }
    // It only allocates.
    assert!(calls.remove("sparse_gradient") && calls.len() > 35, "{calls:?}");
    let listed = longseq_check::support::CALLS.map(|(_, call)| call);
    missing.extend(calls.iter().filter(|call| !listed.contains(&call.as_str())).cloned());
    assert_none("calls that longseq_check::support::CALLS lacks", &missing);
}

/// What a call computes on `Cpu` depends on no mode of the thread that makes it.
#[test]
fn every_call_of_the_cpu_sets_the_floating_point_mode() {
    let (mut calls, mut missing) = (0, Vec::new());
    for path in files("src/cpu", &["rs"]).into_iter().filter(|path| short(path) != "src/cpu/mod.rs") {
        let text = read(&path);
        let Some((_, implementation)) = text.split_once("Ops for Cpu {\n") else { continue };
        let body = implementation.split("\n}\n").next().unwrap_or_default();
        for call in format!("\n{body}").split("\n    fn ").skip(1) {
            calls += 1;
            let name = call.split(['(', '<']).next().unwrap_or_default();
            // It orders integers.
            let sets = name == "sort_ids_into" || call.contains("with_default_floats(");
            missing.extend((!sets).then(|| format!("{}: {name}", short(&path))));
        }
    }
    assert!(calls >= longseq_check::support::CALLS.len(), "{calls} calls");
    assert_none("calls that do not set the floating-point mode", &missing);
}
