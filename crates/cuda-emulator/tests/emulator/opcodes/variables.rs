//! Variables, parameters and special registers: PTX ISA, "State Spaces, Types, and Variables" and "Special Registers".

use crate::support::{Gpu, launch};

const HEAD: &str = ".version 7.4\n.target sm_80\n.address_size 64\n";

#[test]
fn module_variables_have_their_initial_values() {
    let gpu = Gpu::new();
    let ptx = format!(
        "{HEAD}.const .align 4 .f32 table[3] = {{0f3F800000, 2.5, 0fC0000000}};
.global .align 4 .u32 words[4] = {{1, 2, 0xff}};
.global .align 1 .b8 bytes[4] = {{1, 255, 3, 4}};
.global .s16 lone = -7;
.const .align 8 .b8 padded[12] = {{0, 0, 128, 63}};
.visible .entry k(.param .u64 to)
{{
    .reg .b64 %to, %p;
    .reg .b32 %w;
    .reg .f32 %f;
    ld.param.u64 %to, [to];
    cvta.to.global.u64 %to, %to;
    ld.const.f32 %f, [table+4];
    st.global.f32 [%to], %f;
    ld.const.f32 %f, [table+8];
    st.global.f32 [%to+4], %f;
    ld.global.u32 %w, [words+8];
    st.global.u32 [%to+8], %w;
    ld.global.u32 %w, [words+12];
    st.global.u32 [%to+12], %w;
    ld.global.u32 %w, [bytes];
    st.global.u32 [%to+16], %w;
    ld.global.s16 %w, [lone];
    st.global.u32 [%to+20], %w;
    ld.const.f32 %f, [padded];
    st.global.f32 [%to+24], %f;
    ld.const.u32 %w, [padded+8];
    st.global.u32 [%to+28], %w;
    mov.u64 %p, table;
    ld.const.u32 %w, [%p];
    st.global.u32 [%to+32], %w;
    ret;
}}
"
    );
    let function = gpu.function(&ptx, "k");
    let mut output = gpu.zeros::<u32>(9);
    launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &mut output)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    let expected = [
        2.5f32.to_bits(),
        0xc000_0000,
        255,
        0,
        0x0403_ff01,
        -7i32 as u32,
        1.0f32.to_bits(),
        0,
        1.0f32.to_bits(),
    ];
    assert_eq!(gpu.download(&output), expected);
}

#[test]
fn an_initialiser_may_be_an_address() {
    let gpu = Gpu::new();
    let ptx = format!(
        "{HEAD}.global .align 4 .u32 words[2] = {{7, 9}};
.global .align 8 .u64 plain = words;
.global .align 8 .u64 second = generic(words)+4;
.visible .entry k(.param .u64 to)
{{
    .reg .b64 %to, %p;
    .reg .b32 %w;
    ld.param.u64 %to, [to];
    ld.global.u64 %p, [plain];
    ld.global.u32 %w, [%p];
    st.global.u32 [%to], %w;
    ld.global.u64 %p, [second];
    ld.u32 %w, [%p];
    st.global.u32 [%to+4], %w;
    ret;
}}
"
    );
    let function = gpu.function(&ptx, "k");
    let mut output = gpu.zeros::<u32>(2);
    launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &mut output)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    assert_eq!(gpu.download(&output), [7, 9]);
}

/// Each parameter has its own alignment; a structure is passed by value as an array of bytes.
#[test]
fn parameters_are_laid_out_by_their_alignment() {
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Shape {
        rows: u32,
        scale: f32,
        base: u64,
    }
    // SAFETY: plain data without padding.
    unsafe impl cudarc::driver::DeviceRepr for Shape {}
    let gpu = Gpu::new();
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u8 small, .param .u16 medium, .param .align 8 .b8 shape[16], .param .f32 real, .param .u64 to)
{{
    .reg .b64 %to, %d;
    .reg .b32 %w, %x;
    .reg .f32 %f;
    ld.param.u64 %to, [to];
    cvta.to.global.u64 %to, %to;
    ld.param.u8 %w, [small];
    st.global.u32 [%to], %w;
    ld.param.s16 %w, [medium];
    st.global.u32 [%to+4], %w;
    ld.param.v2.u32 {{%w, %x}}, [shape];
    st.global.v2.u32 [%to+8], {{%w, %x}};
    ld.param.u64 %d, [shape+8];
    st.global.u64 [%to+16], %d;
    ld.param.f32 %f, [real];
    st.global.f32 [%to+24], %f;
    ret;
}}
"
    );
    let function = gpu.function(&ptx, "k");
    let mut output = gpu.zeros::<u32>(7);
    let shape = Shape { rows: 3, scale: 0.5, base: 0x1_0000_0002 };
    assert_eq!((shape.rows, shape.scale), (3, 0.5));
    launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &200u8, &-2i16, &shape, &1.25f32, &mut output)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    assert_eq!(gpu.download(&output), [200, -2i32 as u32, 3, 0.5f32.to_bits(), 2, 1, 1.25f32.to_bits()]);
}

