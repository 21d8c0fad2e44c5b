//! Parameter blocks: Rust structs that are twins of the uniform structs of the shaders.
//!
//! A twin has the name of the WGSL struct, and its fields with their names, order and types. The first two fields of every
//! WGSL struct, `groups` and `grid_width`, are those of [`Dispatch`]; [`dispatch`](crate::Wgpu) fills them in. The tests
//! compare every twin with the struct that naga finds in the shader.

use bytemuck::{Pod, Zeroable};

/// A parameter block, for tests and for matching it with its kernel.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) name: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with the shaders by the tests"))]
    pub(crate) fields: &'static [Field],
}

/// A field of a parameter block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// The WGSL type.
    pub(crate) kind: &'static str,
    /// In bytes from the start of the struct.
    pub(crate) offset: usize,
}

/// A struct declared by [`params!`].
pub(crate) trait Params: Pod {
    const BLOCK: Block;
}

/// A Rust type and its WGSL type.
pub(crate) trait Uniform: Pod {
    const KIND: &'static str;
}

impl Uniform for u32 {
    const KIND: &'static str = "u32";
}

impl Uniform for f32 {
    const KIND: &'static str = "f32";
}

impl Uniform for [u32; 4] {
    const KIND: &'static str = "vec4<u32>";
}

/// Declares a parameter block: the struct and the table of its fields.
macro_rules! params {
    ($(#[$about:meta])* $vis:vis struct $name:ident { $($(#[$note:meta])* $field:ident: $kind:ty,)+ }) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name {
            $($(#[$note])* $vis $field: $kind,)+
        }

        impl $crate::webgpu::params::Params for $name {
            const BLOCK: $crate::webgpu::params::Block = $crate::webgpu::params::Block {
                name: stringify!($name),
                fields: &[$($crate::webgpu::params::Field {
                    name: stringify!($field),
                    kind: <$kind as $crate::webgpu::params::Uniform>::KIND,
                    offset: std::mem::offset_of!($name, $field),
                },)+],
            };
        }
    };
}
pub(crate) use params;

/// What every parameter block starts with: the number of workgroups, and how many of them are in a row of the grid.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Dispatch {
    pub(crate) groups: u32,
    pub(crate) grid_width: u32,
}

#[cfg(test)]
mod tests {
    use wgpu::naga;

    use super::*;
    use crate::webgpu::all_kernels;

    /// The fields of the uniform struct of a shader.
    fn uniform_of(module: &naga::Module) -> (String, Vec<(String, String, usize)>) {
        let is_uniform = |variable: &naga::GlobalVariable| variable.space == naga::AddressSpace::Uniform;
        let variable = module.global_variables.iter().map(|(_, variable)| variable).find(|v| is_uniform(v));
        let ty = &module.types[variable.expect("a uniform").ty];
        let naga::TypeInner::Struct { members, .. } = &ty.inner else { panic!("{ty:?} is no struct") };
        let kind = |inner: &naga::TypeInner| match inner {
            naga::TypeInner::Scalar(naga::Scalar::U32) => "u32".to_owned(),
            naga::TypeInner::Scalar(naga::Scalar::F32) => "f32".to_owned(),
            naga::TypeInner::Vector { size: naga::VectorSize::Quad, scalar: naga::Scalar::U32 } => {
                "vec4<u32>".to_owned()
            }
            other => format!("{other:?}"),
        };
        let field = |member: &naga::StructMember| {
            let name = member.name.clone().expect("a named field");
            (name, kind(&module.types[member.ty].inner), member.offset as usize)
        };
        (ty.name.clone().expect("a named struct"), members.iter().map(field).collect())
    }

    /// Compares a block with the uniform struct of a shader.
    fn compare(block: &Block, module: &naga::Module) -> Result<(), String> {
        let (name, found) = uniform_of(module);
        if name != block.name {
            return Err(format!("{} in Rust is {name} in WGSL", block.name));
        }
        let header = std::mem::offset_of!(Dispatch, groups)..std::mem::offset_of!(Dispatch, grid_width);
        let expected =
            [("groups", "u32", header.start), ("grid_width", "u32", header.end)].into_iter().chain(
                block
                    .fields
                    .iter()
                    .map(|field| (field.name, field.kind, field.offset + size_of::<Dispatch>())),
            );
        let expected: Vec<_> =
            expected.map(|(name, kind, offset)| (name.to_owned(), kind.to_owned(), offset)).collect();
        match expected.iter().zip(&found).find(|(expected, found)| expected != found) {
            Some((expected, found)) => Err(format!("{name}: {expected:?} in Rust is {found:?} in WGSL")),
            None if expected.len() == found.len() => Ok(()),
            None => Err(format!("{name}: {} fields in Rust, {} in WGSL", expected.len(), found.len())),
        }
    }

    #[test]
    fn parameter_blocks_match_the_shaders() {
        for kernel in all_kernels() {
            let text = kernel.text();
            let key = kernel.key();
            let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|error| panic!("{key}: {error}"));
            compare(kernel.params, &module).unwrap_or_else(|difference| panic!("{key}: {difference}"));
            let [entry] = &module.entry_points[..] else { panic!("{key}: one entry point") };
            assert_eq!(entry.workgroup_size, [kernel.threads, 1, 1], "{key}");
            let file = crate::repository().join(kernel.file());
            let source = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
            assert!(text.contains(&source), "{key} is not made of {file:?}");
        }
    }

    #[test]
    fn a_name_has_one_block() {
        let kernels = all_kernels();
        for a in &kernels {
            for b in &kernels {
                assert_eq!(a.name == b.name, a.params.name == b.params.name, "{} and {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn wrong_twins_are_noticed() {
        const WGSL: &str =
            "struct WrongParams { groups: u32, grid_width: u32, rows: u32, width: u32, factor: f32 }
            @group(0) @binding(0) var<uniform> params: WrongParams;
            @compute @workgroup_size(1) fn main() { _ = params.rows; }";
        mod right {
            params! { pub(super) struct WrongParams { rows: u32, width: u32, factor: f32, } }
        }
        mod swapped {
            params! { pub(super) struct WrongParams { width: u32, rows: u32, factor: f32, } }
        }
        mod other_type {
            params! { pub(super) struct WrongParams { rows: u32, width: u32, factor: u32, } }
        }
        mod short {
            params! { pub(super) struct WrongParams { rows: u32, width: u32, } }
        }
        let module = naga::front::wgsl::parse_str(WGSL).expect("valid WGSL");
        assert_eq!(compare(&right::WrongParams::BLOCK, &module), Ok(()));
        let noticed = |block: Block, expected: &str| {
            let difference = compare(&block, &module).expect_err(expected);
            assert!(difference.contains(expected), "{difference}");
        };
        noticed(swapped::WrongParams::BLOCK, r#"("width", "u32", 8) in Rust is ("rows", "u32", 8) in WGSL"#);
        noticed(other_type::WrongParams::BLOCK, r#"("factor", "u32", 16) in Rust is ("factor", "f32", 16)"#);
        noticed(short::WrongParams::BLOCK, "4 fields in Rust, 5 in WGSL");
    }
}
