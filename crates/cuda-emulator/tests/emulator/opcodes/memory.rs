//! Loads and stores in every state space, of every type and vector: PTX ISA, "ld", "st", "ld.global.nc", "cvta", "isspacep".

use cudarc::driver::CudaSlice;

use crate::support::{Expect, Gpu, Row, Table, Width, Word, launch};

/// A register must not be narrower than the type of the load; to a wider one the value is extended.
#[test]
fn narrow_loads_extend_by_their_type() {
    let gpu = Gpu::new();
    let words: Vec<u64> = vec![0x8182_8384_8586_8788, 0x0102_0304_0506_0708];
    let input = gpu.upload(&words);
    for (ty, register, extend) in [
        ("u8", "b32", (|w| w & 0xff) as fn(u64) -> u64),
        ("s8", "b32", |w| u64::from(i32::from(w as i8) as u32)),
        ("b8", "b16", |w| w & 0xff),
        ("s8", "b64", |w| i64::from(w as i8) as u64),
        ("u16", "b32", |w| w & 0xffff),
        ("s16", "b32", |w| u64::from(i32::from(w as i16) as u32)),
        ("s16", "b64", |w| i64::from(w as i16) as u64),
        ("b16", "b16", |w| w & 0xffff),
        ("u32", "b32", |w| w & 0xffff_ffff),
        ("s64", "b64", |w| w),
        ("u64", "b64", |w| w),
        ("s32", "b64", |w| i64::from(w as i32) as u64),
        ("u32", "b64", |w| w & 0xffff_ffff),
        ("f32", "f32", |w| w & 0xffff_ffff),
        ("b64", "b64", |w| w),
        ("f64", "f64", |w| w),
    ] {
        let mut output = gpu.zeros::<u64>(2);
        let width = &register[1..];
        for load in ["ld.global", "ld.global.nc", "ld.global.cs"] {
            let ptx = kernel(&format!(
                ".reg .{register} %value;\n{load}.{ty} %value, [%from];\nst.global.b{width} [%to], %value;\n\
                 {load}.{ty} %value, [%from+8];\nst.global.b{width} [%to+8], %value;"
            ));
            run(&gpu, &ptx, &input, &mut output);
            let expected = [extend(words[0]), extend(words[1])];
            assert_eq!(gpu.download(&output), expected, "{load}.{ty} into .{register}");
        }
    }
}

/// A kernel of one thread with pointers %from and %to.
fn kernel(body: &str) -> String {
    format!(
        ".version 7.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 from, .param .u64 to)\n{{\n.reg .b64 %from, %to;\n\
         ld.param.u64 %from, [from];\nld.param.u64 %to, [to];\ncvta.to.global.u64 %from, %from;\ncvta.to.global.u64 %to, %to;\n{body}\nret;\n}}\n"
    )
}

fn run(gpu: &Gpu, ptx: &str, from: &CudaSlice<u64>, to: &mut CudaSlice<u64>) {
    let function = gpu.function(ptx, "k");
    launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; from, to)
        .unwrap_or_else(|error| panic!("{error}: {}\n{ptx}", gpu.findings_text()));
}

#[test]
fn narrow_stores_leave_adjacent_bytes_unchanged() {
    let gpu = Gpu::new();
    let input = gpu.upload(&[0x1122_3344_5566_7788u64]);
    for (store, kept) in [
        ("u8", 0xff),
        ("b8", 0xff),
        ("u16", 0xffff),
        ("b16", 0xffff),
        ("u32", 0xffff_ffff),
        ("b64", u64::MAX),
    ] {
        let mut output = gpu.upload(&[u64::MAX - 1, u64::MAX - 1]);
        let body = format!(
            ".reg .b64 %wide;\n.reg .b32 %word;\n.reg .b16 %half;\nld.global.b64 %wide, [%from];\ncvt.u32.u64 %word, %wide;\ncvt.u16.u64 %half, %wide;\nst.global.{store} [%to], {};",
            match store {
                "b64" => "%wide",
                "u32" => "%word",
                "u8" => "%word",
                _ => "%half",
            }
        );
        run(&gpu, &kernel(&body), &input, &mut output);
        let expected = (u64::MAX - 1) & !kept | 0x1122_3344_5566_7788 & kept;
        assert_eq!(gpu.download(&output), [expected, u64::MAX - 1], "st.global.{store}");
    }
}

