//! The devices that the backends find: `cargo run --release -p devices`.

use longseq::prelude::*;
use longseq::{Cpu, Cuda, Wgpu};

fn main() {
    println!("Cpu::new()    {}", Cpu::new().device());
    match Wgpu::new() {
        // Without a GPU, `Wgpu::new` accepts a software adapter, which is slower than `Cpu`.
        Ok(gpu) if gpu.is_software() => println!("Wgpu::new()   {}: a software adapter", gpu.device()),
        Ok(gpu) => println!("Wgpu::new()   {}: a GPU", gpu.device()),
        Err(error) => println!("Wgpu::new()   {error}"),
    }
    match Cuda::new(0) {
        Ok(gpu) => println!("Cuda::new(0)  {}", gpu.device()),
        Err(error) => println!("Cuda::new(0)  {error}"),
    }
}
