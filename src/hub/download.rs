//! One file from the hub to the disk: resumed where it was cut off, tried again after a pause, and
//! given its name only when every byte hashes to what the hub had announced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::{Body, http::Response};

use super::{
    HubError,
    client::{Hub, ResumeAt, text},
    listing::{Hash, RemoteFile, check_status},
    pull::Progress,
};
use crate::retry::{Backoff, BackoffConfig, Jitter};

/// Why an attempt failed.
pub enum Failure {
    /// The next one may succeed; the server may have said how many seconds to wait.
    Passing { why: String, wait: Option<u64> },
    /// No other will.
    Final(HubError),
}

impl Failure {
    /// One that the server says nothing further about.
    pub fn passing(why: String) -> Self {
        Self::Passing { why, wait: None }
    }
}

/// Tries until it succeeds, fails for good, or brings nothing new too often in a row. `have` counts
/// what has come so far.
pub fn persist<T>(
    hub: &Hub,
    what: &str,
    progress: &mut dyn FnMut(Progress<'_>),
    have: impl Fn() -> u64,
    mut attempt: impl FnMut(&mut dyn FnMut(Progress<'_>)) -> Result<T, Failure>,
) -> Result<T, HubError> {
    let patience = &hub.patience;
    let mut backoff = Backoff::new(BackoffConfig {
        first: patience.first_pause,
        longest: patience.longest_pause,
        jitter: Jitter::HALF_TO_FULL,
    });
    let (mut most, mut tries) = (have(), 0);
    loop {
        let (why, wait) = match attempt(progress) {
            Ok(done) => return Ok(done),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing { why, wait }) => (why, wait),
        };
        let now = have();
        if now > most {
            (most, tries) = (now, 0);
            backoff.reset();
        }
        tries += 1;
        if tries >= patience.tries {
            let what = format!("{what} does not come from {} after {tries} tries", hub.name());
            return Err(HubError::Network { what, cause: why });
        }
        // The server may have said how long to wait.
        let pause = backoff.next_pause().max(wait.map_or(Duration::ZERO, Duration::from_secs));
        let pause = pause.min(patience.longest_pause);
        progress(Progress::Again { why: &why, pause });
        thread::sleep(pause);
    }
}

/// Brings `file` from `url` into `folder`, unless it is there already and right.
pub fn fetch(
    hub: &Hub,
    url: &str,
    file: &RemoteFile,
    folder: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), HubError> {
    let done = folder.join(&file.name);
    if length(&done) == Some(file.size)
        && matches(&done, file).map_err(|e| HubError::disk("read", &done, e))?
    {
        return Ok(());
    }
    let part = part_of(folder, file);
    progress(Progress::File { name: &file.name, size: file.size });
    let mut attempt = Attempt { hub, url, file, part: &part, etag: None };
    persist(hub, &file.name, progress, || length(&part).unwrap_or(0), |progress| attempt.run(progress))?;
    if !matches(&part, file).map_err(|e| HubError::disk("read", &part, e))? {
        fs::remove_file(&part).map_err(|e| HubError::disk("remove", &part, e))?;
        return Err(HubError::Damaged(format!(
            "{} came damaged: its hash is not the one that {} announced; it was deleted, run the same command again",
            file.name,
            hub.name()
        )));
    }
    let in_place = || {
        File::open(&part)?.sync_all()?;
        fs::rename(&part, &done)?;
        File::open(folder)?.sync_all()
    };
    in_place().map_err(|e| HubError::disk("write", &done, e))
}

/// Bytes of `file` that still have to come into `folder`.
pub fn missing(file: &RemoteFile, folder: &Path) -> u64 {
    if length(&folder.join(&file.name)) == Some(file.size) {
        return 0;
    }
    file.size.saturating_sub(length(&part_of(folder, file)).unwrap_or(0))
}

/// Named by the hash as well: what is left of a file that has changed on the hub is never resumed.
fn part_of(folder: &Path, file: &RemoteFile) -> PathBuf {
    folder.join(format!("{}.{}.part", file.name, &file.hash.digits()[..12]))
}

fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|m| m.len())
}

struct Attempt<'a> {
    hub: &'a Hub,
    url: &'a str,
    file: &'a RemoteFile,
    part: &'a Path,
    /// Of the answer that the bytes in `part` came with, if it is a strong one.
    etag: Option<String>,
}

impl Attempt<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), Failure> {
        let disk = |e| Failure::Final(HubError::disk("write", self.part, e));
        let part = OpenOptions::new().create(true).read(true).append(true).open(self.part).map_err(disk)?;
        let mut have = part.metadata().map_err(disk)?.len();
        if have > self.file.size {
            part.set_len(0).map_err(disk)?;
            have = 0;
        }
        if have == self.file.size {
            return Ok(());
        }
        let from = (have > 0).then_some(ResumeAt { byte: have, etag: self.etag.as_deref() });
        let answer = self.hub.get(self.url, from).map_err(Failure::passing)?;
        let resumes = have > 0 && answer.status() == 206 && self.goes_on_at(have, &answer);
        if have > 0 && !resumes {
            // The whole file comes instead, or the server cannot give what we asked for.
            part.set_len(0).map_err(disk)?;
            have = 0;
            if matches!(answer.status().as_u16(), 206 | 416) {
                self.etag = None;
                return Err(Failure::passing(format!("the server cannot go on with {}", self.file.name)));
            }
        }
        check_status(self.hub, &self.file.name, &answer)?;
        self.etag = text(answer.headers(), "etag").filter(|tag| tag.starts_with('"')).map(Into::into);
        self.take(answer, part, have, progress)
    }

    /// Whether a partial answer begins with byte `have` of a file as long as ours.
    fn goes_on_at(&self, have: u64, answer: &Response<Body>) -> bool {
        let range = text(answer.headers(), "content-range").and_then(|r| r.strip_prefix("bytes "));
        let Some((range, whole)) = range.and_then(|r| r.split_once('/')) else { return false };
        let begins = range.split('-').next().and_then(|first| first.parse().ok());
        begins == Some(have) && (whole == "*" || whole.parse() == Ok(self.file.size))
    }

    fn take(
        &self,
        answer: Response<Body>,
        mut part: File,
        mut have: u64,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Failure> {
        let name = &self.file.name;
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; 128 << 10];
        progress(Progress::Bytes(have));
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) if have == self.file.size => return Ok(()),
                Ok(0) => return Err(Failure::passing(format!("{name} was cut off at byte {have}"))),
                Ok(n) => n,
                Err(_) if have == self.file.size => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::passing(format!("{name} broke off at byte {have}: {e}"))),
            };
            have += n as u64;
            if have > self.file.size {
                drop(part);
                let _ = fs::remove_file(self.part);
                let size = self.file.size;
                return Err(Failure::Final(HubError::Damaged(format!(
                    "{name} is longer than the {size} bytes that the hub announced: it was deleted"
                ))));
            }
            part.write_all(&buffer[..n])
                .map_err(|e| Failure::Final(HubError::disk("write", self.part, e)))?;
            progress(Progress::Bytes(have));
        }
    }
}

/// Whether the bytes in `path` hash to what the hub announced.
fn matches(path: &Path, file: &RemoteFile) -> io::Result<bool> {
    let digits = match &file.hash {
        Hash::Sha256(_) => hash(Sha256::new(), path)?,
        Hash::GitBlob(_) => hash(Sha1::new_with_prefix(format!("blob {}\0", file.size)), path)?,
    };
    Ok(digits == file.hash.digits())
}

fn hash<D: Digest>(mut digest: D, path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
