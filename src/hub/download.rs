//! One file from the hub to the disk: resumed where it was cut off, tried again after a pause, and given
//! its final name only when its content has the hash that the hub had announced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::{Body, http::Response};

use super::{
    client::{HubClient, ResumeAt, header_text},
    error::HubError,
    listing::{Hash, RemoteFile},
    progress::PullProgress,
    retry::Failure,
};

/// Downloads `file` from `url` into `folder`, unless it is there already with the right content.
///
/// # Errors
/// When it cannot be downloaded or written, or its content has another hash.
pub fn fetch(
    hub: &HubClient,
    url: &str,
    file: &RemoteFile,
    folder: &Path,
    progress: &mut dyn FnMut(PullProgress<'_>),
) -> Result<(), HubError> {
    let done = folder.join(&file.name);
    if is_intact(&done, file)? {
        return Ok(());
    }
    let part = part_of(folder, file);
    progress(PullProgress::File { name: &file.name, size: file.size });
    let mut attempt = Attempt { hub, url, file, part: &part, etag: None };
    hub.retry(&file.name, progress, || length(&part).unwrap_or(0), |progress| attempt.run(progress))?;
    if !is_intact(&part, file)? {
        fs::remove_file(&part).map_err(|e| HubError::disk("remove", &part, e))?;
        return Err(HubError::Damaged(format!(
            "{} is damaged: its hash is not the one that {} announced; it was deleted, run the same command again",
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

/// Returns how many bytes of `file` are still to be downloaded into `folder`.
pub fn missing_bytes(file: &RemoteFile, folder: &Path) -> u64 {
    if length(&folder.join(&file.name)) == Some(file.size) {
        return 0;
    }
    file.size.saturating_sub(length(&part_of(folder, file)).unwrap_or(0))
}

/// The file for the bytes that have arrived. Its name holds the hash, so that the rest of a file that has
/// changed on the hub is never appended to it.
fn part_of(folder: &Path, file: &RemoteFile) -> PathBuf {
    folder.join(format!("{}.{}.part", file.name, &file.hash.digits()[..12]))
}

/// The length of a regular file.
fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|m| m.len())
}

/// The download of one file, over several attempts.
struct Attempt<'a> {
    hub: &'a HubClient,
    url: &'a str,
    file: &'a RemoteFile,
    part: &'a Path,
    /// The ETag of the answer that the bytes in `part` came with, if it is a strong one.
    etag: Option<String>,
}

impl Attempt<'_> {
    /// Requests what is missing and appends it to `part`.
    fn run(&mut self, progress: &mut dyn FnMut(PullProgress<'_>)) -> Result<(), Failure> {
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
        let answer = self.hub.get(self.url, from).map_err(Failure::transient)?;
        let resumes = have > 0 && answer.status() == 206 && self.continues_at(have, &answer);
        if have > 0 && !resumes {
            // The server sends the whole file instead, or cannot send the range.
            part.set_len(0).map_err(disk)?;
            have = 0;
            if matches!(answer.status().as_u16(), 206 | 416) {
                self.etag = None;
                return Err(Failure::transient(format!("the server cannot resume {}", self.file.name)));
            }
        }
        self.hub.check_status(&self.file.name, &answer)?;
        self.etag = header_text(answer.headers(), "etag").filter(|tag| tag.starts_with('"')).map(Into::into);
        self.receive(answer, part, have, progress)
    }

    /// Whether a partial answer begins at byte `have` of a file of the announced size.
    fn continues_at(&self, have: u64, answer: &Response<Body>) -> bool {
        let range = header_text(answer.headers(), "content-range").and_then(|r| r.strip_prefix("bytes "));
        let Some((range, whole)) = range.and_then(|r| r.split_once('/')) else { return false };
        let begins = range.split('-').next().and_then(|first| first.parse().ok());
        begins == Some(have) && (whole == "*" || whole.parse() == Ok(self.file.size))
    }

    /// Appends the body of an answer to `part`, which holds `have` bytes.
    fn receive(
        &self,
        answer: Response<Body>,
        mut part: File,
        mut have: u64,
        progress: &mut dyn FnMut(PullProgress<'_>),
    ) -> Result<(), Failure> {
        let name = &self.file.name;
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; 128 << 10];
        progress(PullProgress::Bytes(have));
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) if have == self.file.size => return Ok(()),
                Ok(0) => return Err(Failure::transient(format!("{name} was cut off at byte {have}"))),
                Ok(n) => n,
                Err(_) if have == self.file.size => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::transient(format!("{name} broke off at byte {have}: {e}"))),
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
            progress(PullProgress::Bytes(have));
        }
    }
}

/// Whether `path` has the size and hash that the hub announced of `file`.
///
/// # Errors
/// When it is there and cannot be read.
pub fn is_intact(path: &Path, file: &RemoteFile) -> Result<bool, HubError> {
    if length(path) != Some(file.size) {
        return Ok(false);
    }
    let digits = match &file.hash {
        Hash::Sha256(_) => hash(Sha256::new(), path),
        Hash::GitBlob(_) => hash(Sha1::new_with_prefix(format!("blob {}\0", file.size)), path),
    };
    Ok(digits.map_err(|e| HubError::disk("read", path, e))? == file.hash.digits())
}

/// The digest of a file's content, in lower-case hexadecimal digits.
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
