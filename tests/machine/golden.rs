//! The model equals the reference implementation in prompts, pixels, every part of the network and the
//! answers, on all golden cases. `tests/golden-data` has those of the built-in model, and in `random` those of random
//! weights in the sizes of a published one; the folder that `CAMSCRIBE_GOLDEN` names has those of the published ones.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use camscribe::{
    device::{DeviceChoice, DtypeChoice},
    nn::device::choose,
};
use libtest_mimic::Trial;

use crate::{
    check,
    support::golden::{Case, Outcome, Runner, cases},
};

/// Returns a check for every checkpoint in every number format of the CPU.
pub fn trials() -> Vec<Trial> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-data");
    let named = env::var_os("CAMSCRIBE_GOLDEN").map(PathBuf::from);
    let mut trials = Vec::new();
    if named.is_none() {
        trials.push(check(
            Some("CAMSCRIBE_GOLDEN".into()),
            "golden::the_published_models_equal_the_reference",
            || {},
        ));
    }
    trials.extend(random_weights(&own.join("random")));
    for root in [own].into_iter().chain(named) {
        let mut checkpoints: BTreeMap<String, Vec<Case>> = BTreeMap::new();
        for case in cases(&root).unwrap() {
            checkpoints.entry(case.checkpoint.clone()).or_default().push(case);
        }
        for (checkpoint, cases) in checkpoints {
            for (dtype, name) in [
                (DtypeChoice::F32, "f32"),
                (DtypeChoice::Bf16, "bf16"),
                (DtypeChoice::F16, "f16"),
                (DtypeChoice::Q8, "q8"),
            ] {
                let missing = (!cases[0].has_weights()).then(|| format!("the weights of {checkpoint}"));
                let name = format!("golden::{checkpoint}_in_{name}_equals_the_reference");
                let cases = cases.clone();
                trials.push(check(missing, &name, move || all_pass(dtype, &cases)));
            }
        }
    }
    trials
}

/// Returns the checks for random weights in the sizes of a published model: in f32 alone, which says most. A tile takes
/// seconds in a program that is not optimised, so that only the first check is for such a one.
fn random_weights(root: &Path) -> [Trial; 2] {
    let all = cases(root).unwrap();
    let (two_images, rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|it| it.name.ends_with("/two_images"));
    let slow = cfg!(debug_assertions).then(|| "an optimised build (cargo test --release)".to_owned());
    [
        check(None, "golden::random_weights_equal_the_reference", move || all_pass(DtypeChoice::F32, &rest)),
        check(slow, "golden::random_weights_with_two_images_equal_the_reference", move || {
            all_pass(DtypeChoice::F32, &two_images);
        }),
    ]
}

/// Runs the cases of one checkpoint.
fn all_pass(dtype: DtypeChoice, cases: &[Case]) {
    assert!(!cases.is_empty(), "no golden case");
    let mut runner = Runner::new(choose(DeviceChoice::Cpu, dtype).unwrap());
    let mut failed = Vec::new();
    for case in cases {
        match runner.run(case) {
            Outcome::Passed(figures) => println!("ok      {:32} {figures}", case.name),
            Outcome::Failed(why) | Outcome::NotRun(why) => failed.push(format!("{}: {why}", case.name)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
