//! Small kernels, run through the Rust interface without a driver.

use std::sync::Arc;

use cuda_emulator::exec::{
    Counts, Finding, FindingKind, LaunchConfig, LaunchError, Options, Program, launch,
};
use cuda_emulator::memory::Memory;
use cuda_emulator::ptx::Module;

/// The memory of a device with one module.
pub(crate) struct Bench {
    memory: Memory,
    pub(crate) options: Options,
    program: Program,
}

/// A parameter block.
#[derive(Default)]
pub(crate) struct Parameters(Vec<u8>);

impl Parameters {
    pub(crate) fn long(mut self, x: u64) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(x.to_le_bytes());
        self
    }

    fn word(mut self, x: u32) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }
}

impl Bench {
    pub(crate) fn new(text: &str) -> Self {
        let module = Module::load(text).unwrap_or_else(|e| panic!("{e}"));
        let memory = Memory::new(1 << 30);
        let program = Program::new(Arc::new(module), &memory).unwrap();
        Self { memory, options: Options::default(), program }
    }

    /// A kernel `k` with a pointer parameter in `%rd0` and registers of all types.
    pub(crate) fn body(body: &str) -> Self {
        Self::new(&format!(
            ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n\
             .reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .f32 %f<32>; .reg .b64 %rd<16>; .reg .f64 \
             %d<8>;\n ld.param.u64 %rd0, [p];\n{body}\nret;\n}}"
        ))
    }

    pub(crate) fn words(&self, data: &[u32]) -> u64 {
        let address = self.memory.alloc(data.len() as u64 * 4).unwrap();
        self.memory.write(address, bytemuck::cast_slice(data)).unwrap();
        address
    }

    fn read(&self, address: u64, count: usize) -> Vec<u32> {
        let mut out = vec![0; count];
        self.memory.read(address, bytemuck::cast_slice_mut(&mut out)).unwrap();
        out
    }

    pub(crate) fn launch(&self, grid: u32, block: u32, p: Parameters) -> Result<Counts, LaunchError> {
        let config = LaunchConfig { grid: [grid, 1, 1], block: [block, 1, 1], dynamic_shared_bytes: 0 };
        launch(&self.program, "k", &config, &p.0, &self.memory, &self.options)
    }

    /// Runs `k` in one block on a buffer and returns the buffer.
    fn run(&self, block: u32, data: &[u32]) -> Result<Vec<u32>, Box<Finding>> {
        let address = self.words(data);
        match self.launch(1, block, Parameters::default().long(address)) {
            Ok(_) => Ok(self.read(address, data.len())),
            Err(LaunchError::Finding(f)) => Err(f),
            Err(other) => panic!("{other}"),
        }
    }
}

const SAXPY: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 y, .param .u64 x, .param .f32 a, .param .u32 n)
{
    .reg .pred %p<2>; .reg .b32 %r<6>; .reg .f32 %f<5>; .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [y];
    ld.param.u64 %rd2, [x];
    ld.param.f32 %f1, [a];
    ld.param.u32 %r2, [n];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r1, %r3, %r4, %r5;
    setp.ge.s32 %p1, %r1, %r2;
    @%p1 bra $L__BB0_2;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.s32 %rd5, %r1, 4;
    add.s64 %rd6, %rd4, %rd5;
    add.s64 %rd7, %rd3, %rd5;
    ld.global.nc.f32 %f2, [%rd6];
    ld.global.f32 %f3, [%rd7];
    fma.rn.f32 %f4, %f1, %f2, %f3;
    st.global.f32 [%rd7], %f4;
$L__BB0_2:
    ret;
}";

#[test]
fn saxpy_runs() {
    let b = Bench::new(SAXPY);
    let n = 1000u32;
    let x: Vec<u32> = (0..n).map(|i| (i as f32).to_bits()).collect();
    let y: Vec<u32> = (0..n).map(|i| (i as f32 * 0.5).to_bits()).collect();
    let (xa, ya) = (b.words(&x), b.words(&y));
    let p = Parameters::default().long(ya).long(xa).word(2f32.to_bits()).word(n);
    let counts = b.launch(8, 128, p).unwrap();
    for (i, bits) in b.read(ya, n as usize).into_iter().enumerate() {
        assert_eq!(f32::from_bits(bits), i as f32 * 2.5);
    }
    assert_eq!(counts.blocks, 8);
    assert_eq!(counts.global_bytes_written, 4000);
    assert_eq!(counts.global_sectors, 3 * 125);

    let p = Parameters::default().long(ya).long(xa).word(2f32.to_bits()).word(n + 1);
    let Err(LaunchError::Finding(f)) = b.launch(8, 128, p) else { panic!("no finding") };
    assert_eq!(f.kind, FindingKind::OutOfBounds);
    assert_eq!((f.block, f.thread), ([7, 0, 0], [104, 0, 0]));
    assert_eq!(f.text, "ld.global.nc.f32 %f2, [%rd6];");
}

/// Adds the words of a block in shared memory, with `barrier` between the rounds.
fn reduction(barrier: &str) -> Bench {
    Bench::body(&format!(
        ".shared .align 4 .b8 s[512];
        mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mov.u32 %r3, s; add.s32 %r4, %r3, %r2;
        cvt.u64.u32 %rd1, %r2; add.s64 %rd2, %rd0, %rd1;
        ld.global.u32 %r5, [%rd2]; st.shared.u32 [%r4], %r5; bar.sync 0;
        mov.u32 %r6, 64;
        loop: setp.ge.u32 %p1, %r1, %r6; @%p1 bra skip;
        shl.b32 %r7, %r6, 2; add.s32 %r8, %r4, %r7;
        ld.shared.u32 %r9, [%r8]; ld.shared.u32 %r10, [%r4]; add.s32 %r10, %r10, %r9; st.shared.u32 [%r4], %r10;
        skip: {barrier}
        shr.u32 %r6, %r6, 1; setp.ne.s32 %p2, %r6, 0; @%p2 bra loop;
        ld.shared.u32 %r11, [s]; st.global.u32 [%rd2], %r11;"
    ))
}

#[test]
fn a_reduction_sums_and_a_missing_barrier_is_a_race() {
    let data: Vec<u32> = (1..=128).collect();
    for seed in [None, Some(1), Some(2)] {
        let mut b = reduction("bar.sync 0;");
        b.options.schedule_seed = seed;
        assert_eq!(b.run(128, &data).unwrap(), vec![128 * 129 / 2; 128]);
        let mut b = reduction("");
        b.options.schedule_seed = seed;
        assert_eq!(b.run(128, &data).unwrap_err().kind, FindingKind::SharedRace);
    }
}

#[test]
fn a_barrier_that_some_threads_skip_is_found() {
    let b = Bench::body("mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16; @%p1 bra out; bar.sync 0; out:");
    assert_eq!(b.run(64, &[0]).unwrap_err().kind, FindingKind::DivergentBarrier);
    let b = Bench::body("mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32; @%p1 bra out; bar.sync 0; out:");
    assert!(b.run(64, &[0]).is_ok());
    let b = Bench::body("mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32; @%p1 bra out; bar.sync 1, 32; out:");
    assert!(b.run(64, &[0]).is_ok());
}
