//! The two places that a configuration is written in, as one set of raw values: the file, then the
//! environment over it. Each value remembers where it was written; keys that do not exist and
//! sections of the wrong shape end here.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{self, Read},
    path::Path,
};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    keys::{self, Key},
    mistake::{Place, Report},
    value::Raw,
};
use crate::camera::CameraId;

/// Far above any real configuration, far below what would hurt.
const MAX_BYTES: u64 = 1 << 20;

/// What the names of our environment variables start with.
const PREFIX: &str = "CAMSCRIBE__";

/// A value as written.
#[derive(Debug)]
pub struct Leaf {
    /// Not yet checked against the key.
    pub raw: Raw,
    /// Where it was written.
    pub place: Place,
}

/// The values of one section, by key.
pub type Leaves = BTreeMap<&'static str, Leaf>;

/// Everything that was written, by section.
#[derive(Debug, Default)]
pub struct Layers {
    /// All sections but the cameras.
    pub sections: BTreeMap<&'static str, Leaves>,
    /// The cameras that file or environment name.
    pub cameras: BTreeMap<CameraId, Leaves>,
}

impl Layers {
    /// Reads `file`, then the environment over it. A file that does not exist is a mistake only if
    /// it is `required`.
    pub fn read(file: &Path, required: bool, report: &mut Report) -> Self {
        let mut layers = Self::default();
        match text_of(file) {
            Ok(text) => match DeTable::parse(&text) {
                Ok(table) => layers.add_file(&text, table.get_ref(), report),
                Err(e) => {
                    let line = line_of(&text, e.span().map_or(0, |s| s.start));
                    let message = e.message().replace('\n', ", ");
                    let header = text.lines().nth(line - 1).and_then(header);
                    let header = header.map_or_else(String::new, |header| format!(": {header}"));
                    report.mistake(
                        &Place::File { line, key: String::new() },
                        format!("this is not TOML: {message}{header}"),
                    );
                    return layers;
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound && !required => {}
            Err(e) => {
                report.mistake(&Place::Nowhere { key: String::new() }, format!("cannot be read: {e}"));
                return layers;
            }
        }
        layers.add_environment(report);
        layers
    }

    fn add_file(&mut self, text: &str, root: &DeTable<'_>, report: &mut Report) {
        for (name, value) in root {
            let path = name.get_ref().as_ref();
            let place = Place::File { line: line_of(text, name.span().start), key: path.into() };
            let section = keys::SECTIONS.iter().find(|(known, _)| *known == path);
            let Some(table) = value.get_ref().as_table() else {
                report.mistake(&place, not_a_section(path, section.is_some() || path == keys::CAMERAS));
                continue;
            };
            if let Some((known, keys)) = section {
                let leaves = self.sections.entry(known).or_default();
                add_table(text, path, table, keys, leaves, report);
            } else if path == keys::CAMERAS {
                self.add_cameras(text, table, report);
            } else {
                report.mistake(&place, unknown_section(path));
            }
        }
    }

    fn add_cameras(&mut self, text: &str, cameras: &DeTable<'_>, report: &mut Report) {
        for (name, value) in cameras {
            let id = name.get_ref().as_ref();
            let path = format!("{}.{id}", keys::CAMERAS);
            let place = Place::File { line: line_of(text, name.span().start), key: path.clone() };
            let camera = match id.parse::<CameraId>() {
                Ok(camera) => camera,
                Err(e) => {
                    report.mistake(&place, e.to_string());
                    continue;
                }
            };
            match value.get_ref().as_table() {
                Some(table) => {
                    let leaves = self.cameras.entry(camera).or_default();
                    add_table(text, &path, table, &keys::camera(), leaves, report);
                }
                None if find(&keys::camera(), id).is_some() => report.mistake(
                    &place,
                    format!(
                        "stands outside its camera: give that a name, and write [cameras.porch] above {id}"
                    ),
                ),
                None => report
                    .mistake(&place, format!("a camera is a section: write [{path}] and its keys under it")),
            }
        }
    }

    fn add_environment(&mut self, report: &mut Report) {
        for (name, value) in env::vars_os() {
            let Some(variable) = name.to_str().filter(|n| n.starts_with(PREFIX)) else {
                warn_of_one_underscore(&name.to_string_lossy(), report);
                continue;
            };
            let place = Place::Environment { variable: variable.into() };
            let path = variable[PREFIX.len()..].to_ascii_lowercase();
            let Some(value) = value.to_str() else {
                report.mistake(&place, "is not UTF-8 text");
                continue;
            };
            match self.slot(&path) {
                Ok((leaves, name)) => {
                    leaves.insert(name, Leaf { raw: Raw::Environment(value.into()), place });
                }
                Err(why) => report.mistake(&place, why),
            }
        }
    }

    /// The place that the rest of a variable's name, such as `cameras__porch__uri`, stands for.
    fn slot(&mut self, path: &str) -> Result<(&mut Leaves, &'static str), String> {
        let (section, rest) = path
            .split_once("__")
            .ok_or("name section and key, joined by two underscores: CAMSCRIBE__SECTION__KEY")?;
        if let Some((known, keys)) = keys::SECTIONS.iter().find(|(known, _)| *known == section) {
            let key = find(keys, rest).ok_or_else(|| unknown_key(section, rest, keys))?;
            return Ok((self.sections.entry(known).or_default(), key.name));
        }
        if section != keys::CAMERAS {
            return Err(unknown_section(section));
        }
        let (id, key) = rest
            .rsplit_once("__")
            .ok_or("name camera and key, joined by two underscores: CAMSCRIBE__CAMERAS__PORCH__URI")?;
        let id = self.camera_named(id).map_err(|e| e.to_string())?;
        let keys = keys::camera();
        let key = find(&keys, key).ok_or_else(|| unknown_key(&format!("cameras.{id}"), key, &keys))?;
        Ok((self.cameras.entry(id).or_default(), key.name))
    }

    /// A variable's name cannot hold `-`: FRONT_DOOR means the camera `front-door` when the file
    /// has that one and no `front_door`.
    fn camera_named(&self, name: &str) -> Result<CameraId, crate::camera::BadCameraId> {
        let id: CameraId = name.parse()?;
        let same = |known: &&CameraId| known.as_str().replace('-', "_") == name;
        if self.cameras.contains_key(&id) {
            return Ok(id);
        }
        Ok(self.cameras.keys().find(same).cloned().unwrap_or(id))
    }
}

/// The section that a line begins, if it may be shown: anything else may hold a secret.
fn header(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let header = &line[..=line.find(']')?];
    let harmless = |c: char| c.is_ascii_alphanumeric() || "[]._- ".contains(c);
    (header.starts_with('[') && header.chars().all(harmless)).then_some(header)
}

/// Whoever writes CAMSCRIBE_MQTT_URL means a key of ours.
fn warn_of_one_underscore(variable: &str, report: &mut Report) {
    let Some(rest) = variable.strip_prefix("CAMSCRIBE_") else { return };
    let section = rest.split('_').next().unwrap_or_default().to_ascii_lowercase();
    if section == keys::CAMERAS || keys::SECTIONS.iter().any(|(known, _)| *known == section) {
        report.warning(
            &Place::Environment { variable: variable.into() },
            "is not read: its parts are joined by two underscores, as in CAMSCRIBE__MQTT__URL",
        );
    }
}

fn add_table(
    text: &str,
    section: &str,
    table: &DeTable<'_>,
    keys: &[Key],
    leaves: &mut Leaves,
    report: &mut Report,
) {
    for (name, value) in table {
        let written = name.get_ref().as_ref();
        let place =
            Place::File { line: line_of(text, name.span().start), key: format!("{section}.{written}") };
        match find(keys, written) {
            Some(key) => {
                leaves.insert(key.name, Leaf { raw: raw(value), place });
            }
            None => report.mistake(&place, unknown_key(section, written, keys)),
        }
    }
}

fn raw(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Int(number),
            Err(_) => Raw::Other(format!("the number {number}")),
        },
        DeValue::Float(number) => Raw::Other(format!("the number {number}")),
        DeValue::Boolean(yes) => Raw::Bool(*yes),
        DeValue::Datetime(_) => Raw::Other("a date".into()),
        DeValue::Array(_) => Raw::Other("a list".into()),
        DeValue::Table(_) => Raw::Other("a section".into()),
    }
}

