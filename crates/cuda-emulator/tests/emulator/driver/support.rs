//! Shared by the driver's tests.

use std::sync::Arc;

use cuda_emulator::{Device, Emulator};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig};
use cudarc::nvrtc::Ptx;

pub(crate) use cudarc::driver::sys::CUresult;

/// A new session for the calling test.
pub(crate) fn emulator() -> Emulator {
    Emulator::install(Device::sm_80()).unwrap()
}

/// A new session with its primary context and default stream.
pub(crate) fn stream() -> (Emulator, Arc<CudaContext>, Arc<CudaStream>) {
    let emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    (emulator, context, stream)
}

/// `y[i] = a * x[i] + y[i]` for `i < n`, one thread per element; and a kernel that only has declarations.
pub(crate) const PTX: &str = r#"
.version 7.0
.target sm_80
.address_size 64

.visible .global .align 4 .b8 table[16] = {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0};

.visible .entry saxpy(
    .param .u64 y,
    .param .u64 x,
    .param .f32 a,
    .param .u32 n
)
{
    .reg .pred %p<2>;
    .reg .f32 %f<4>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<8>;

    ld.param.u64 %rd1, [y];
    ld.param.u64 %rd2, [x];
    ld.param.f32 %f1, [a];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra done;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.u32 %rd5, %r5, 4;
    add.s64 %rd6, %rd4, %rd5;
    add.s64 %rd7, %rd3, %rd5;
    ld.global.f32 %f2, [%rd6];
    ld.global.f32 %f3, [%rd7];
    fma.rn.f32 %f3, %f1, %f2, %f3;
    st.global.f32 [%rd7], %f3;
done:
    ret;
}

.visible .entry shared_memory(
    .param .align 8 .b8 structure[24],
    .param .u8 small
)
.maxntid 128, 1, 1
{
    .shared .align 16 .b8 tile[1024];
    ret;
}
"#;

/// A kernel of [`PTX`].
pub(crate) fn kernel(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    context.load_module(Ptx::from_src(PTX)).unwrap().load_function(name).unwrap()
}

/// `threads` threads in blocks of 64.
pub(crate) fn blocks_of_64(threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (threads.div_ceil(64), 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 }
}
