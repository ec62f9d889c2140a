//! States what is built: [`version`]. With the `cuda` feature, compiles our own kernels to PTX, which the driver translates for the GPU that is
//! there. They need bf16 arithmetic: compute capability 8.0.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const FOLDER: &str = "src/nn/kernels/cuda";

/// Version, commit if a clone is built for use, and whether the program has CUDA. (Builds for development would have to
/// be made anew after each commit.)
fn version() -> String {
    /// Changes with each commit and checkout.
    const HISTORY: &str = ".git/logs/HEAD";
    let mut parts = Vec::new();
    if env::var_os("PROFILE").is_some_and(|profile| profile == "release") && Path::new(HISTORY).exists() {
        println!("cargo:rerun-if-changed={HISTORY}");
        let commit = Command::new("git").args(["rev-parse", "--short=9", "HEAD"]).output();
        let commit = commit.ok().filter(|it| it.status.success());
        parts.extend(commit.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()));
    }
    let has_cuda = env::var_os("CARGO_FEATURE_CUDA").is_some();
    parts.push(if has_cuda { "with CUDA" } else { "without CUDA" }.into());
    format!("{} ({})", env!("CARGO_PKG_VERSION"), parts.join(", "))
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=CAMSCRIBE_VERSION={}", version());
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
