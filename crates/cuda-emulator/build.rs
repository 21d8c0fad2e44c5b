//! Sets the SONAME of the shared library to the name by which programs load the CUDA driver.

fn main() {
    // `dlopen("libcuda.so")` returns an already loaded library with this SONAME.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    println!("cargo:rerun-if-changed=build.rs");
}
