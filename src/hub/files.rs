//! The files that a model consists of.

use std::{collections::BTreeMap, fs, path::Path};

use super::{error::HubError, id};

/// A model cannot be used without these.
pub const REQUIRED: [&str; 3] = ["config.json", "preprocessor_config.json", "tokenizer.json"];
const OPTIONAL: [&str; 4] =
    ["chat_template.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"];
/// The weights in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Where the weights are in several files: which tensor is in which.
pub const INDEX: &str = "model.safetensors.index.json";

/// Whether a file is part of a model. `single` says that the weights are in one file.
pub fn is_part(name: &str, single: bool) -> bool {
    REQUIRED.contains(&name)
        || OPTIONAL.contains(&name)
        || if single { name == WEIGHTS } else { name == INDEX || is_shard(name) }
}

/// Returns the first file that `folder` lacks of the model `model`; none if the model is complete.
///
/// # Errors
/// When the index of the weights cannot be read.
pub fn missing(model: &str, folder: &Path) -> Result<Option<String>, HubError> {
    match REQUIRED.into_iter().find(|name| !folder.join(name).is_file()) {
        Some(name) => Ok(Some(name.into())),
        None => missing_weights(model, folder),
    }
}

/// Returns the first file of weights that `folder` lacks.
///
/// # Errors
/// When the index of the weights cannot be read.
pub fn missing_weights(model: &str, folder: &Path) -> Result<Option<String>, HubError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join(INDEX);
    if folder.join(WEIGHTS).is_file() {
        return Ok(None);
    }
    if !path.is_file() {
        return Ok(Some(WEIGHTS.into()));
    }
    let text = fs::read(&path).map_err(|e| HubError::disk("read", &path, e))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| HubError::Damaged(format!("the index of {model}'s weights cannot be read: {e}")))?;
    let mut shards = index.weight_map.into_values();
    Ok(shards.find(|shard| !id::is_path_component(shard) || !folder.join(shard).is_file()))
}

/// Whether a name is that of one of several files of weights: `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|n| n.strip_suffix(".safetensors"));
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    numbers.and_then(|n| n.split_once("-of-")).is_some_and(|(i, n)| number(i) && number(n))
}
