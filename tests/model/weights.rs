//! Weights that are missing, damaged, hostile or another model's are refused with one sentence that names
//! the file and the tensor, and a remedy.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use camscribe::{
    describe::smolvlm::layout::layout,
    nn::{error::WeightsError, weights::Weights},
};
use candle_core::{DType, Device};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::checkpoint::{random, tiny, write};

const NORM: &str = "model.text_model.norm.weight";

/// A directory with a valid checkpoint in one file.
fn folder() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("model.safetensors");
    write(&file, &random(&tiny(), 1));
    (dir, file)
}

fn open(dir: &Path) -> Result<Weights, WeightsError> {
    let weights = Weights::open(dir, &Device::Cpu, DType::F32)?;
    weights.check(layout(&tiny()))?;
    Ok(weights)
}

/// Asserts that the directory is refused with a sentence that has all of these words.
fn refused(dir: &Path, words: &[&str]) {
    let Err(error) = open(dir) else { panic!("not refused: expected {words:?}") };
    let error = error.to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error:?} lacks one of {words:?}");
    assert!(!error.contains('\n'), "{error:?}");
}

/// Writes a file from a header and data, with the header's length as given or correct.
fn raw(path: &Path, header: &str, data: &[u8], claimed: Option<u64>) {
    let length = claimed.unwrap_or(header.len() as u64);
    fs::write(path, [&length.to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
}

/// Rewrites a valid file's header.
fn with_header(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(header.as_object_mut().unwrap());
    raw(path, &header.to_string(), &bytes[8 + length..], None);
}

#[test]
fn a_whole_checkpoint_is_read_as_it_was_written() {
    let (dir, _) = folder();
    let tensor = open(dir.path()).unwrap().tensor(NORM).unwrap();
    let (shape, bytes) = &random(&tiny(), 1)[NORM];
    assert_eq!(tensor.dims(), shape);
    let values: Vec<u8> = tensor.to_vec1::<f32>().unwrap().into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!(&values, bytes);
}

#[test]
fn shards_hold_what_the_single_file_holds() {
    let (dir, file) = folder();
    let single = open(dir.path()).unwrap();
    fs::remove_file(file).unwrap();
    let mut map = BTreeMap::new();
    let mut shards = [BTreeMap::new(), BTreeMap::new()];
    for (i, (name, tensor)) in random(&tiny(), 1).into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{}.safetensors", i % 2));
        shards[i % 2].insert(name, tensor);
    }
    for (i, tensors) in shards.iter().enumerate() {
        write(&dir.path().join(format!("model-{i}.safetensors")), tensors);
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let sharded = open(dir.path()).unwrap();
    for name in map.keys() {
        let read = |w: &Weights| w.tensor(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(read(&single), read(&sharded), "{name}");
    }
}

#[test]
fn half_precision_is_widened_exactly() {
    let dir = TempDir::new().unwrap();
    let mut tensors = random(&tiny(), 1);
    // 1.5 and -0.25 in bfloat16.
    let (shape, _) = tensors.remove(NORM).unwrap();
    write(&dir.path().join("model.safetensors"), &tensors);
    let bytes = [0xc0, 0x3f, 0x80, 0xbe].repeat(shape[0] / 2);
    let header = json!({NORM: {"dtype": "BF16", "shape": shape, "data_offsets": [0, bytes.len()]}});
    raw(&dir.path().join("norm.safetensors"), &header.to_string(), &bytes, None);
    let mut map: BTreeMap<_, _> = tensors.keys().map(|name| (name.as_str(), "model.safetensors")).collect();
    map.insert(NORM, "norm.safetensors");
    let index = json!({"weight_map": map}).to_string();
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    let values = open(dir.path()).unwrap().tensor(NORM).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values, [1.5, -0.25].repeat(shape[0] / 2));
}

#[test]
fn a_missing_file_is_named() {
    let (dir, file) = folder();
    fs::remove_file(file).unwrap();
    refused(dir.path(), &["model.safetensors", "cannot be opened", "whole model"]);
}

#[test]
fn a_file_truncated_anywhere_is_refused() {
    let (dir, file) = folder();
    let bytes = fs::read(&file).unwrap();
    for length in [0, 7, 8, 9, 200, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        refused(
            dir.path(),
            &["model.safetensors", "not a whole safetensors file", "download the model again"],
        );
    }
    fs::write(&file, [&bytes[..], b"more"].concat()).unwrap();
    refused(dir.path(), &["not a whole safetensors file"]);
}

#[test]
fn an_absurd_header_length_allocates_nothing() {
    let (dir, file) = folder();
    for claimed in [u64::MAX, 1 << 40, 99_999_999, 500] {
        raw(&file, "{}", &[], Some(claimed));
        refused(dir.path(), &["its header claims"]);
    }
}

#[test]
fn a_header_that_is_not_json_is_refused() {
    let (dir, file) = folder();
    for header in ["", "[]", "<html>not found</html>", "{\"a\":1}", "{\"a\":{\"dtype\":\"F32\"}}"] {
        raw(&file, header, &[], None);
        refused(dir.path(), &["not a whole safetensors file"]);
    }
}

#[test]
fn offsets_outside_the_file_overlapping_or_of_another_size_are_refused() {
    const REFUSED: [&str; 3] =
        ["model.safetensors", "not a whole safetensors file", "download the model again"];
    let changes: [fn(&mut Value); 5] = [
        |t| t["data_offsets"] = json!([0, 1_u64 << 60]),
        |t| t["data_offsets"] = json!([128, 0]),
        |t| t["data_offsets"] = json!([0, 4]),
        |t| t["shape"] = json!([1_u64 << 62, 1_u64 << 62]),
        |t| t["data_offsets"] = json!([-4, 124]),
    ];
    for change in changes {
        let (dir, file) = folder();
        with_header(&file, |header| change(&mut header[NORM]));
        refused(dir.path(), &REFUSED);
    }
    let (dir, file) = folder();
    // Two tensors of one shape at the same bytes.
    with_header(&file, |header| {
        let other = "model.text_model.layers.0.input_layernorm.weight";
        header[NORM]["data_offsets"] = header[other]["data_offsets"].clone();
    });
    refused(dir.path(), &REFUSED);
}

#[test]
fn a_tensor_that_is_missing_misshapen_or_of_another_type_is_named() {
    let (dir, file) = folder();
    let tensors = random(&tiny(), 1);

    let mut fewer = tensors.clone();
    fewer.remove("model.vision_model.encoder.layers.1.mlp.fc2.bias");
    write(&file, &fewer);
    refused(dir.path(), &["has no tensor", "layers.1.mlp.fc2.bias", "config.json"]);

    let mut misshapen = tensors.clone();
    misshapen.get_mut("lm_head.weight").unwrap().0.reverse();
    write(&file, &misshapen);
    refused(dir.path(), &["lm_head.weight", "[32, 97]", "[97, 32]", "different models"]);

    write(&file, &tensors);
    with_header(&file, |header| {
        header[NORM]["dtype"] = json!("I32");
    });
    refused(dir.path(), &[NORM, "I32", "F32, BF16 and F16"]);
}

#[test]
fn an_index_that_is_damaged_or_reaches_outside_its_folder_is_refused() {
    let (dir, _) = folder();
    let index = dir.path().join("model.safetensors.index.json");
    for (text, words) in [
        ("", ["is no index", "download the model again"]),
        ("{\"weight_map\": []}", ["is no index", "download the model again"]),
        ("{\"weight_map\": {}}", ["names no tensors", "download the model again"]),
        (
            "{\"weight_map\": {\"a\": \"../model.safetensors\"}}",
            ["../model.safetensors", "not a file name in this folder"],
        ),
        ("{\"weight_map\": {\"a\": \"/etc/passwd\"}}", ["/etc/passwd", "not a file name in this folder"]),
        ("{\"weight_map\": {\"a\": \"..\"}}", ["..", "not a file name in this folder"]),
        ("{\"weight_map\": {\"a\": \"\"}}", ["\"\"", "not a file name in this folder"]),
        ("{\"weight_map\": {\"a\": \"gone.safetensors\"}}", ["gone.safetensors", "cannot be opened"]),
        (
            "{\"weight_map\": {\"a\": \"model.safetensors\"}}",
            ["has no tensor \"a\"", "download the model again"],
        ),
    ] {
        fs::write(&index, text).unwrap();
        refused(dir.path(), &words);
    }
}
