//! Models are pulled from a hub over HTTP: complete, verified and resumed, and the token goes to the hub
//! only.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use camscribe::hub::{self, HubClient, HubError, ModelCaches, PullProgress, Pulled, RetryPolicy, Target};
use serde_json::{Value, json};
use sha2::Digest;

use crate::support::http::{Reply, Request, Server};

const MODEL: &str = "maker/tiny";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";
const TOKEN: &str = "hf_hunter2";

/// The files of a model and the hub's listing of them.
#[derive(Clone)]
struct Content {
    files: BTreeMap<String, Vec<u8>>,
    commit: String,
}

impl Content {
    fn new() -> Self {
        let weights = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let small = ["config.json", "preprocessor_config.json", "tokenizer.json", "README.md"];
        let mut files: BTreeMap<String, Vec<u8>> =
            small.map(|name| (name.into(), format!("{{\"name\": \"{name}\"}}").into_bytes())).into();
        files.insert(WEIGHTS.into(), weights);
        Self { files, commit: COMMIT.into() }
    }

    fn weights(&self) -> &[u8] {
        &self.files[WEIGHTS]
    }

    fn listing(&self) -> Value {
        let file = |(name, bytes): (&String, &Vec<u8>)| {
            let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": git_blob(bytes)});
            if name.ends_with(".safetensors") {
                file["lfs"] =
                    json!({"sha256": hex(sha2::Sha256::digest(bytes).as_ref()), "size": bytes.len()});
            }
            file
        };
        json!({"sha": self.commit, "siblings": self.files.iter().map(file).collect::<Vec<_>>()})
    }

    /// Replies as a correct hub does.
    fn reply(&self, request: &Request) -> Reply {
        if request.path.starts_with(&format!("/api/models/{MODEL}/revision/")) {
            return Reply::new(200, self.listing().to_string());
        }
        let prefix = format!("/{MODEL}/resolve/{}/", self.commit);
        match request.path.strip_prefix(&prefix).and_then(|name| self.files.get(name)) {
            Some(bytes) => ranged(request, bytes),
            None => Reply::new(404, ""),
        }
    }
}

/// Replies with the whole file, or with the range that the request asks for.
fn ranged(request: &Request, bytes: &[u8]) -> Reply {
    let from = request.header("range").map(|r| r.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap());
    match from.map(|from| from.parse::<usize>().unwrap()) {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[from..]).header("content-range", range)
        }
        None => Reply::new(200, bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn git_blob(bytes: &[u8]) -> String {
    let mut hash = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

/// A client of this server that retries quickly.
fn hub(server: &Server, tries: u32) -> HubClient {
    let policy = RetryPolicy {
        stall: Duration::from_millis(400),
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        tries,
        ..RetryPolicy::default()
    };
    HubClient::new(&server.url(), None, policy).unwrap()
}

fn pull(hub: &HubClient, cache: &Path) -> Result<Pulled, HubError> {
    hub.pull(MODEL, "main", Target::Cache(&caches(cache)), &mut |_| {})
}

/// Our own cache alone.
fn caches(cache: &Path) -> ModelCaches {
    ModelCaches { own: cache.into(), hugging_face: None }
}

/// A good hub, but for what `first` says about the `n`th request for the weights, from 0.
fn server(
    content: &Content,
    odd: impl Fn(usize, &Request, &[u8]) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let content = content.clone();
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        let weights = request.path.ends_with(WEIGHTS);
        let odd = || odd(count.fetch_add(1, Ordering::SeqCst), request, content.weights());
        weights.then(odd).flatten().unwrap_or_else(|| content.reply(request))
    })
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.requests_for(WEIGHTS).iter().map(|r| r.header("range").map(Into::into)).collect()
}