/// Cache and eviction hints, non-coherent loads, volatile, weak, relaxed, acquire and release do not affect the values.
#[test]
fn hints_and_orders_do_not_change_values() {
    let gpu = Gpu::new();
    let input = gpu.upload(&[0xdead_beef_0bad_f00du64]);
    for load in [
        "ld.global",
        "ld.global.ca",
        "ld.global.cg",
        "ld.global.cs",
        "ld.global.lu",
        "ld.global.cv",
        "ld.global.nc",
        "ld.volatile.global",
        "ld.weak.global",
        "ld.relaxed.gpu.global",
        "ld.acquire.gpu.global",
        "ld.relaxed.sys.global",
        "ld.acquire.cta.global",
        "ld.global.L1::evict_last",
        "ld.global.L1::no_allocate",
        "ld.global.nc.L1::no_allocate",
        "ld.global.L2::128B",
        "ld.global.nc.L2::256B",
        "ld.global.nc.L1::no_allocate.L2::128B",
        "ld",
        "ld.volatile",
        "ld.relaxed.gpu",
    ] {
        let mut output = gpu.zeros::<u64>(1);
        run(
            &gpu,
            &kernel(&format!(".reg .b64 %v;\n{load}.b64 %v, [%from];\nst.global.b64 [%to], %v;")),
            &input,
            &mut output,
        );
        assert_eq!(gpu.download(&output), [0xdead_beef_0bad_f00d], "{load}");
    }
    for store in [
        "st.global",
        "st.global.wb",
        "st.global.cg",
        "st.global.cs",
        "st.global.wt",
        "st.volatile.global",
        "st.weak.global",
        "st.relaxed.gpu.global",
        "st.release.gpu.global",
        "st.release.sys.global",
        "st.global.L1::evict_first",
        "st",
        "st.relaxed.cta",
    ] {
        let mut output = gpu.zeros::<u64>(1);
        run(
            &gpu,
            &kernel(&format!(".reg .b64 %v;\nld.global.b64 %v, [%from];\n{store}.b64 [%to], %v;")),
            &input,
            &mut output,
        );
        assert_eq!(gpu.download(&output), [0xdead_beef_0bad_f00d], "{store}");
    }
}

#[test]
fn vectors_preserve_the_order_of_elements() {
    let gpu = Gpu::new();
    let input = gpu.upload(&[0x0706_0504_0302_0100u64, 0x0f0e_0d0c_0b0a_0908]);
    for (space, load, store) in [
        ("global", "ld.global", "st.global"),
        ("global", "ld.global.nc", "st.global.cs"),
        ("global", "ld.global.cs", "st.global.wb"),
        ("shared", "ld.global", "st.global"),
        ("local", "ld.global", "st.global"),
    ] {
        let setup = match space {
            "global" => "",
            "shared" => ".shared .align 16 .b8 here[16];\nmov.u64 %here, here;\n",
            _ => ".local .align 16 .b8 here[16];\nmov.u64 %here, here;\n",
        };
        for (count, ty, register, width) in [
            (2, "u8", "b16", 1),
            (4, "u8", "b16", 1),
            (2, "u16", "b16", 2),
            (4, "b16", "b16", 2),
            (2, "u32", "b32", 4),
            (2, "f32", "f32", 4),
            (4, "u32", "b32", 4),
            (4, "f32", "f32", 4),
            (2, "u64", "b64", 8),
            (2, "f64", "f64", 8),
        ] {
            let names: Vec<String> = (0..count).map(|i| format!("%v{i}")).collect();
            let list = format!("{{{}}}", names.join(", "));
            let reversed = format!("{{{}}}", names.iter().rev().cloned().collect::<Vec<_>>().join(", "));
            let mut output = gpu.zeros::<u64>(2);
            let through = if space == "global" {
                format!("{load}.v{count}.{ty} {list}, [%from];\n{store}.v{count}.{ty} [%to], {reversed};")
            } else {
                format!(
                    "{load}.v{count}.{ty} {list}, [%from];\nst.{space}.v{count}.{ty} [%here], {list};\n\
                     ld.{space}.v{count}.{ty} {list}, [%here];\n{store}.v{count}.{ty} [%to], {reversed};"
                )
            };
            let body = format!(".reg .b64 %here;\n{setup}.reg .{register} %v<4>;\n{through}");
            run(&gpu, &kernel(&body), &input, &mut output);
            let bytes: Vec<u8> = gpu.download(&output).into_iter().flat_map(u64::to_le_bytes).collect();
            let expected: Vec<u8> =
                (0..count).rev().flat_map(|i| (i * width..(i + 1) * width).map(|b| b as u8)).collect();
            assert_eq!(bytes[..count * width], expected, "{load} {space} v{count}.{ty}");
            assert!(
                bytes[count * width..].iter().all(|&b| b == 0),
                "{space} v{count}.{ty} wrote beyond its end"
            );
        }
    }
}

