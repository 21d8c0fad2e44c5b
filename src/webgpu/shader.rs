//! Assembles the text of a kernel: constants, bindings with the functions that read them, and files of `shaders/`.

use std::fmt::Write;

use crate::element::{DType, Element};
use crate::webgpu::params::Block;

/// A variant of a kernel. Its text depends on these fields only.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Its file in `shaders/`, without the extension.
    pub(crate) name: &'static str,
    /// The twin of its uniform struct.
    pub(crate) params: &'static Block,
    /// Threads per workgroup.
    pub(crate) threads: u32,
    /// The text of the files it is made of.
    pub(crate) sources: &'static [&'static str],
    /// Constants of the variant.
    pub(crate) constants: Vec<(&'static str, u32)>,
    /// The storage buffers, from binding 1 on; binding 0 is the uniform `params`.
    pub(crate) slots: Vec<Slot>,
}

/// A storage buffer of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    name: &'static str,
    kind: Kind,
    pub(crate) write: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Elements read through `<name>_at(i)` and `<name>_vec4(i, left)`.
    Elements(Format),
    /// Unsigned integers of so many bits, read through `<name>_at(i)`.
    Words(u32),
    /// An array of a WGSL type.
    Plain(&'static str),
}

/// How elements are stored in a buffer, and whether they can be read as vec4s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    store: Store,
    /// Rows consist of whole vec4s and start at multiples of four elements.
    pub(crate) vectors: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    F32,
    F16,
    Bf16,
    I8,
}

impl Format {
    pub(crate) fn of<T: Element>(vectors: bool) -> Self {
        let store = match T::DTYPE {
            DType::F32 => Store::F32,
            DType::F16 => Store::F16,
            DType::Bf16 => Store::Bf16,
        };
        Self { store, vectors }
    }

    pub(crate) const fn f32(vectors: bool) -> Self {
        Self { store: Store::F32, vectors }
    }

    /// The same elements, read as vec4s or not.
    pub(crate) fn with_vectors(self, vectors: bool) -> Self {
        Self { vectors, ..self }
    }

    pub(crate) const fn int8(vectors: bool) -> Self {
        Self { store: Store::I8, vectors }
    }

    /// All formats of floats, for the list of all variants.
    pub(crate) const ALL: [Self; 6] = [
        Self { store: Store::F32, vectors: true },
        Self { store: Store::F32, vectors: false },
        Self { store: Store::F16, vectors: true },
        Self { store: Store::F16, vectors: false },
        Self { store: Store::Bf16, vectors: true },
        Self { store: Store::Bf16, vectors: false },
    ];
}

impl Slot {
    /// Elements to read, which the kernel sees as `f32`.
    pub(crate) const fn read(name: &'static str, format: Format) -> Self {
        Self { name, kind: Kind::Elements(format), write: false }
    }

    /// Unsigned integers of 8, 16 or 32 bits to read.
    pub(crate) const fn words(name: &'static str, bits: u32) -> Self {
        Self { name, kind: Kind::Words(bits), write: false }
    }

    /// An array of a WGSL type to read.
    pub(crate) const fn plain(name: &'static str, item: &'static str) -> Self {
        Self { name, kind: Kind::Plain(item), write: false }
    }

    /// An array of a WGSL type to write.
    pub(crate) const fn write(name: &'static str, item: &'static str) -> Self {
        Self { name, kind: Kind::Plain(item), write: true }
    }

    /// Writes the declaration and the functions that read the elements. `<name>_vec4` returns elements `i..i + 4`, with zeros
    /// from `left` on, where the next row starts.
    fn declare(&self, binding: usize, text: &mut String) {
        let (name, access) = (self.name, if self.write { "read_write" } else { "read" });
        let item = match self.kind {
            Kind::Plain(item) => item,
            Kind::Words(_) => "u32",
            Kind::Elements(Format { store: Store::F32, vectors: true }) => "vec4<f32>",
            Kind::Elements(Format { store: Store::F32, vectors: false }) => "f32",
            Kind::Elements(Format { store: Store::I8, .. }) => "u32",
            Kind::Elements(Format { vectors: true, .. }) => "vec2<u32>",
            Kind::Elements(Format { vectors: false, .. }) => "u32",
        };
        let _ = writeln!(text, "@group(0) @binding({binding}) var<storage, {access}> {name}: array<{item}>;");
        match self.kind {
            Kind::Plain(_) => {}
            Kind::Words(32) => {
                let _ = writeln!(text, "fn {name}_at(i: u32) -> u32 {{ return {name}[i]; }}");
            }
            Kind::Words(bits) => {
                let (shift, mask) = if bits == 16 { (1, 1) } else { (2, 3) };
                let _ = writeln!(
                    text,
                    "fn {name}_at(i: u32) -> u32 {{ return extractBits({name}[i >> {shift}u], (i & {mask}u) * {bits}u, {bits}u); }}"
                );
            }
            Kind::Elements(format) => format.declare(name, text),
        }
    }
}

