//! Structs and constants of the CUDA sources.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use crate::cuda::twin::Field;

/// The declarations in all files of a folder.
pub(super) struct Source {
    structs: HashMap<String, Vec<(String, String)>>,
    constants: HashMap<String, usize>,
}

/// All files below `folder` of the crate with one of these extensions.
pub(super) fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut folders = vec![crate::repository().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the crate") {
            let path = entry.expect("an entry").path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Text without comments.
fn uncommented(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

impl Source {
    /// The sources in `kernels/`.
    pub(super) fn of_kernels() -> Self {
        let mut source = Self { structs: HashMap::new(), constants: HashMap::new() };
        for path in files("kernels", &["cu", "cuh"]) {
            source.read(&fs::read_to_string(path).expect("a source"));
        }
        source
    }

    /// Reads the structs and enumerators of a file.
    pub(super) fn read(&mut self, text: &str) {
        let text = uncommented(text);
        for (position, _) in text.match_indices("struct ") {
            let rest = &text[position + "struct ".len()..];
            let Some((name, rest)) = rest.split_once(" {") else { continue };
            let Some((body, _)) = rest.split_once("\n};") else { continue };
            // Structs with functions are not parameters.
            if name.contains(char::is_whitespace) || body.contains('(') {
                continue;
            }
            self.structs.insert(name.into(), body.split(';').flat_map(declared).collect());
        }
        for (name, value) in text.split([',', '{', '\n']).filter_map(|item| item.split_once('=')) {
            if let Ok(value) = value.trim().parse() {
                self.constants.insert(name.trim().into(), value);
            }
        }
    }

    /// The fields of a struct, with types as Rust spells them, and offsets by the rules of C++.
    pub(super) fn fields(&self, name: &str) -> Option<Vec<Field>> {
        let mut offset = 0usize;
        let mut fields = Vec::new();
        for (name, kind) in self.structs.get(name)? {
            let (size, alignment) = self.size(kind);
            offset = offset.next_multiple_of(alignment);
            fields.push(Field { name: name.clone(), kind: kind.clone(), offset });
            offset += size;
        }
        Some(fields)
    }

    /// Size and alignment of a type.
    fn size(&self, kind: &str) -> (usize, usize) {
        if let Some((element, count)) =
            kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')?.split_once("; "))
        {
            let (size, alignment) = self.size(element);
            let count = count.parse().unwrap_or_else(|_| self.constants[count]);
            return (size * count, alignment);
        }
        match kind {
            "u32" | "f32" => (4, 4),
            "u64" => (8, 8),
            name => {
                let fields = self.fields(name).unwrap_or_else(|| panic!("no struct {name}"));
                let alignment = fields.iter().map(|field| self.size(&field.kind).1).max().unwrap_or(1);
                let end = fields.last().map_or(0, |field| field.offset + self.size(&field.kind).0);
                (end.next_multiple_of(alignment), alignment)
            }
        }
    }
}

/// The fields of a declaration such as `const void *keys` or `u32 width, counts[3]`: names, and types as Rust spells
/// them. Pointers are `u64`.
fn declared(declaration: &str) -> Vec<(String, String)> {
    let declaration = declaration.trim().trim_start_matches("const ");
    let Some((kind, names)) = declaration.split_once(' ') else { return Vec::new() };
    let field = |name: &str| {
        let pointer = kind.ends_with('*') || name.trim().starts_with('*');
        let name = name.trim().trim_start_matches('*');
        let kind = match kind {
            _ if pointer => "u64",
            "float" => "f32",
            kind => kind,
        };
        match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((name, count)) => (name.to_owned(), format!("[{kind}; {count}]")),
            None => (name.to_owned(), kind.to_owned()),
        }
    };
    names.split(',').map(field).collect()
}
