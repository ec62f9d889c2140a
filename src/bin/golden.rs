//! Runs the golden cases on a given device: compares camscribe's results with the reference's. It does not link
//! GStreamer, so that it can be copied to a machine with a GPU.
//!
//! `golden [--device auto|cpu|cuda|cuda:N] [--dtype auto|f32|bf16|f16|q8] [--kernels candle|own|graphs]
//! [ROOT…]`. A root is a folder that holds `golden/` and `ckpt/`; the default is the tests' own.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, ensure};
use camscribe::{
    device::{DeviceChoice, DtypeChoice, KernelChoice},
    logging,
    nn::device::{ComputeTarget, choose},
};

#[path = "../../tests/support/golden.rs"]
mod golden;
#[path = "../../tests/support/picture.rs"]
mod picture;

use golden::{Outcome, Runner};

fn main() -> Result<ExitCode> {
    logging::init("warn", logging::Format::Auto);
    let (mut device, mut dtype, mut roots) = (DeviceChoice::Auto, DtypeChoice::Auto, vec![]);
    let mut kernels = KernelChoice::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--device" => device = arguments.next().context("--device needs a value")?.parse()?,
            "--dtype" => dtype = arguments.next().context("--dtype needs a value")?.parse()?,
            "--kernels" => kernels = arguments.next().context("--kernels needs a value")?.parse()?,
            _ => roots.push(PathBuf::from(argument)),
        }
    }
    if roots.is_empty() {
        roots = golden::roots(&std::env::current_dir()?);
    }
    ensure!(!roots.is_empty(), "no golden data: name a folder with golden/ and ckpt/ in it");

    let target = ComputeTarget { kernels, ..choose(device, dtype)? };
    println!("device and dtype: {target}; requested kernels: {}", kernels.as_str());
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    let mut runner = Runner::new(target);
    for root in roots {
        for case in golden::cases(&root)? {
            let start = Instant::now();
            let (result, details) = match runner.run(&case) {
                Outcome::Passed(figures) => {
                    passed += 1;
                    ("ok", figures)
                }
                Outcome::Failed(why) => {
                    failed += 1;
                    ("FAILED", why)
                }
                Outcome::NotRun(why) => {
                    not_run += 1;
                    ("not run", why)
                }
            };
            println!("{result:8}{:32} {details} ({:.1} s)", case.name, start.elapsed().as_secs_f64());
        }
    }
    println!("{passed} passed, {failed} failed, {not_run} not run");
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