#[test]
fn indices_have_three_dimensions() {
    let gpu = Gpu::new();
    let names = [
        "%tid.x",
        "%tid.y",
        "%tid.z",
        "%ctaid.x",
        "%ctaid.y",
        "%ctaid.z",
        "%ntid.x",
        "%ntid.y",
        "%ntid.z",
        "%nctaid.x",
        "%nctaid.y",
        "%nctaid.z",
        "%laneid",
        "%warpid",
        "%nwarpid",
    ];
    let stores: String = names
        .iter()
        .enumerate()
        .map(|(i, name)| format!("mov.u32 %w, {name};\nst.global.u32 [%to+{}], %w;\n", 4 * i))
        .collect();
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 to)
{{
    .reg .b64 %to, %o;
    .reg .b32 %w, %i, %n, %b;
    ld.param.u64 %to, [to];
    cvta.to.global.u64 %to, %to;
    mov.u32 %b, %ctaid.z;
    mov.u32 %n, %nctaid.y;
    mov.u32 %w, %ctaid.y;
    mad.lo.u32 %b, %b, %n, %w;
    mov.u32 %n, %nctaid.x;
    mov.u32 %w, %ctaid.x;
    mad.lo.u32 %b, %b, %n, %w;
    mov.u32 %i, %tid.z;
    mov.u32 %n, %ntid.y;
    mov.u32 %w, %tid.y;
    mad.lo.u32 %i, %i, %n, %w;
    mov.u32 %n, %ntid.x;
    mov.u32 %w, %tid.x;
    mad.lo.u32 %i, %i, %n, %w;
    mad.lo.u32 %i, %b, 42, %i;
    mul.wide.u32 %o, %i, {};
    add.u64 %to, %to, %o;
{stores}
    ret;
}}
",
        4 * names.len()
    );
    let function = gpu.function(&ptx, "k");
    let (grid, block) = ((2u32, 3u32, 2u32), (7u32, 3u32, 2u32));
    let mut output = gpu.zeros::<u32>(12 * 42 * names.len());
    launch!(gpu, function, grid, block, 0; &mut output)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    let got = gpu.download(&output);
    let mut at = 0;
    for bz in 0..grid.2 {
        for by in 0..grid.1 {
            for bx in 0..grid.0 {
                for t in 0..42 {
                    let (x, y, z) = (t % 7, t / 7 % 3, t / 21);
                    let expected = [x, y, z, bx, by, bz, 7, 3, 2, 2, 3, 2, t % 32, t / 32, 2];
                    assert_eq!(got[at..at + 15], expected, "block {bx} {by} {bz}, thread {t}");
                    at += 15;
                }
            }
        }
    }
}

#[test]
fn lane_masks_and_clocks() {
    let gpu = Gpu::sm_90();
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 to)
{{
    .reg .b64 %to, %o, %c, %d;
    .reg .b32 %w, %i;
    .reg .pred %p;
    ld.param.u64 %to, [to];
    cvta.to.global.u64 %to, %to;
    mov.u32 %i, %laneid;
    mul.wide.u32 %o, %i, 24;
    add.u64 %to, %to, %o;
    mov.u32 %w, %lanemask_eq;
    st.global.u32 [%to], %w;
    mov.u32 %w, %lanemask_lt;
    st.global.u32 [%to+4], %w;
    mov.u32 %w, %lanemask_le;
    st.global.u32 [%to+8], %w;
    mov.u32 %w, %lanemask_gt;
    st.global.u32 [%to+12], %w;
    mov.u32 %w, %lanemask_ge;
    st.global.u32 [%to+16], %w;
    mov.u64 %c, %clock64;
    mov.u64 %d, %clock64;
    setp.ge.u64 %p, %d, %c;
    selp.u32 %w, WARP_SZ, 0, %p;
    st.global.u32 [%to+20], %w;
    mov.u32 %w, %clock;
    mov.u64 %c, %globaltimer;
    mov.u32 %w, %smid;
    ret;
}}
"
    );
    let function = gpu.function(&ptx, "k");
    let mut output = gpu.zeros::<u32>(32 * 6);
    launch!(gpu, function, (1, 1, 1), (32, 1, 1), 0; &mut output)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    for (lane, got) in gpu.download(&output).chunks(6).enumerate() {
        let equal = 1u32 << lane;
        assert_eq!(
            got,
            [equal, equal - 1, equal | (equal - 1), !(equal | (equal - 1)), !(equal - 1), 32],
            "lane {lane}"
        );
    }
}

/// Dynamic shared memory follows static shared memory; the sizes are in `%dynamic_smem_size` and `%total_smem_size`.
#[test]
fn dynamic_shared_memory_has_the_size_of_the_launch() {
    let gpu = Gpu::new();
    let ptx = format!(
        "{HEAD}.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 to)
{{
    .shared .align 4 .b8 fixed[64];
    .reg .b64 %to;
    .reg .b32 %w, %d, %f;
    ld.param.u64 %to, [to];
    cvta.to.global.u64 %to, %to;
    mov.u32 %w, %dynamic_smem_size;
    st.global.u32 [%to], %w;
    mov.u32 %d, dynamic;
    mov.u32 %f, fixed;
    st.shared.u32 [%f+60], 11;
    st.shared.u32 [%d+1020], 22;
    ld.shared.u32 %w, [fixed+60];
    st.global.u32 [%to+4], %w;
    ld.shared.u32 %w, [dynamic+1020];
    st.global.u32 [%to+8], %w;
    ret;
}}
"
    );
    let function = gpu.function(&ptx, "k");
    let mut output = gpu.zeros::<u32>(3);
    launch!(gpu, function, (1, 1, 1), (1, 1, 1), 1024; &mut output)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    assert_eq!(gpu.download(&output), [1024, 11, 22]);
}
