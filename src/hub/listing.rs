//! What the hub has of a model: its commit, and name, size and hash of each file that is needed. The answer
//! is untrusted: it is checked before any of it is used in a file name or URL.

use serde::Deserialize;

use super::{
    client::HubClient,
    error::HubError,
    files::{INDEX, REQUIRED, WEIGHTS, is_part},
    id,
    progress::PullProgress,
    retry::Failure,
};

/// The longest answer that is read. Descriptions of models are far shorter.
const MAX_BYTES: u64 = 16 << 20;

/// The files of a model at one commit.
#[derive(Debug)]
pub struct Listing {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// The files that are needed, smallest first.
    pub files: Vec<RemoteFile>,
}

/// A file as the hub announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// A name without a folder.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// The hash of its content.
    pub hash: Hash,
}

/// The hash of a file's content, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Of large files: SHA-256 of the content.
    Sha256(String),
    /// Of small files: git's blob id, SHA-1 of `blob <size>\0` and the content.
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

/// Requests the listing of a model at a revision.
///
/// # Errors
/// When the hub refuses or does not answer, or when the model lacks a file that is needed.
pub fn fetch(
    hub: &HubClient,
    model: &str,
    revision: &str,
    progress: &mut dyn FnMut(PullProgress<'_>),
) -> Result<Listing, HubError> {
    let url = hub.listing_url(model, revision);
    let named = format!("{model}@{revision}");
    let attempt = |_: &mut dyn FnMut(PullProgress<'_>)| {
        let mut answer = hub.get(&url, None).map_err(Failure::transient)?;
        hub.check_status(&named, &answer)?;
        let read = answer.body_mut().with_config().limit(MAX_BYTES).read_to_vec();
        read.map_err(|e| Failure::transient(format!("the answer about {named} ended early: {e}")))
    };
    let body = hub.retry(&format!("the listing of {named}"), progress, || 0, attempt)?;
    let answer = serde_json::from_slice(&body).map_err(|e| {
        HubError::Damaged(format!("{} does not answer like a hub ({e}): is HF_ENDPOINT right?", hub.name()))
    })?;
    select(answer, model)
}

/// Selects the files that are needed.
fn select(answer: Answer, model: &str) -> Result<Listing, HubError> {
    if !id::is_commit(&answer.sha) {
        return Err(HubError::Damaged(format!("the hub names no commit of {model}: is HF_ENDPOINT right?")));
    }
    let single = answer.siblings.iter().any(|s| s.rfilename == WEIGHTS);
    let needed = answer.siblings.into_iter().filter(|s| is_part(&s.rfilename, single));
    let mut files = needed.map(remote_file).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    files.dedup_by(|a, b| a.name == b.name);
    let has = |name: &str| files.iter().any(|f| f.name == name);
    let lacks = REQUIRED.into_iter().find(|name| !has(name));
    let lacks = lacks.or_else(|| (!single && !has(INDEX)).then_some(WEIGHTS));
    match lacks {
        Some(name) => Err(HubError::Refused(format!(
            "{model} has no {name}: it is not a SmolVLM2 model in the hub's layout"
        ))),
        None => Ok(Listing { commit: answer.sha, files }),
    }
}

/// Checks what the hub says about a file.
fn remote_file(sibling: Sibling) -> Result<RemoteFile, HubError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: serde_json::Value) -> Result<Listing, HubError> {
        let sha = "0123456789012345678901234567890123456789";
        select(serde_json::from_value(serde_json::json!({"sha": sha, "siblings": files})).unwrap(), "a/b")
    }

    fn file(name: &str) -> serde_json::Value {
        serde_json::json!({"rfilename": name, "size": 3, "blobId": "0".repeat(40)})
    }

    #[test]
    fn only_needed_files_are_selected_and_none_outside_the_folder() {
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
        let selected: Vec<_> = listing.files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(
            selected,
            ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"]
        );
    }

    #[test]
    fn a_model_whose_weights_are_in_several_files_needs_their_index() {
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