impl Format {
    fn declare(self, name: &str, text: &mut String) {
        let unit = |access: &str, index: &str| access.replace("$", name).replace("@", index);
        // How one element is read, and how a vec4 is where the format allows it.
        let (one, vec4) = match (self.store, self.vectors) {
            (Store::F32, true) => ("$[@ >> 2u][@ & 3u]", "$[@ >> 2u]"),
            (Store::F32, false) => ("$[@]", ""),
            (Store::F16, true) => {
                ("unpack2x16float($[@ >> 2u][(@ >> 1u) & 1u])[@ & 1u]", "widen_f16($[@ >> 2u])")
            }
            (Store::F16, false) => ("unpack2x16float($[@ >> 1u])[@ & 1u]", ""),
            (Store::Bf16, true) => ("widen_bf16($[@ >> 2u])[@ & 3u]", "widen_bf16($[@ >> 2u])"),
            (Store::Bf16, false) => {
                ("bitcast<f32>(select($[@ >> 1u] << 16u, $[@ >> 1u] & 0xffff0000u, (@ & 1u) == 1u))", "")
            }
            (Store::I8, true) => ("widen_i8($[@ >> 2u])[@ & 3u]", "widen_i8($[@ >> 2u])"),
            (Store::I8, false) => ("widen_i8($[@ >> 2u])[@ & 3u]", ""),
        };
        let _ = writeln!(text, "fn {name}_at(i: u32) -> f32 {{ return {}; }}", unit(one, "i"));
        if self.vectors {
            let _ = writeln!(
                text,
                "fn {name}_vec4(i: u32, left: u32) -> vec4<f32> {{ return {}; }}",
                unit(vec4, "i")
            );
        } else {
            // Elements past the end of the row are not read: they could be past the end of the buffer.
            let _ = writeln!(
                text,
                "fn {name}_vec4(i: u32, left: u32) -> vec4<f32> {{
    var value = vec4<f32>({name}_at(i), 0.0, 0.0, 0.0);
    if left > 1u {{ value.y = {name}_at(i + 1u); }}
    if left > 2u {{ value.z = {name}_at(i + 2u); }}
    if left > 3u {{ value.w = {name}_at(i + 3u); }}
    return value;
}}"
            );
        }
    }
}

impl Kernel {
    /// Its file, relative to the root of the package.
    pub(crate) fn file(&self) -> String {
        format!("shaders/{}.wgsl", self.name)
    }

    /// Whether it needs the feature `subgroups`.
    pub(crate) fn needs_subgroups(&self) -> bool {
        self.constants.contains(&("QUADS", 1))
    }

    /// Its name, constants and slots, which distinguish it from all other variants.
    pub(crate) fn key(&self) -> String {
        let mut key = String::from(self.name);
        for (name, value) in &self.constants {
            let _ = write!(key, " {name}={value}");
        }
        for slot in &self.slots {
            let _ = match slot.kind {
                Kind::Elements(Format { store, vectors }) => {
                    write!(key, " {}:{store:?}{}", slot.name, if vectors { "x4" } else { "" })
                }
                Kind::Words(bits) => write!(key, " {}:u{bits}", slot.name),
                Kind::Plain(_) => write!(key, " {}", slot.name),
            };
        }
        key
    }

    /// The WGSL text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("// {}\n", self.key());
        for (name, value) in &self.constants {
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        for (index, slot) in self.slots.iter().enumerate() {
            slot.declare(index + 1, &mut text);
        }
        text.push_str(include_str!("../../shaders/shared/common.wgsl"));
        for source in self.sources {
            text.push_str(source);
        }
        text
    }
}
