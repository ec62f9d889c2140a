//! With the `cuda` feature, compiles our own kernels to PTX, which the driver translates for the GPU that is
//! there. They need bf16 arithmetic: compute capability 8.0.

use std::{env, path::PathBuf, process::Command};

const FOLDER: &str = "src/nn/kernels/cuda";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for file in ["kernels.cu", "primitives.cuh"] {
        println!("cargo:rerun-if-changed={FOLDER}/{file}");
    }
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let nvcc = env::var_os("CUDA_HOME").map_or("nvcc".into(), |home| PathBuf::from(home).join("bin/nvcc"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("kernels.ptx");
    let done = Command::new(&nvcc)
        .args(["-ptx", "-O3", "-std=c++17", "-arch=compute_80", "-include"])
        .arg(format!("{FOLDER}/primitives.cuh"))
        .arg(format!("{FOLDER}/kernels.cu"))
        .arg("-o")
        .arg(&out)
        .status();
    match done {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} failed ({status}): see what it said above", nvcc.display()),
        Err(e) => panic!("{} cannot be run ({e}): install CUDA's compiler, or set CUDA_HOME", nvcc.display()),
    }
}
