//! What the hub says about a model: its commit, and name, size and hash of each file that we need.
//! All of it is somebody else's text, and is checked before it names a file or an address.

use serde::Deserialize;
use ureq::{Body, http::Response};

use super::{
    HubError,
    client::{Hub, text},
    download::{Failure, persist},
    id,
    pull::Progress,
};

/// Far above the description of any model.
const MAX_BYTES: u64 = 16 << 20;

/// Without these, in one form or the other, nothing can be described.
const REQUIRED: [&str; 3] = ["config.json", "preprocessor_config.json", "tokenizer.json"];
const OPTIONAL: [&str; 4] =
    ["chat_template.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files of a model at one commit.
#[derive(Debug)]
pub struct Listing {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// Those that we need, smallest first.
    pub files: Vec<RemoteFile>,
}

/// A file as the hub announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// A plain name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What its bytes must hash to.
    pub hash: Hash,
}

/// What a file's bytes must hash to, lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Large files: SHA-256 of the bytes.
    Sha256(String),
    /// Small files: git's blob id, SHA-1 of `blob <size>\0` and the bytes.
    GitBlob(String),
}

impl Hash {
    /// The digits.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// Asks the hub about a model.
pub fn fetch(
    hub: &Hub,
    model: &str,
    revision: &str,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Listing, HubError> {
    let url = hub.listing_url(model, revision);
    let named = format!("{model}@{revision}");
    let body = persist(
        hub,
        &named,
        progress,
        || 0,
        |_| {
            let mut answer = hub.get(&url, None).map_err(Failure::passing)?;
            check_status(hub, &named, &answer)?;
            let read = answer.body_mut().with_config().limit(MAX_BYTES).read_to_vec();
            read.map_err(|e| Failure::passing(format!("its answer about {named} ended early: {e}")))
        },
    )?;
    let answer = serde_json::from_slice(&body).map_err(|e| {
        HubError::Damaged(format!("{} does not answer like a hub ({e}): is HF_ENDPOINT right?", hub.name()))
    })?;
    choose(answer, model)
}

/// Turns an answer that is not a file into words.
pub fn check_status(hub: &Hub, what: &str, answer: &Response<Body>) -> Result<(), Failure> {
    let host = hub.name();
    let code = text(answer.headers(), "x-error-code").unwrap_or_default();
    let refused = |why: String| Err(Failure::Final(HubError::Refused(why)));
    match (answer.status().as_u16(), code) {
        (200..=299, _) => Ok(()),
        (404, "RevisionNotFound") => {
            refused(format!("{host} has no such revision of the model: {what}; check its spelling"))
        }
        (404, _) => refused(format!("{host} has no {what}: check the spelling of model and revision")),
        (401, _) if !hub.has_token() => refused(format!(
            "{host} does not show {what} to strangers: check its spelling; if it is private or gated, set HF_TOKEN"
        )),
        (401, _) => refused(format!("{host} does not accept the token in HF_TOKEN for {what}")),
        (403, _) => refused(format!(
            "{host} forbids {what}: accept the model's licence on its page there, and set HF_TOKEN to a token \
             that may read it"
        )),
        (status @ (408 | 425 | 429 | 500..=599), _) => Err(Failure::Passing {
            why: format!("{host} answers {status} for {what}"),
            wait: text(answer.headers(), "retry-after").and_then(|s| s.parse().ok()),
        }),
        (status, _) => refused(format!("{host} answers {status} for {what}")),
    }
}

fn choose(answer: Answer, model: &str) -> Result<Listing, HubError> {
    if !id::is_commit(&answer.sha) {
        return Err(HubError::Damaged(format!("the hub names no commit of {model}: is HF_ENDPOINT right?")));
    }
    let whole = answer.siblings.iter().any(|s| s.rfilename == WEIGHTS);
    let wanted = |name: &str| {
        REQUIRED.contains(&name)
            || OPTIONAL.contains(&name)
            || (whole && name == WEIGHTS)
            || (!whole && (name == INDEX || is_shard(name)))
    };
    let mut files = Vec::new();
    for sibling in answer.siblings.into_iter().filter(|s| wanted(&s.rfilename)) {
        files.push(announced(sibling)?);
    }
    files.sort_by(|a: &RemoteFile, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    files.dedup_by(|a, b| a.name == b.name);
    let has = |name: &str| files.iter().any(|f| f.name == name);
    let lacks = REQUIRED.into_iter().find(|name| !has(name));
    let lacks = lacks.or_else(|| (!whole && !has(INDEX)).then_some(WEIGHTS));
    match lacks {
        Some(name) => Err(HubError::Refused(format!(
            "{model} has no {name}: it is not a SmolVLM2 model in the hub's layout"
        ))),
        None => Ok(Listing { commit: answer.sha, files }),
    }
}

fn announced(sibling: Sibling) -> Result<RemoteFile, HubError> {
    let name = sibling.rfilename;
    let hex = |text: Option<String>, digits: usize| {
        text.filter(|t| t.len() == digits && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (size, hash) = match sibling.lfs {
        Some(lfs) => (lfs.size.or(sibling.size), hex(lfs.sha256, 64).map(Hash::Sha256)),
        None => (sibling.size, hex(sibling.blob_id, 40).map(Hash::GitBlob)),
    };
    match (size, hash) {
        (Some(size), Some(hash)) => Ok(RemoteFile { name, size, hash }),
        _ => Err(HubError::Damaged(format!(
            "the hub states no size and hash for {name}: it could not be checked"
        ))),
    }
}

/// `model-00001-of-00002.safetensors`
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|n| n.strip_suffix(".safetensors"));
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    numbers.and_then(|n| n.split_once("-of-")).is_some_and(|(i, n)| number(i) && number(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: serde_json::Value) -> Result<Listing, HubError> {
        let sha = "0123456789012345678901234567890123456789";
        choose(serde_json::from_value(serde_json::json!({"sha": sha, "siblings": files})).unwrap(), "a/b")
    }

    fn file(name: &str) -> serde_json::Value {
        serde_json::json!({"rfilename": name, "size": 3, "blobId": "0".repeat(40)})
    }

    #[test]
    fn only_the_files_that_we_need_are_taken_and_none_outside_the_folder() {
        let names = [
            "config.json",
            "preprocessor_config.json",
            "tokenizer.json",
            "model.safetensors",
            "README.md",
            "../config.json",
            "onnx/model.safetensors",
            "pytorch_model.bin",
            "model-00001-of-00002.safetensors",
            "model-../..-of-00002.safetensors",
            "/etc/tokenizer.json",
        ];
        let listing = listing(names.map(file).to_vec().into()).unwrap();
        let taken: Vec<_> = listing.files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(taken, ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"]);
    }

    #[test]
    fn a_model_without_whole_weights_needs_their_index() {
        let base =
            ["config.json", "preprocessor_config.json", "tokenizer.json", "model-00001-of-00001.safetensors"];
        assert!(
            listing(base.map(file).to_vec().into())
                .unwrap_err()
                .to_string()
                .contains("has no model.safetensors")
        );
        let mut files = base.map(file).to_vec();
        files.push(file(INDEX));
        assert_eq!(listing(files.into()).unwrap().files.len(), 5);
    }

    #[test]
    fn a_file_without_size_or_hash_is_refused() {
        let mut files =
            ["preprocessor_config.json", "tokenizer.json", "model.safetensors"].map(file).to_vec();
        for bad in [
            serde_json::json!({"rfilename": "config.json"}),
            serde_json::json!({"rfilename": "config.json", "size": 3}),
            serde_json::json!({"rfilename": "config.json", "size": 3, "blobId": "../../x"}),
            serde_json::json!({"rfilename": "config.json", "size": 3, "lfs": {"size": 3}}),
        ] {
            files.push(bad);
            assert!(
                listing(files.clone().into())
                    .unwrap_err()
                    .to_string()
                    .contains("no size and hash for config.json")
            );
            files.pop();
        }
    }
}
