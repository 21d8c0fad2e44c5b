//! Launches a kernel: validation, worker threads, and the finding of the block that failed.

use super::block;
use super::code::{Code, Preset};
use super::counts::Counts;
use super::finding::Finding;
use super::machine::{Launch, Machine};
use super::options::Options;
use super::race::Fences;
use super::random::Permutation;
use super::registers::Registers;
use super::warp::Warp;
use super::{LaunchConfig, LaunchError, Program};
use crate::memory::Memory;
use crate::ptx::Kernel;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The contents of registers before the first write: an obviously wrong value.
const POISON: u64 = 0xbad0_cafe_bad0_cafe;

fn validate(
    program: &Program,
    kernel: &Kernel,
    config: &LaunchConfig,
    parameters: &[u8],
    options: &Options,
) -> Result<(), LaunchError> {
    let target = program.module().target();
    if target > options.architecture {
        return Err(LaunchError::Target { module: target, device: options.architecture });
    }
    let invalid = |message: String| Err(LaunchError::Invalid(message));
    let threads: u64 = config.block.iter().map(|n| u64::from(*n)).product();
    if config.grid.contains(&0) || threads == 0 {
        return invalid("the grid or the block is empty".to_owned());
    }
    if config.grid[0] > i32::MAX as u32 || config.grid[1] > 65535 || config.grid[2] > 65535 {
        return invalid(format!("grid {:?} exceeds 2147483647 × 65535 × 65535", config.grid));
    }
    if config.block[2] > 64 || threads > u64::from(kernel.max_threads()) {
        return invalid(format!(
            "block {:?} exceeds the kernel's limit of {} threads",
            config.block,
            kernel.max_threads()
        ));
    }
    if let Some(required) = kernel.required_threads()
        && required != config.block
    {
        return invalid(format!("block {:?}, but the kernel requires {required:?}", config.block));
    }
    let shared = u64::from(kernel.code.dynamic_shared) + u64::from(config.dynamic_shared_bytes);
    if shared > u64::from(options.shared_limit) {
        return invalid(format!(
            "{shared} bytes of shared memory, but the device has {} per block",
            options.shared_limit
        ));
    }
    if parameters.len() < kernel.parameter_bytes() as usize {
        return invalid(format!(
            "{} bytes of parameters, but the kernel takes {}",
            parameters.len(),
            kernel.parameter_bytes()
        ));
    }
    Ok(())
}

/// The registers of a warp before its special registers are set.
fn template(program: &Program, code: &Code) -> Registers {
    let mut r = Registers {
        words: vec![[POISON as u32; 32]; code.words as usize],
        longs: vec![[POISON; 32]; code.longs as usize],
        predicates: vec![0; code.predicates as usize],
    };
    r.predicates[0] = u32::MAX;
    let value = |preset: &Preset| match preset {
        Preset::Bits(bits) => Some(*bits),
        Preset::Variable { index, offset } => Some(program.addresses[*index].wrapping_add(*offset as u64)),
        Preset::DynamicShared(offset) => Some((i64::from(code.dynamic_shared) + offset) as u64),
        Preset::Special(_) => None,
    };
    for (index, preset) in &code.word_presets {
        if let Some(v) = value(preset) {
            r.words[*index as usize] = [v as u32; 32];
        }
    }
    for (index, preset) in &code.long_presets {
        if let Some(v) = value(preset) {
            r.longs[*index as usize] = [v; 32];
        }
    }
    r
}

/// Runs a kernel to completion.
///
/// `parameters` is the parameter block, with the layout of [`crate::ptx::Kernel::parameters`].
///
/// # Errors
/// See [`LaunchError`].
pub fn launch(
    program: &Program,
    kernel: &str,
    config: &LaunchConfig,
    parameters: &[u8],
    memory: &Memory,
    options: &Options,
) -> Result<Counts, LaunchError> {
    let Some(kernel) = program.module().kernel(kernel) else {
        return Err(LaunchError::Invalid(format!("the module has no kernel {kernel}")));
    };
    validate(program, kernel, config, parameters, options)?;
    let code = &kernel.code;
    let mut launch = Launch {
        code,
        config: *config,
        parameters,
        memory,
        allocations: memory.snapshot(),
        options,
        first_run: 0,
        fences: Fences::default(),
        template: template(program, code),
    };
    let blocks = launch.blocks();
    launch.first_run = memory.reserve_runs(blocks);
    let launch = &launch;

    let order = Permutation::new(blocks, options.schedule_seed);
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Counts::default());
    let failure: Mutex<Option<Box<Finding>>> = Mutex::new(None);
    let work = || {
        let mut machine = Machine::new(launch);
        let mut warps: Vec<Warp> = Vec::new();
        warps.resize_with(launch.threads().div_ceil(32) as usize, Warp::default);
        while !stop.load(Relaxed) {
            let i = next.fetch_add(1, Relaxed);
            if i >= blocks {
                break;
            }
            if let Err(located) = block::run(&mut machine, &mut warps, order.at(i)) {
                stop.store(true, Relaxed);
                let finding = report(program, kernel, &machine, &located);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(finding);
            }
        }
        total.lock().unwrap_or_else(PoisonError::into_inner).add(&machine.counts);
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { cores } else { options.threads };
    let threads = threads.min(usize::try_from(blocks).unwrap_or(usize::MAX));
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(finding) => Err(LaunchError::Finding(finding)),
        None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn report(program: &Program, kernel: &Kernel, m: &Machine<'_>, located: &block::Located) -> Box<Finding> {
    let fault = &located.fault;
    let line = kernel.code.steps[located.pc].line;
    let allocation = fault.address.and_then(|a| m.launch.memory.nearest(a));
    // Offsets in shared and local memory are far below device addresses.
    let about_device =
        fault.kind.is_about_device_memory() || fault.address.is_some_and(|a| a >= crate::memory::FIRST);
    let thread = (located.warp * 32 + fault.lane) as u32;
    Box::new(Finding {
        kind: fault.kind,
        kernel: kernel.name().to_owned(),
        line,
        text: program.module().line(line).to_owned(),
        block: m.launch.block_index(m.block),
        thread: m.launch.thread_index(thread),
        address: fault.address,
        allocation: allocation.filter(|_| about_device),
        message: fault.message.clone(),
    })
}
