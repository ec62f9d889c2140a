//! The files of the published models are read as the reference reads them. They lie in the folder that
//! `CAMSCRIBE_GOLDEN` names, below `model-files`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use camscribe::describe::smolvlm::{
    config::{ModelConfig, ProcessorConfig},
    prompt::Prompter,
};
use libtest_mimic::Trial;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::check;

/// A model and the values in its files.
struct Published {
    name: &'static str,
    /// Width, layers, heads and inner width of the vision tower.
    vision: [usize; 4],
    layers: usize,
    width: usize,
    heads: usize,
    key_value_heads: usize,
    tokens_a_tile: usize,
}

const PUBLISHED: [Published; 3] = [
    Published {
        name: "256M",
        vision: [768, 12, 12, 3072],
        layers: 30,
        width: 576,
        heads: 9,
        key_value_heads: 3,
        tokens_a_tile: 64,
    },
    Published {
        name: "500M",
        vision: [768, 12, 12, 3072],
        layers: 32,
        width: 960,
        heads: 15,
        key_value_heads: 5,
        tokens_a_tile: 64,
    },
    Published {
        name: "2.2B",
        vision: [1152, 27, 16, 4304],
        layers: 24,
        width: 2048,
        heads: 32,
        key_value_heads: 32,
        tokens_a_tile: 81,
    },
];

/// Returns the checks of this file.
pub fn trials() -> Vec<Trial> {
    let mut trials = vec![with_files_of(
        "256M",
        "published::the_tokenizer_splits_text_as_the_reference_does",
        the_tokenizer_splits_text_as_the_reference_does,
    )];
    for model in PUBLISHED {
        let name = format!("published::the_files_of_{}_are_read_as_the_model_is", model.name);
        trials.push(with_files_of(model.name, &name, move |dir: &Path| read_as_it_is(&model, dir)));
    }
    trials
}

/// Returns a check of the files of one model.
fn with_files_of(model: &str, name: &str, run: impl FnOnce(&Path) + Send + 'static) -> Trial {
    let dir = env::var_os("CAMSCRIBE_GOLDEN").map(|root| PathBuf::from(root).join("model-files").join(model));
    let missing = match &dir {
        None => Some("CAMSCRIBE_GOLDEN".to_owned()),
        Some(dir) => (!dir.is_dir()).then(|| dir.display().to_string()),
    };
    check(missing, name, move || run(&dir.expect("it is named")))
}

fn the_tokenizer_splits_text_as_the_reference_does(dir: &Path) {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-data/common/tokens.json");
    let table: Value = serde_json::from_str(&fs::read_to_string(table).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    for row in table.as_array().unwrap() {
        let ids = tokenizer.encode(row["text"].as_str().unwrap(), false).unwrap();
        assert_eq!(serde_json::json!(ids.get_ids()), row["ids"], "{row}");
    }
}

fn read_as_it_is(published: &Published, dir: &Path) {
    let model = ModelConfig::load(dir).unwrap();
    let processor = ProcessorConfig::load(dir, &model).unwrap();
    Prompter::load(dir, &model, &processor).unwrap();
    let v = &model.vision;
    let vision = [v.hidden_size, v.num_hidden_layers, v.num_attention_heads, v.intermediate_size];
    assert_eq!(vision, published.vision);
    let t = &model.text;
    assert_eq!((t.num_hidden_layers, t.hidden_size), (published.layers, published.width));
    assert_eq!((t.num_attention_heads, t.num_key_value_heads), (published.heads, published.key_value_heads));
    assert_eq!((t.head_dim, t.vocab_size, v.layer_norm_eps), (64, 49280, 1e-6));
    assert_eq!(
        (model.image_token_id, &model.eos_token_ids[..], model.pad_token_id),
        (49190, &[49279][..], 2)
    );
    assert_eq!(processor.image_seq_len, published.tokens_a_tile);
    assert_eq!((processor.video_edge, processor.image_edge), (processor.tile, 4 * processor.tile));
    assert!(processor.do_image_splitting);
    assert_eq!((processor.video_fps, processor.video_max_frames), (1.0, 64));
}