fn find<'k>(keys: &'k [Key], name: &str) -> Option<&'k Key> {
    keys.iter().find(|key| key.name == name)
}

fn text_of(file: &Path) -> io::Result<String> {
    let opened = File::open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    opened.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Lines count from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

fn not_a_section(path: &str, known: bool) -> String {
    match path {
        keys::CAMERAS => {
            "each camera is a section of its own: write [cameras.<id>] and its keys under it".into()
        }
        _ if known => format!("is a section: write [{path}] and its keys under it"),
        _ => match home_of(path) {
            Some(section) => format!("stands outside its section: write it under {section}"),
            None => unknown_section(path),
        },
    }
}

fn unknown_section(path: &str) -> String {
    if let Some(hint) = keys::not_here(path) {
        return hint.into();
    }
    let known = || keys::SECTIONS.iter().map(|(name, _)| *name).chain([keys::CAMERAS]);
    match nearest(path, known()) {
        Some(near) => format!("there is no such section; did you mean {near}?"),
        None => format!("there is no such section; there are {}", known().collect::<Vec<_>>().join(", ")),
    }
}

fn unknown_key(section: &str, name: &str, keys: &[Key]) -> String {
    if let Some(hint) = keys::not_here(&format!("{section}.{name}")) {
        return hint.into();
    }
    let known = || keys.iter().map(|key| key.name);
    match (nearest(name, known()), home_of(name)) {
        (Some(near), _) => format!("there is no such key; did you mean {near}?"),
        (None, Some(home)) => format!("there is no such key in [{section}]; it belongs under {home}"),
        (None, None) => {
            format!("there is no such key; [{section}] has {}", known().collect::<Vec<_>>().join(", "))
        }
    }
}

/// The section that a key of this name belongs to.
fn home_of(name: &str) -> Option<String> {
    let homes = keys::SECTIONS.iter().filter(|(_, keys)| find(keys, name).is_some());
    let homes: Vec<_> = homes.map(|(section, _)| format!("[{section}]")).collect();
    match (name == keys::URI.name, homes.is_empty()) {
        (true, _) => Some("[cameras.<id>]".into()),
        (false, true) => None,
        (false, false) => Some(homes.join(" or ")),
    }
}

fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|k| (strsim::normalized_damerau_levenshtein(name, k), k))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