/// The command `camscribe pull` with a cache of its own.
fn camscribe(server: &str, cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camscribe"));
    for name in ["CACHE_DIRECTORY", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", server).env("XDG_CACHE_HOME", cache).arg("pull").args(arguments);
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_model_is_pulled_once_and_found_without_a_network_afterwards() {
    let content = Content::new();
    let server = server(&content, |_, _, _| None);
    let home = tempfile::tempdir().unwrap();
    let (code, out, err) = output(&mut camscribe(&server.url(), home.path(), &[MODEL]));
    assert_eq!(code, Some(0), "{err}");
    let path = PathBuf::from(out.trim());
    for name in ["config.json", "preprocessor_config.json", "tokenizer.json", WEIGHTS] {
        assert_eq!(fs::read(path.join(name)).unwrap(), content.files[name], "{name}");
    }
    assert_eq!(fs::read_dir(&path).unwrap().count(), 4, "files that nobody needs have come");
    assert!(err.contains("model.safetensors, ") && !err.contains('\x1b'), "plain lines: {err}");

    let before = server.requests().len();
    let (code, again, _) = output(&mut camscribe(&server.url(), home.path(), &[MODEL]));
    assert_eq!((code, again.as_str()), (Some(0), out.as_str()));
    assert_eq!(server.requests().len(), before + 1, "only the listing was asked for");
    drop(server);

    let cache = home.path().join("camscribe");
    for revision in ["main", COMMIT] {
        let found = hub::find(&caches(&cache), MODEL, revision).unwrap();
        assert_eq!((found.path.as_path(), found.revision.as_str()), (path.as_path(), COMMIT));
    }
    let missing = hub::find(&caches(&cache), MODEL, "v2").unwrap_err().to_string();
    assert!(missing.contains("run camscribe pull maker/tiny@v2"), "{missing}");
}

#[test]
fn a_branch_that_moved_is_pulled_again() {
    let mut content = Content::new();
    let cache = tempfile::tempdir().unwrap();
    pull(&hub(&server(&content, |_, _, _| None), 1), cache.path()).unwrap();
    content.commit = COMMIT.replace('0', "f");
    content.files.insert("config.json".into(), b"{}".to_vec());
    pull(&hub(&server(&content, |_, _, _| None), 1), cache.path()).unwrap();
    let found = hub::find(&caches(cache.path()), MODEL, "main").unwrap();
    assert_eq!(fs::read(found.path.join("config.json")).unwrap(), b"{}");
    assert!(hub::find(&caches(cache.path()), MODEL, COMMIT).is_ok(), "the old commit is still there");
}

#[test]
fn an_interrupted_download_is_resumed_where_it_ended() {
    let content = Content::new();
    let server = server(&content, |n, request, bytes| match n {
        0 => Some(ranged(request, bytes).cut_at(70_000)),
        1 => Some(ranged(request, bytes).cut_at(50_000)),
        _ => None,
    });
    let home = tempfile::tempdir().unwrap();
    let (code, out, err) = output(&mut camscribe(&server.url(), home.path(), &[MODEL]));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(fs::read(Path::new(out.trim()).join(WEIGHTS)).unwrap(), content.weights());
    assert_eq!(ranges(&server), [None, Some("bytes=70000-".into()), Some("bytes=120000-".into())]);
    assert!(err.contains("next try in"), "{err}");
}

#[test]
fn a_failed_pull_leaves_its_partial_files_to_the_next_one() {
    let content = Content::new();
    let cache = tempfile::tempdir().unwrap();
    let broken = server(&content, |_, request, bytes| Some(ranged(request, bytes).cut_at(1000)));
    let error = pull(&hub(&broken, 1), cache.path()).unwrap_err().to_string();
    assert!(error.contains("cannot download model.safetensors from 127.0.0.1"), "{error}");
    assert!(
        matches!(hub::find(&caches(cache.path()), MODEL, "main"), Err(HubError::NotPulled(_))),
        "half a model was found"
    );
    let good = server(&content, |_, _, _| None);
    let pulled = pull(&hub(&good, 1), cache.path()).unwrap();
    assert_eq!(fs::read(pulled.path.join(WEIGHTS)).unwrap(), content.weights());
    assert_eq!(ranges(&good), [Some("bytes=1000-".into())]);
    assert!(good.requests_for("config.json").is_empty(), "small files came twice");
}

#[test]
fn a_download_that_stalls_is_abandoned_and_resumed() {
    let content = Content::new();
    let server =
        server(&content, |n, request, bytes| (n == 0).then(|| ranged(request, bytes).stall_at(70_000)));
    let cache = tempfile::tempdir().unwrap();
    let pulled = pull(&hub(&server, 3), cache.path()).unwrap();
    assert_eq!(fs::read(pulled.path.join(WEIGHTS)).unwrap(), content.weights());
    assert_eq!(ranges(&server), [None, Some("bytes=70000-".into())]);
}

#[test]
fn a_slow_server_is_waited_for() {
    let content = Content::new();
    let server = server(&content, |_, request, bytes| {
        let mut reply = ranged(request, bytes);
        reply.throttle = Some((60_000, Duration::from_millis(150)));
        Some(reply)
    });
    let cache = tempfile::tempdir().unwrap();
    let pulled = pull(&hub(&server, 1), cache.path()).unwrap();
    assert_eq!(fs::read(pulled.path.join(WEIGHTS)).unwrap(), content.weights());
    assert_eq!(
        ranges(&server),
        [None],
        "the whole took longer than the stall limit, and was not tried twice"
    );
}

#[test]
fn a_server_without_ranges_sends_the_file_from_its_start() {
    type Odd = fn(usize, &Request, &[u8]) -> Option<Reply>;
    let cut: Odd = |_, request, bytes| Some(ranged(request, bytes).cut_at(70_000));
    let ignores_range: Odd = |_, _, bytes| Some(Reply::new(200, bytes));
    let not_satisfiable: Odd =
        |n, _, bytes| Some(if n == 1 { Reply::new(416, "") } else { Reply::new(200, bytes) });
    let wrong_place: Odd = |n, _, bytes| {
        let reply =
            Reply::new(206, &bytes[5..]).header("content-range", format!("bytes 5-299999/{}", bytes.len()));
        (n == 1).then_some(reply)
    };
    for second in [ignores_range, not_satisfiable, wrong_place] {
        let content = Content::new();
        let server =
            server(&content, move |n, r, bytes| if n == 0 { cut(n, r, bytes) } else { second(n, r, bytes) });
        let cache = tempfile::tempdir().unwrap();
        let pulled = pull(&hub(&server, 3), cache.path()).unwrap();
        assert_eq!(fs::read(pulled.path.join(WEIGHTS)).unwrap(), content.weights());
        assert_eq!(ranges(&server)[1].as_deref(), Some("bytes=70000-"));
    }
}

#[test]
fn a_file_that_changes_between_attempts_is_not_mixed() {
    let content = Content::new();
    let server = server(&content, |n, request, bytes| {
        Some(match n {
            0 => Reply::new(200, vec![7; bytes.len()]).header("etag", "\"old\"").cut_at(70_000),
            // A correct server compares the entity tags and finds another file.
            _ if request.header("if-range") == Some("\"old\"") => {
                Reply::new(200, bytes).header("etag", "\"new\"")
            }
            _ => ranged(request, bytes),
        })
    });
    let cache = tempfile::tempdir().unwrap();
    let pulled = pull(&hub(&server, 3), cache.path()).unwrap();
    assert_eq!(fs::read(pulled.path.join(WEIGHTS)).unwrap(), content.weights());
}

#[test]
fn a_file_with_the_wrong_hash_is_deleted_and_never_used() {
    for name in [WEIGHTS, "config.json"] {
        let content = Content::new();
        let mut lies = content.clone();
        lies.files.get_mut(name).unwrap()[3] ^= 1;
        let good = content.clone();
        let server = Server::start(move |request| match request.path.starts_with("/api") {
            true => good.reply(request),
            false => lies.reply(request),
        });
        let home = tempfile::tempdir().unwrap();
        let (code, out, err) = output(&mut camscribe(&server.url(), home.path(), &[MODEL]));
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains(&format!("error: {name} is damaged")), "{err}");
        let cache = home.path().join("camscribe");
        assert!(hub::find(&caches(&cache), MODEL, "main").is_err());
        let mended = pull(&hub(&self::server(&content, |_, _, _| None), 1), &cache).unwrap();
        assert_eq!(fs::read(mended.path.join(name)).unwrap(), content.files[name]);
    }
}

#[test]
fn a_file_longer_than_announced_does_not_fill_the_disk() {
    let content = Content::new();
    let server = server(&content, |_, _, bytes| Some(Reply::new(200, [bytes, b"more"].concat())));
    let cache = tempfile::tempdir().unwrap();
    let error = pull(&hub(&server, 3), cache.path()).unwrap_err().to_string();
    assert!(error.contains("longer than the 300000 bytes"), "{error}");
}

#[test]
fn a_model_larger_than_any_disk_is_refused_before_the_download() {
    let content = Content::new();
    let mut listing = content.listing();
    for file in listing["siblings"].as_array_mut().unwrap() {
        if file["rfilename"] == WEIGHTS {
            file["lfs"]["size"] = json!(1_u64 << 60);
        }
    }
    let server = Server::start(move |_| Reply::new(200, listing.to_string()));
    let cache = tempfile::tempdir().unwrap();
    let error = pull(&hub(&server, 1), cache.path()).unwrap_err().to_string();
    assert!(error.contains("MiB are free"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn each_refusal_of_the_hub_has_a_clear_error() {
    for (status, code, token, text) in [
        (404, "", None, "has no maker/tiny@v9: check the spelling of model and revision"),
        (404, "RevisionNotFound", None, "has no such revision of the model: maker/tiny@v9"),
        (401, "", None, "if it is private or gated, set HF_TOKEN"),
        (401, "", Some(TOKEN), "does not accept the token in HF_TOKEN"),
        (403, "GatedRepo", Some(TOKEN), "accept the model's licence"),
        (418, "", None, "answers 418"),
    ] {
        let server = Server::start(move |_| Reply::new(status, "no").header("x-error-code", code));
        let home = tempfile::tempdir().unwrap();
        let mut command = camscribe(&server.url(), home.path(), &["maker/tiny@v9"]);
        command.envs(token.map(|token| ("HF_TOKEN", token)));
        let (exit, out, err) = output(&mut command);
        assert_eq!((exit, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.contains(text), "{err}");
        assert!(!err.contains(TOKEN), "{err}");
        assert_eq!(server.requests().len(), 1, "{status} was tried again");
    }
}

#[test]
fn an_unreachable_hub_has_a_clear_error() {
    let url = Server::start(|_| Reply::new(200, "")).url();
    let policy = RetryPolicy { tries: 2, first_pause: Duration::from_millis(1), ..RetryPolicy::default() };
    let cache = tempfile::tempdir().unwrap();
    let error = pull(&HubClient::new(&url, None, policy).unwrap(), cache.path()).unwrap_err().to_string();
    assert!(error.contains("from 127.0.0.1 after 2 attempts"), "{error}");
    for endpoint in ["", "ftp://hub.example", "https://", "https://me:hunter2@hub.example"] {
        let error = HubClient::new(endpoint, None, policy).unwrap_err().to_string();
        assert!(error.contains("HF_ENDPOINT") && !error.contains("hunter2"), "{error}");
    }
    assert!(HubClient::new(&url, Some("two\nlines".into()), policy).is_err());
}

#[test]
fn a_busy_server_is_retried() {
    let content = Content::new();
    let server =
        server(&content, |n, _, _| (n < 2).then(|| Reply::new(if n == 0 { 503 } else { 429 }, "busy")));
    let cache = tempfile::tempdir().unwrap();
    let mut retries = Vec::new();
    let mut progress = |progress: PullProgress<'_>| {
        if let PullProgress::Retry { why, .. } = progress {
            retries.push(why.to_owned());
        }
    };
    hub(&server, 3).pull(MODEL, "main", Target::Cache(&caches(cache.path())), &mut progress).unwrap();
    assert_eq!(retries.len(), 2, "{retries:?}");
    assert!(retries[0].contains("503") && retries[1].contains("429"), "{retries:?}");
}

#[test]
fn the_token_is_sent_to_the_hub_and_nowhere_else() {
    let content = Content::new();
    let elsewhere = {
        let content = content.clone();
        Server::start(move |request| ranged(request, content.weights()))
    };
    let away = elsewhere.url();
    let hub = Server::start(move |request| match request.header("authorization") {
        Some("Bearer hf_hunter2") if request.path.ends_with(WEIGHTS) => {
            Reply::new(302, "").header("location", format!("{away}/signed?secret=1"))
        }
        Some("Bearer hf_hunter2")
            if request.path.contains("/resolve/") && !request.path.ends_with("?here") =>
        {
            Reply::new(307, "").header("location", format!("{}?here", request.path))
        }
        Some("Bearer hf_hunter2") => {
            let path = request.path.trim_end_matches("?here").to_owned();
            content.reply(&Request { path, ..request.clone() })
        }
        _ => Reply::new(401, ""),
    });
    let home = tempfile::tempdir().unwrap();
    let (code, _, err) = output(camscribe(&hub.url(), home.path(), &[MODEL]).env("HF_TOKEN", TOKEN));
    assert_eq!(code, Some(0), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
    let asked = elsewhere.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
}

#[test]
fn two_pulls_of_one_model_do_not_disturb_each_other() {
    let content = Content::new();
    let server = server(&content, |_, request, bytes| {
        let mut reply = ranged(request, bytes);
        reply.throttle = Some((60_000, Duration::from_millis(20)));
        Some(reply)
    });
    let cache = tempfile::tempdir().unwrap();
    let start = Arc::new(Barrier::new(2));
    let pulled = thread::scope(|scope| {
        let both = [0, 1].map(|_| {
            scope.spawn(|| {
                start.wait();
                pull(&hub(&server, 1), cache.path()).unwrap()
            })
        });
        both.map(|thread| thread.join().unwrap())
    });
    assert_eq!(pulled[0], pulled[1]);
    assert_eq!(fs::read(pulled[0].path.join(WEIGHTS)).unwrap(), content.weights());
    assert_eq!(server.requests_for(WEIGHTS).len(), 1, "it came twice");
}

#[test]
fn a_model_can_be_pulled_into_a_given_directory() {
    let content = Content::new();
    let server = server(&content, |_, _, _| None);
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("models/tiny");
    let arguments = ["maker/tiny@v1", "--dir", dir.to_str().unwrap()];
    for _ in 0..2 {
        let (code, out, err) = output(&mut camscribe(&server.url(), home.path(), &arguments));
        assert_eq!((code, out.trim()), (Some(0), dir.to_str().unwrap()), "{err}");
    }
    assert_eq!(fs::read(dir.join(WEIGHTS)).unwrap(), content.weights());
    assert_eq!(server.requests_for(WEIGHTS).len(), 1, "what lies there did not have to come again");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
    assert!(!home.path().join("camscribe").exists(), "the cache was touched");
}

#[test]
fn sharded_weights_are_complete_or_the_model_is_refused() {
    let mut content = Content::new();
    content.files.remove(WEIGHTS);
    let shard = |i: usize| format!("model-0000{i}-of-00002.safetensors");
    let index = json!({"weight_map": {"a": shard(1), "b": shard(2)}}).to_string();
    content.files.insert("model.safetensors.index.json".into(), index.into());
    content.files.insert(shard(1), vec![1; 1000]);
    let pull_from = |content: &Content| {
        let content = content.clone();
        let server = Server::start(move |request| content.reply(request));
        let cache = tempfile::tempdir().unwrap();
        pull(&hub(&server, 1), cache.path()).map(|pulled| fs::read(pulled.path.join(shard(2))).unwrap())
    };
    let error = pull_from(&content).unwrap_err().to_string();
    assert!(error.contains("names the weights \"model-00002-of-00002.safetensors\""), "{error}");
    content.files.insert(shard(2), vec![2; 1000]);
    assert_eq!(pull_from(&content).unwrap(), [2; 1000]);
}

#[test]
fn a_malformed_listing_is_refused_and_names_no_file() {
    let content = Content::new();
    let listing = |change: &dyn Fn(&mut Value)| {
        let mut listing = content.listing();
        change(&mut listing);
        listing.to_string()
    };
    for (answer, text) in [
        ("<html>welcome</html>".into(), "does not answer like a hub"),
        (listing(&|l| l["sha"] = json!("../../../x")), "names no commit"),
        (listing(&|l| l["siblings"] = json!([])), "has no config.json"),
        (listing(&|l| l["siblings"][1]["blobId"] = Value::Null), "states no size and hash"),
    ] {
        let server = Server::start(move |_| Reply::new(200, answer.clone()));
        let cache = tempfile::tempdir().unwrap();
        let error = pull(&hub(&server, 1), cache.path()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }
}

#[test]
fn an_invalid_model_name_is_a_usage_error() {
    let home = tempfile::tempdir().unwrap();
    for name in ["tiny", "../tiny", "maker/tiny@", "maker/tiny@../x", "maker/ti ny", "a/b/c"] {
        let (code, _, err) = output(&mut camscribe("http://127.0.0.1:9", home.path(), &[name]));
        assert_eq!(code, Some(2), "{name}: {err}");
    }
}

/// A Hugging Face cache in `folder` that holds `content` as `huggingface_hub` lays it out.
fn hugging_face_cache(folder: &Path, content: &Content) -> PathBuf {
    let repository = folder.join("models--maker--tiny");
    let snapshot = repository.join("snapshots").join(&content.commit);
    for folder in [&snapshot, &repository.join("blobs"), &repository.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), &content.commit).unwrap();
    for (name, bytes) in &content.files {
        let blob = git_blob(bytes);
        fs::write(repository.join("blobs").join(&blob), bytes).unwrap();
        symlink(Path::new("../../blobs").join(blob), snapshot.join(name)).unwrap();
    }
    snapshot
}

/// The paths of everything below `folder`.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            paths.extend(self::paths(&entry.path()));
        }
        paths.push(entry.path());
    }
    paths.sort();
    paths
}

#[test]
fn a_model_in_the_hugging_face_cache_is_found_by_branch_and_by_commit() {
    let home = tempfile::tempdir().unwrap();
    let theirs = home.path().join("hub");
    let snapshot = hugging_face_cache(&theirs, &Content::new());
    let caches = ModelCaches { own: home.path().join("own"), hugging_face: Some(theirs.clone()) };
    let before = paths(&theirs);
    for revision in ["main", COMMIT] {
        let found = hub::find(&caches, MODEL, revision).unwrap();
        assert_eq!((&found.path, found.revision.as_str()), (&snapshot, COMMIT));
    }
    for (model, revision) in [(MODEL, "v2"), ("maker/other", "main")] {
        assert!(matches!(hub::find(&caches, model, revision), Err(HubError::NotPulled(_))));
    }
    assert_eq!(paths(&theirs), before);
    assert!(!caches.own.exists());
}

#[test]
fn an_incomplete_snapshot_of_the_hugging_face_cache_is_reported_with_the_file_that_it_lacks() {
    for file in [WEIGHTS, "tokenizer.json"] {
        let home = tempfile::tempdir().unwrap();
        let snapshot = hugging_face_cache(home.path(), &Content::new());
        // A link without its target is what an interrupted download or a partial clean-up leaves.
        fs::remove_file(fs::canonicalize(snapshot.join(file)).unwrap()).unwrap();
        let caches = ModelCaches { own: home.path().join("own"), hugging_face: Some(home.path().into()) };
        let error = hub::find(&caches, MODEL, "main").unwrap_err().to_string();
        assert!(
            error.contains(&format!("is incomplete, it lacks {file}: run camscribe pull {MODEL}")),
            "{error}"
        );
        assert!(error.contains(snapshot.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_pull_uses_the_hugging_face_cache_if_its_files_are_intact() {
    let content = Content::new();
    let server = server(&content, |_, _, _| None);
    let home = tempfile::tempdir().unwrap();
    let theirs = home.path().join("hub");
    let snapshot = hugging_face_cache(&theirs, &content);
    let before = paths(&theirs);
    let pull = || {
        let mut command = camscribe(&server.url(), home.path(), &["maker/tiny@v1"]);
        let (code, out, err) = output(command.env("HF_HUB_CACHE", &theirs));
        assert_eq!(code, Some(0), "{err}");
        PathBuf::from(out.trim())
    };
    assert_eq!(pull(), snapshot);
    assert_eq!(server.requests().len(), 1, "only the listing was requested");
    // The revision that was pulled is found from now on, although their cache does not know it.
    let caches = ModelCaches { own: home.path().join("camscribe"), hugging_face: Some(theirs.clone()) };
    assert_eq!(hub::find(&caches, MODEL, "v1").unwrap().path, snapshot);

    let weights = fs::canonicalize(snapshot.join(WEIGHTS)).unwrap();
    let mut damaged = content.weights().to_vec();
    damaged[7] ^= 1;
    fs::write(weights, damaged).unwrap();
    let pulled = pull();
    assert_ne!(pulled, snapshot);
    assert_eq!(fs::read(pulled.join(WEIGHTS)).unwrap(), content.weights());
    assert_eq!(hub::find(&caches, MODEL, "v1").unwrap().path, pulled);
    assert_eq!(paths(&theirs), before);
}
