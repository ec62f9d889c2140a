//! The layer of a TOML file: each value with its line. Unknown sections and keys, and values that no
//! key can have, are errors here; the types of the others are checked after the merge.

use std::{io, path::Path};

use ::config::{Value, ValueKind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::{Diagnostics, Location},
    hints,
    key::Key,
    layer::Layer,
    schema::{self, Group, SectionSchema},
    text_file, value,
};

/// The largest file that is read: far more than any real configuration needs.
const MAX_BYTES: u64 = 1 << 20;

/// Reads `file`. A file that does not exist sets nothing, and is an error only if it is `required`.
/// `None`: the file cannot be read or is not TOML, which is in `diagnostics`.
pub fn read(file: &Path, required: bool, diagnostics: &mut Diagnostics) -> Option<Layer> {
    let text = match text_file::read(file, MAX_BYTES) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !required => return Some(Layer::default()),
        Err(e) => {
            let location = Location::WholeFile { file: file.display().to_string() };
            diagnostics.error(&location, format!("cannot be read: {e}"));
            return None;
        }
    };
    let mut reader =
        Reader { file: file.display().to_string(), text: &text, layer: Layer::default(), diagnostics };
    match DeTable::parse(&text) {
        Ok(root) => reader.root(root.get_ref()),
        Err(e) => {
            reader.syntax_error(&e);
            return None;
        }
    }
    Some(reader.layer)
}

/// Reads the tables of one file into a layer.
struct Reader<'a> {
    file: String,
    text: &'a str,
    layer: Layer,
    diagnostics: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            let path = name.get_ref().as_ref();
            let location = self.location(name.span().start, path);
            match (value.get_ref().as_table(), schema::find(path), schema::group(path)) {
                (None, ..) => self.diagnostics.error(&location, hints::not_a_section(path)),
                (Some(table), Some(section), _) => self.section(path, table, section),
                (Some(table), None, Some(group)) => self.group(path, table, group),
                (Some(_), None, None) => self.diagnostics.error(&location, hints::unknown_section(path)),
            }
        }
    }

    /// Reads the sections of the group at `path`, such as `cameras`.
    fn group(&mut self, path: &str, table: &DeTable<'_>, group: &Group) {
        for (name, value) in table {
            let written = name.get_ref().as_ref();
            let path_of_section = format!("{path}.{written}");
            let location = self.location(name.span().start, &path_of_section);
            match (group.check_name(written), value.get_ref().as_table()) {
                (Err(why), _) => self.diagnostics.error(&location, why),
                (Ok(()), _) if group.section.is_inline => {
                    if group.section.keys.iter().all(|key| self.key(&path_of_section, key, value, &location))
                    {
                        self.layer.declare(path_of_section);
                    }
                }
                (Ok(()), None) => {
                    self.diagnostics.error(&location, hints::not_in_group(path, written, group));
                }
                (Ok(()), Some(table)) => {
                    self.section(&path_of_section, table, &group.section);
                    self.layer.declare(path_of_section);
                }
            }
        }
    }

    /// Reads the keys of the section at `path`, and the groups in it.
    fn section(&mut self, path: &str, table: &DeTable<'_>, section: &SectionSchema) {
        for (name, value) in table {
            let written = name.get_ref().as_ref();
            let path_of_key = format!("{path}.{written}");
            let location = self.location(name.span().start, &path_of_key);
            if let Some(group) = section.groups.iter().find(|group| group.name == written) {
                match value.get_ref().as_table() {
                    Some(table) => self.group(&path_of_key, table, group),
                    None => self.diagnostics.error(&location, hints::not_a_group(group)),
                }
                continue;
            }
            let Some(key) = section.find(written) else {
                self.diagnostics.error(&location, hints::unknown_key(path, written, section));
                continue;
            };
            self.key(path, key, value, &location);
        }
    }

    /// Reads a value of the section at `path`. Returns whether some key can have such a value.
    fn key(&mut self, path: &str, key: &Key, value: &Spanned<DeValue<'_>>, location: &Location) -> bool {
        let value = value_of(value.get_ref(), location);
        let value =
            value.map_err(|found| self.diagnostics.error(location, value::mismatch(key.kind, &found)));
        value.map(|value| self.layer.set(path, key.name, value)).is_ok()
    }

    fn syntax_error(&mut self, error: &toml::de::Error) {
        let location = self.location(error.span().map_or(0, |span| span.start), "");
        let Location::File { line, .. } = location else { return };
        let header = self.text.lines().nth(line - 1).and_then(header);
        let header = header.map_or_else(String::new, |header| format!(": {header}"));
        let message = error.message().replace('\n', ", ");
        self.diagnostics.error(&location, format!("this is not TOML: {message}{header}"));
    }

    /// The location of the byte `offset`, where the key or section `key` is written.
    fn location(&self, offset: usize, key: &str) -> Location {
        let line = 1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        Location::File { file: self.file.clone(), line, key: key.into() }
    }
}

/// The section header at the start of a line, if it may be shown: any other text may hold a secret.
fn header(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let header = &line[..=line.find(']')?];
    let harmless = |c: char| c.is_ascii_alphanumeric() || "[]._- ".contains(c);
    (header.starts_with('[') && header.chars().all(harmless)).then_some(header)
}

/// The value in the types of the crate `config`, nothing coerced. `Err`: the words for a value that
/// those types do not have, and that no key takes.
fn value_of(value: &DeValue<'_>, location: &Location) -> Result<Value, String> {
    let kind = match value {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(number) => {
            let (digits, radix) = (number.as_str(), number.radix());
            match (i64::from_str_radix(digits, radix), i128::from_str_radix(digits, radix)) {
                (Ok(number), _) => ValueKind::I64(number),
                (Err(_), Ok(number)) => ValueKind::I128(number),
                // The number may be a password in a wrong place: it is not repeated.
                (Err(_), Err(_)) => return Err("a number with too many digits".into()),
            }
        }
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => ValueKind::Float(number),
            Err(_) => return Err(format!("the number {number}")),
        },
        DeValue::Boolean(yes) => ValueKind::Boolean(*yes),
        // No key takes other elements than texts, so it does not matter what those are.
        DeValue::Array(elements) => {
            let kind = |element: &DeValue<'_>| match element {
                DeValue::String(text) => ValueKind::String(text.to_string()),
                _ => ValueKind::Nil,
            };
            ValueKind::Array(elements.iter().map(|element| location.value(kind(element.get_ref()))).collect())
        }
        DeValue::Datetime(_) => return Err("a date".into()),
        DeValue::Table(_) => return Err("a section".into()),
    };
    Ok(location.value(kind))
}
