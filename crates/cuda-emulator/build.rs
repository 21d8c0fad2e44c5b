//! Gives the shared library the name by which programs ask for the CUDA driver.

fn main() {
    // A dynamic loader treats an already loaded library of this SONAME as the answer to `dlopen("libcuda.so")`.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    println!("cargo:rerun-if-changed=build.rs");
}
