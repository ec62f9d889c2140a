//! A wrong model directory is refused with one sentence that names the file and the fault.

use std::{fs, path::Path};

use camscribe::{
    describe::{
        self,
        smolvlm::{
            config::{ModelConfig, ProcessorConfig},
            prompt::Prompter,
        },
    },
    device::{DeviceChoice, DtypeChoice},
    nn::error::LoadError,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";
const TOKENIZER: &str = "tokenizer.json";

/// A copy of the built-in model's files, without its weights.
fn shapes() -> TempDir {
    let dir = TempDir::new().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/shapes");
    for name in [CONFIG, GENERATION, PREPROCESSOR, PROCESSOR, TOKENIZER] {
        fs::copy(from.join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn load(dir: &Path) -> Result<(ModelConfig, ProcessorConfig, Prompter), LoadError> {
    let model = ModelConfig::load(dir)?;
    let processor = ProcessorConfig::load(dir, &model)?;
    let prompter = Prompter::load(dir, &model, &processor)?;
    Ok((model, processor, prompter))
}

/// Sets the value at a JSON pointer; `None` removes it.
fn edit(dir: &Path, file: &str, pointer: &str, value: Option<Value>) {
    let path = dir.join(file);
    let mut root: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = root.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Array(list), Some(value)) => list[key.parse::<usize>().unwrap()] = value,
        (Value::Object(map), Some(value)) => drop(map.insert(key.into(), value)),
        (Value::Object(map), None) => drop(map.remove(key)),
        _ => panic!("{pointer}"),
    }
    fs::write(path, root.to_string()).unwrap();
}

#[test]
fn the_shipped_model_is_accepted() {
    let (model, processor, _) = load(shapes().path()).unwrap();
    assert_eq!(processor.image_seq_len, model.tokens_per_tile());
}

#[test]
fn every_error_is_reported_with_its_file_and_key() {
    for (file, pointer, value) in [
        (CONFIG, "/text_config/model_type", json!("qwen2")),
        (CONFIG, "/text_config/hidden_act", json!("gelu")),
        (CONFIG, "/vision_config/hidden_act", json!("relu")),
        (CONFIG, "/tie_word_embeddings", json!(true)),
        (CONFIG, "/text_config/attention_bias", json!(true)),
        (CONFIG, "/text_config/mlp_bias", json!(true)),
        (CONFIG, "/text_config/mlp_bias", json!("no")),
        (CONFIG, "/text_config/rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
        (CONFIG, "/text_config/rope_scaling", json!({"type": "linear", "factor": 2.0})),
        (CONFIG, "/text_config/rope_theta", json!(0)),
        (CONFIG, "/text_config/rms_norm_eps", json!(-1e-5)),
        (CONFIG, "/text_config/hidden_size", json!(0)),
        (CONFIG, "/text_config/hidden_size", json!(130)),
        (CONFIG, "/text_config/hidden_size", json!(128.5)),
        (CONFIG, "/text_config/hidden_size", json!(4_000_000_000_u64)),
        (CONFIG, "/text_config/num_hidden_layers", json!(-1)),
        (CONFIG, "/text_config/num_attention_heads", json!(3)),
        (CONFIG, "/text_config/num_key_value_heads", json!(3)),
        (CONFIG, "/text_config/head_dim", json!(33)),
        (CONFIG, "/text_config/vocab_size", json!(u64::MAX)),
        (CONFIG, "/text_config/max_position_embeddings", json!("2048")),
        (CONFIG, "/vision_config/hidden_size", json!(97)),
        (CONFIG, "/vision_config/image_size", json!([64, 64])),
        (CONFIG, "/vision_config/patch_size", json!(65)),
        (CONFIG, "/vision_config/num_channels", json!(1)),
        (CONFIG, "/vision_config/layer_norm_eps", json!("1e-6")),
        (CONFIG, "/scale_factor", json!(3)),
        (CONFIG, "/image_token_id", json!(560)),
        (GENERATION, "/eos_token_id", json!(560)),
        (GENERATION, "/eos_token_id", json!([])),
        (GENERATION, "/eos_token_id", json!(null)),
        (GENERATION, "/pad_token_id", json!(-1)),
        (PREPROCESSOR, "/do_normalize", json!(false)),
        (PREPROCESSOR, "/rescale_factor", json!(1)),
        (PREPROCESSOR, "/image_mean/1", json!(0.48)),
        (PREPROCESSOR, "/image_std/2", json!(0.27)),
        (PREPROCESSOR, "/resample", json!(3)),
        (PREPROCESSOR, "/max_image_size/longest_edge", json!(128)),
        (PREPROCESSOR, "/size/longest_edge", json!(1_000_000)),
        (PREPROCESSOR, "/video_sampling/video_size/longest_edge", json!(0)),
        (PREPROCESSOR, "/video_sampling/fps", json!(0)),
        (PROCESSOR, "/image_seq_len", json!(64)),
    ] {
        let dir = shapes();
        edit(dir.path(), file, pointer, Some(value.clone()));
        let error =
            load(dir.path()).err().unwrap_or_else(|| panic!("{pointer} = {value} was accepted")).to_string();
        let key = pointer.split('/').rfind(|part| part.parse::<usize>().is_err()).unwrap();
        assert!(error.contains(&format!("{file}: ")) && error.contains(key), "{pointer} = {value}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_checkpoint_of_another_model_family_is_refused() {
    for model_type in [json!("idefics3"), json!(null), json!(7)] {
        let dir = shapes();
        edit(dir.path(), CONFIG, "/model_type", Some(model_type.clone()));
        let error = describe::probe(dir.path(), DeviceChoice::Cpu, DtypeChoice::F32);
        let error = error.err().unwrap_or_else(|| panic!("{model_type} was accepted")).to_string();
        assert!(error.contains("config.json: model_type is "), "{error}");
    }
}

#[test]
fn keys_that_published_files_leave_out_have_the_references_defaults() {
    let dir = shapes();
    let config = json!({
        "model_type": "smolvlm", "image_token_id": 558,
        "text_config": {"vocab_size": 560, "hidden_size": 2048, "rope_theta": 130_000, "num_key_value_heads": null},
        "vision_config": {"image_size": 384, "patch_size": 14, "layer_norm_eps": null},
    });
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    edit(dir.path(), GENERATION, "/eos_token_id", Some(json!([559, 2])));
    edit(dir.path(), GENERATION, "/pad_token_id", None);
    edit(dir.path(), CONFIG, "/scale_factor", Some(json!(3)));
    let m = ModelConfig::load(dir.path()).unwrap();
    assert_eq!(
        (m.vision.hidden_size, m.vision.intermediate_size, m.vision.num_hidden_layers),
        (1152, 3072, 12)
    );
    assert_eq!((m.vision.num_attention_heads, m.vision.layer_norm_eps), (16, 1e-6));
    assert_eq!((m.text.num_attention_heads, m.text.num_key_value_heads, m.text.head_dim), (32, 32, 64));
    assert_eq!((m.text.rms_norm_eps, m.text.rope_theta), (1e-6, 130_000.0));
    assert_eq!((m.eos_token_ids, m.pad_token_id), (vec![559, 2], 559));
}

#[test]
fn each_missing_or_damaged_file_has_its_own_error() {
    let nowhere = shapes().path().join("nowhere");
    assert!(matches!(load(&nowhere), Err(LoadError::NotADirectory { .. })));
    for file in [CONFIG, GENERATION, PREPROCESSOR, PROCESSOR, TOKENIZER] {
        let dir = shapes();
        let path = dir.path().join(file);
        fs::write(&path, "{\"model_type\": ").unwrap();
        let error = load(dir.path()).err().unwrap();
        assert!(error.to_string().contains(file), "{error}");
        assert!(matches!(error, LoadError::NotJson { .. } | LoadError::NotATokenizer { .. }), "{error}");
        fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        assert!(matches!(load(dir.path()), Err(LoadError::Unreadable { .. })), "{file}");
        fs::remove_file(&path).unwrap();
        let error = load(dir.path()).err().unwrap();
        assert!(matches!(&error, LoadError::Missing { path: missing } if *missing == path), "{error}");
        fs::create_dir(&path).unwrap();
        assert!(matches!(load(dir.path()), Err(LoadError::Unreadable { .. })), "{file}");
    }
}

#[test]
fn a_tokenizer_that_the_library_panics_on_is_refused_like_any_other() {
    let dir = shapes();
    edit(
        dir.path(),
        TOKENIZER,
        "/normalizer",
        Some(json!({"type": "Precompiled", "precompiled_charsmap": 7})),
    );
    let error = load(dir.path()).err().unwrap();
    assert!(matches!(error, LoadError::NotATokenizer { .. }), "{error}");
}

#[test]
fn a_tokenizer_that_does_not_belong_to_the_model_is_refused() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("it has no token \"<fake_token_around_image>\"", |d| rename(d, "<fake_token_around_image>")),
        ("it has no token \"<row_4_col_4>\"", |d| rename(d, "<row_4_col_4>")),
        ("image_token_id in config.json is 557", |d| edit(d, CONFIG, "/image_token_id", Some(json!(557)))),
        ("vocab_size in config.json is 559", |d| {
            edit(d, CONFIG, "/text_config/vocab_size", Some(json!(559)));
            edit(d, GENERATION, "/eos_token_id", Some(json!(2)));
        }),
    ];
    for (wanted, change) in changes {
        let dir = shapes();
        change(dir.path());
        let error = load(dir.path()).err().unwrap().to_string();
        assert!(error.contains(TOKENIZER) && error.contains(wanted), "{error}");
    }
}

fn rename(dir: &Path, token: &str) {
    let path = dir.join(TOKENIZER);
    let text = fs::read_to_string(&path).unwrap().replace(token, "<other>");
    fs::write(path, text).unwrap();
}
