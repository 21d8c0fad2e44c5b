//! A `libcuda` that runs PTX on the CPU, with memory and race checks.
