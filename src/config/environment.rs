//! The layer of the environment: variables named `CAMSCRIBE__SECTION__KEY`. Variables that name no
//! section or key of the schema are errors here; values are text, which is read by each key's type
//! after the merge.

use std::env;

use ::config::Value;

use super::{
    diagnostic::{Diagnostics, Location},
    hints,
    layer::{Declared, Layer},
    schema::{self, Group},
};

/// What the names of our variables begin with.
const PREFIX: &str = "CAMSCRIBE__";
/// What joins the parts of a name.
const SEPARATOR: &str = "__";

/// Reads all variables of this process. `known`: the sections that lower layers declare.
pub fn read(known: &Declared, diagnostics: &mut Diagnostics) -> Layer {
    let mut layer = Layer::default();
    let known = with_declared(known.clone());
    for (name, value) in env::vars_os() {
        let Some(variable) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            warn_of_one_underscore(&name.to_string_lossy(), diagnostics);
            continue;
        };
        let location = Location::Environment { variable: variable.into() };
        let Some(value) = value.to_str() else {
            diagnostics.error(&location, "is not UTF-8 text");
            continue;
        };
        if let Err(why) = set(&mut layer, &path_of(variable), location.value(value), &known) {
            diagnostics.error(&location, why);
        }
    }
    layer
}

/// The name of a variable of ours without the prefix, in lower case, such as `cameras__porch__uri`.
fn path_of(variable: &str) -> String {
    variable[PREFIX.len()..].to_ascii_lowercase()
}

/// `known`, and the sections of which variables set the required key, so that no file need declare them.
fn with_declared(mut known: Declared) -> Declared {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let paths: Vec<_> = names.filter(|name| name.starts_with(PREFIX)).map(|name| path_of(&name)).collect();
    let keys: Vec<_> = paths.iter().filter_map(|path| NamedKey::find(path)?.ok()).collect();
    // The sections in a section come after it. A name that means a known section declares no other one.
    for depth in 1..=2 {
        let of_depth = keys.iter().filter(|key| key.sections.len() == depth);
        let paths: Vec<_> = of_depth.filter_map(|key| key.declares(&known)).collect();
        paths.into_iter().for_each(|path| known.add(path));
    }
    known
}

/// Sets the key that the variable of this [path](path_of) names. `Err`: why it names no key.
fn set(layer: &mut Layer, path: &str, value: Value, known: &Declared) -> Result<(), String> {
    if let Some(key) = NamedKey::find(path) {
        return key?.set(layer, value, known);
    }
    let (section, rest) = path
        .split_once(SEPARATOR)
        .ok_or("name section and key, joined by two underscores: CAMSCRIBE__SECTION__KEY")?;
    let schema = schema::find(section).ok_or_else(|| hints::unknown_section(section))?;
    let key = schema.find(rest).ok_or_else(|| hints::unknown_key(section, rest, schema))?;
    layer.set(section, key.name, value);
    Ok(())
}

/// A key of a section that people name, as a variable names it: `cameras__porch__alerts__parcel__on`.
#[derive(Debug)]
struct NamedKey<'a> {
    /// The section, behind those that it is in: `porch` of the cameras, `parcel` of the alerts.
    sections: Vec<(&'static Group, &'a str)>,
    /// Perhaps none of the section's keys.
    key: &'a str,
}

impl<'a> NamedKey<'a> {
    /// The key that the variable of this [path](path_of) names. `None`: it is of no group. `Err`: names are missing.
    fn find(path: &'a str) -> Option<Result<Self, String>> {
        let (group, mut rest) = path.split_once(SEPARATOR)?;
        let mut group = schema::group(group)?;
        let mut sections = Vec::new();
        while let Some((inner, name, behind)) = group.section.groups.iter().find_map(|inner| {
            let (name, behind) = rest.split_once(&format!("{SEPARATOR}{}{SEPARATOR}", inner.name))?;
            Some((inner, name, behind))
        }) {
            sections.push((group, name));
            (group, rest) = (inner, behind);
        }
        if group.section.is_inline {
            sections.push((group, rest));
            return Some(Ok(Self { sections, key: group.required }));
        }
        let Some((name, key)) = rest.rsplit_once(SEPARATOR) else {
            let Group { noun, example, required, .. } = group;
            let before = path.strip_suffix(rest).unwrap_or_default();
            let example = format!("{before}{example}{SEPARATOR}{required}").to_ascii_uppercase();
            return Some(Err(format!("name {noun} and key, joined by two underscores: {PREFIX}{example}")));
        };
        sections.push((group, name));
        Some(Ok(Self { sections, key }))
    }

    /// The sections, resolved. `Err`: what is wrong with a name.
    ///
    /// A variable's name cannot hold `-`: `front_door` means the known `front-door`, unless there is a `front_door`.
    fn resolve(&self, known: &Declared) -> Result<Vec<Resolved<'a>>, String> {
        let mut resolved: Vec<Resolved<'a>> = Vec::new();
        for &(group, name) in &self.sections {
            group.check_name(name)?;
            let outer = resolved.last().map(|outer| format!("{}.", outer.path)).unwrap_or_default();
            let table = format!("{outer}{}", group.name);
            let is_same = |known: &&str| known.replace('-', "_") == name;
            let path = format!("{table}.{name}");
            let same = || known.names(&table).find(is_same).map(|same| format!("{table}.{same}"));
            let path = if known.contains(&path) { path } else { same().unwrap_or(path) };
            resolved.push(Resolved { group, table, name, path });
        }
        Ok(resolved)
    }

    /// The path of the section that it declares, if it does.
    fn declares(&self, known: &Declared) -> Option<String> {
        let section = self.resolve(known).ok()?.pop()?;
        (section.group.required == self.key).then_some(section.path)
    }

    fn set(&self, layer: &mut Layer, value: Value, known: &Declared) -> Result<(), String> {
        let sections = self.resolve(known)?;
        let Some(Resolved { group, path, .. }) = sections.last() else { return Ok(()) };
        let schema = &group.section;
        let key = schema.find(self.key).ok_or_else(|| hints::unknown_key(path, self.key, schema))?;
        if let Some(missing) = sections.iter().find(|section| !known.contains(&section.path)) {
            return Err(hints::not_declared(&missing.table, missing.name, missing.group, known));
        }
        layer.set(path, key.name, value);
        sections.into_iter().for_each(|section| layer.declare(section.path));
        Ok(())
    }
}

/// A section that people name, as a variable names it.
#[derive(Debug)]
struct Resolved<'a> {
    group: &'static Group,
    /// The path of the group, such as `cameras.front-door.alerts`.
    table: String,
    /// As written.
    name: &'a str,
    /// The path of the section.
    path: String,
}

/// Warns of a variable such as `CAMSCRIBE_MQTT_URL`, which was meant for us and is not read.
fn warn_of_one_underscore(variable: &str, diagnostics: &mut Diagnostics) {
    let Some(rest) = variable.strip_prefix("CAMSCRIBE_") else { return };
    let section = rest.split('_').next().unwrap_or_default().to_ascii_lowercase();
    if schema::group(&section).is_some() || schema::find(&section).is_some() {
        diagnostics.warning(
            &Location::Environment { variable: variable.into() },
            "is not read: its parts are joined by two underscores, as in CAMSCRIBE__MQTT__URL",
        );
    }
}
