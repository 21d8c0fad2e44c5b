//! The emulator's speed: warp instructions per second on one core and on all cores.
//!
//! `cargo run -p cuda-emulator --example speed` runs it as in tests, in the development profile, in which the workspace
//! optimises this crate. The kernel loads from device memory, exchanges values through shared memory with barriers and
//! by shuffles, and multiplies: of the 19 instructions of its loop 3 access memory, 2 are barriers and 2 shuffles. Rates
//! are per second of CPU time, which is insensitive to other load, and per second of wall-clock time.

use std::time::Instant;

use cuda_emulator::{Device, Emulator};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

const MIX: &str = r#"
.version 7.0
.target sm_80
.address_size 64

.visible .entry mix(.param .u64 out, .param .u64 in, .param .u32 rounds)
.maxntid 256, 1, 1
{
    .shared .align 4 .b8 tile[1024];
    .reg .pred %p<3>;
    .reg .f32 %f<8>;
    .reg .b32 %r<16>;
    .reg .b64 %rd<8>;

    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [in];
    ld.param.u32 %r1, [rounds];
    cvta.to.global.u64 %rd1, %rd1;
    cvta.to.global.u64 %rd2, %rd2;
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mad.lo.s32 %r5, %r3, %r4, %r2;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    add.s64 %rd5, %rd1, %rd3;
    mov.u32 %r6, tile;
    shl.b32 %r7, %r2, 2;
    add.s32 %r8, %r6, %r7;
    xor.b32 %r9, %r7, 128;
    add.s32 %r9, %r6, %r9;
    mov.f32 %f1, 0f00000000;
    mov.u32 %r10, 0;
loop:
    ld.global.f32 %f2, [%rd4];
    fma.rn.f32 %f3, %f2, %f2, %f1;
    st.shared.f32 [%r8], %f3;
    bar.sync 0;
    ld.shared.f32 %f4, [%r9];
    bar.sync 0;
    fma.rn.f32 %f1, %f4, 0f3F000000, %f1;
    mov.b32 %r11, %f1;
    shfl.sync.bfly.b32 %r12, %r11, 16, 31, -1;
    mov.b32 %f5, %r12;
    fma.rn.f32 %f1, %f5, 0f3E800000, %f1;
    mov.b32 %r11, %f1;
    shfl.sync.bfly.b32 %r12, %r11, 1, 31, -1;
    mov.b32 %f5, %r12;
    fma.rn.f32 %f1, %f5, 0f3E800000, %f1;
    mul.f32 %f1, %f1, 0f3F000000;
    add.s32 %r10, %r10, 1;
    setp.lt.u32 %p1, %r10, %r1;
    @%p1 bra loop;
    st.global.f32 [%rd5], %f1;
    ret;
}
"#;

/// CPU seconds used by this process, from `/proc/self/stat`, in ticks of 10 ms.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in parentheses, may contain spaces; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields[11..13].iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const BLOCKS: u32 = 64;
    const ROUNDS: u32 = 2000;
    let emulator = Emulator::install(Device::sm_80())?;
    let stream = CudaContext::new(0)?.default_stream();
    let kernel = stream.context().load_module(Ptx::from_src(MIX))?.load_function("mix")?;
    let threads = BLOCKS as usize * 256;
    let (input, mut output) =
        (stream.clone_htod(&vec![0.5_f32; threads])?, stream.alloc_zeros::<f32>(threads)?);
    let config = LaunchConfig { grid_dim: (BLOCKS, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };

    for (workers, on) in [(1, "one core"), (0, "all cores")] {
        for (checks, with) in [(true, "with checks"), (false, "bounds and alignment only")] {
            emulator.set_threads(workers);
            emulator.set_checks(checks);
            let (start, used) = (Instant::now(), processor_seconds().ok_or("no /proc/self/stat")?);
            for _ in 0..3 {
                let mut launch = stream.launch_builder(&kernel);
                launch.arg(&mut output).arg(&input).arg(&ROUNDS);
                // SAFETY: the arguments are those that the kernel declares.
                unsafe { launch.launch(config) }?;
            }
            let passed = start.elapsed().as_secs_f64();
            let used = processor_seconds().ok_or("no /proc/self/stat")? - used;
            let instructions: u64 = emulator.take_counts().iter().map(|launch| launch.counts.total()).sum();
            let millions = instructions as f64 / 1e6;
            println!(
                "{on}, {with}: {:.1} million warp instructions per CPU second, {:.1} per wall-clock second",
                millions / used,
                millions / passed
            );
        }
    }
    Ok(())
}
