//! The benchmark runs without a checkpoint, and its JSON document has every figure.

use std::fs;

use camscribe::{
    bench::{self, Settings, shapes::Shape},
    device::DeviceChoice,
};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn a_model_of_random_weights_is_measured_and_every_figure_is_in_the_document() {
    let folder = TempDir::new().unwrap();
    let json = folder.path().join("bench.json");
    let settings = Settings {
        shapes: vec![Shape::M256],
        batches: vec![1],
        frames: 1,
        new_tokens: 3,
        repeat: 1,
        periods: 0,
        device: DeviceChoice::Cpu,
        json: Some(json.clone()),
        ..Settings::default()
    };
    bench::run(&settings).unwrap();

    let document: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0. && number.is_finite());
    assert!(["matrix_tflop_per_s", "memory_gb_per_s"].iter().all(|rate| positive(&document[rate])));
    let shape = &document["shapes"][0];
    assert_eq!((&shape["shape"], &shape["prompt_tokens"]), (&"256M".into(), &122.into()));
    assert_eq!((&shape["stopped"], &shape["cameras"]), (&Value::Null, &Value::Null));
    let row = &shape["batches"][0];
    assert_eq!(row["batch"], 1);
    let figures = [
        "clips_per_s",
        "first_token_s",
        "decode_ms_per_token",
        "vision_s",
        "prefill_s",
        "decode_s",
        "vision_share",
        "prefill_share",
        "decode_share",
        "peak_memory_mb",
    ];
    for figure in figures {
        assert!(positive(&row[figure]), "{figure} of {row}");
    }
}

#[test]
fn settings_that_measure_nothing_are_refused() {
    let refused = |settings: Settings| bench::run(&settings).is_err();
    assert!(refused(Settings { frames: 0, ..Settings::default() }));
    assert!(refused(Settings { new_tokens: 1, ..Settings::default() }));
    assert!(refused(Settings { repeat: 0, ..Settings::default() }));
    assert!(refused(Settings { batches: vec![4, 2], ..Settings::default() }));
    assert!(refused(Settings { batches: vec![0], ..Settings::default() }));
}
