//! The model equals the reference implementation: prompts, pixels, every part of the network and
//! the answers, on all golden cases whose weights are there.

use std::path::Path;

use camscribe::{
    describe::smolvlm::device::choose,
    device::{DeviceChoice, DtypeChoice},
};

#[path = "support/golden.rs"]
mod golden;

use golden::Runner;

fn every_case_passes_in(dtype: DtypeChoice) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runner = Runner::new(choose(DeviceChoice::Cpu, dtype).unwrap());
    runner.all_pass(golden::roots(repository).into_iter().chain(golden::beside(repository)));
}

#[test]
fn the_model_equals_the_reference_in_f32() {
    every_case_passes_in(DtypeChoice::F32);
}

#[test]
fn the_model_is_as_near_to_the_reference_in_bf16_as_the_reference_itself() {
    every_case_passes_in(DtypeChoice::Bf16);
}

#[test]
fn the_model_is_as_near_to_the_reference_in_f16_as_the_reference_in_bf16() {
    every_case_passes_in(DtypeChoice::F16);
}

#[test]
fn the_model_is_as_near_to_the_reference_in_q8_as_the_reference_in_bf16() {
    every_case_passes_in(DtypeChoice::Q8);
}