/// Generic addresses refer to the right state space; `cvta` converts in both directions; `isspacep` identifies the space.
#[test]
fn generic_addresses_reach_every_space() {
    let gpu = Gpu::new();
    let input = gpu.upload(&[41u64]);
    let mut output = gpu.zeros::<u64>(8);
    let body = "
        .shared .align 8 .b8 tile[8];
        .local .align 8 .b8 own[8];
        .reg .b64 %s, %l, %g, %v, %w;
        .reg .b32 %n, %narrow;
        .reg .pred %is;
        mov.u64 %s, tile;
        cvta.shared.u64 %s, %s;
        mov.u64 %l, own;
        cvta.local.u64 %l, %l;
        cvta.global.u64 %g, %from;
        ld.b64 %v, [%g];
        add.u64 %v, %v, 1;
        st.b64 [%s], %v;
        ld.shared.b64 %w, [tile];
        st.global.b64 [%to], %w;
        add.u64 %v, %v, 1;
        st.b64 [%l], %v;
        ld.local.b64 %w, [own];
        st.global.b64 [%to+8], %w;
        isspacep.shared %is, %s;
        selp.u32 %n, 1, 0, %is;
        isspacep.shared %is, %g;
        selp.u32 %narrow, 2, 0, %is;
        or.b32 %n, %n, %narrow;
        isspacep.global %is, %g;
        selp.u32 %narrow, 4, 0, %is;
        or.b32 %n, %n, %narrow;
        isspacep.local %is, %l;
        selp.u32 %narrow, 8, 0, %is;
        or.b32 %n, %n, %narrow;
        isspacep.global %is, %s;
        selp.u32 %narrow, 16, 0, %is;
        or.b32 %n, %n, %narrow;
        st.global.u32 [%to+16], %n;
        cvta.to.shared.u64 %v, %s;
        ld.shared.b64 %w, [%v];
        st.global.b64 [%to+24], %w;
        cvta.to.local.u64 %v, %l;
        ld.local.b64 %w, [%v];
        st.global.b64 [%to+32], %w;
        cvt.u32.u64 %n, %v;
        cvta.to.shared.u64 %v, %s;
        cvt.u32.u64 %n, %v;
        ld.shared.b64 %w, [%n];
        st.global.b64 [%to+40], %w;";
    run(&gpu, &kernel(body), &input, &mut output);
    assert_eq!(gpu.download(&output), [42, 43, 1 | 4 | 8, 42, 43, 42, 0, 0]);
}

#[test]
fn prefetches_have_no_effect() {
    let gpu = Gpu::new();
    let input = gpu.upload(&[5u64]);
    let mut output = gpu.zeros::<u64>(1);
    let body = ".reg .b64 %v;\nprefetch.global.L1 [%from];\nprefetch.global.L2 [%from];\nprefetchu.L1 [%from];\n\
                ld.global.b64 %v, [%from];\nst.global.b64 [%to], %v;";
    run(&gpu, &kernel(body), &input, &mut output);
    assert_eq!(gpu.download(&output), [5]);
}

#[test]
fn local_memory_stores_floats() {
    let text = "{ .local .align 4 .b8 own[8]; .reg .f32 %x; mov.b32 %x, %a; st.local.f32 [own+4], %x; ld.local.f32 %x, [own+4]; \
                mov.b32 %r, %x; }";
    let mut table = Table::new();
    table.unary(text, |a: u32| a);
    table.run(&Gpu::new());
}

#[test]
fn shared_memory_accepts_32_bit_addresses() {
    let text = "{ .shared .align 4 .b8 tile[512]; .reg .b32 %at; mov.u32 %at, %tid.x; shl.b32 %at, %at, 2; .reg .b32 %base; \
                mov.u32 %base, tile; add.u32 %at, %at, %base; st.shared.u32 [%at], %a; ld.shared.u32 %r, [%at+0]; }";
    let mut table = Table::new();
    table.unary(text, |a: u32| a);
    let rows =
        u64::edges().into_iter().map(|a| Row { operands: vec![a], results: vec![Expect::Bits(a)] }).collect();
    table.raw(
        "{ .local .align 8 .b8 own[24]; .reg .b64 %at; mov.u64 %at, own; add.u64 %at, %at, 24; st.local.u64 [%at+-8], %a; ld.local.u64 %r, [own+16]; }",
        &[Width::B64],
        &[Width::B64],
        rows,
    );
    table.run(&Gpu::new());
}
