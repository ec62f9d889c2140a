//! What to do about a section or key that does not exist: the words of the error message.

use super::{
    layer::Declared,
    schema::{self, Group, SectionSchema},
};

/// How alike two names must be, from 0 to 1, for one to be suggested for the other.
const MIN_LIKENESS: f64 = 0.6;

/// The text for a top-level name that is no section.
pub fn unknown_section(name: &str) -> String {
    if let Some(hint) = hint_for(name) {
        return hint.into();
    }
    let groups = || schema::GROUPS.iter().map(|group| group.name);
    let known = || schema::SECTIONS.iter().map(|section| section.name).chain(groups());
    match nearest(name, known()) {
        Some(near) => format!("there is no such section; did you mean {near}?"),
        None => format!("there is no such section; there are {}", known().collect::<Vec<_>>().join(", ")),
    }
}

/// The text for a top-level value that is no table, though every section is one.
pub fn not_a_section(name: &str) -> String {
    if let Some(group) = schema::group(name) {
        return not_a_group(group);
    }
    if schema::find(name).is_some() {
        return format!("is a section: write [{name}] and its keys under it");
    }
    match sections_with(name) {
        Some(sections) => format!("stands outside its section: write it under {sections}"),
        None => unknown_section(name),
    }
}

/// The text for a group that is no table.
pub fn not_a_group(group: &Group) -> String {
    let Group { name, noun, example, section, .. } = group;
    if section.is_inline {
        return format!("each {noun} has a name: write {name}.{example} = \"…\"");
    }
    format!("each {noun} is a section of its own: write [{}] and its keys under it", section.name)
}

/// The text for a value in the group at `path` that is no table: `name` stands for a section, or for a key
/// that lacks one.
pub fn not_in_group(path: &str, name: &str, group: &Group) -> String {
    let Group { noun, example, section, .. } = group;
    if section.find(name).is_some() {
        return format!(
            "stands outside its {noun}: give that a name, and write [{path}.{example}] above {name}"
        );
    }
    format!("each {noun} is a section: write [{path}.{name}] and its keys under it")
}

/// The text for a key that the section `path` does not have.
pub fn unknown_key(path: &str, name: &str, section: &SectionSchema) -> String {
    if let Some(hint) = hint_for(&format!("{path}.{name}")) {
        return hint.into();
    }
    let groups = || section.groups.iter().map(|group| group.name);
    let known = || section.keys.iter().map(|key| key.name).chain(groups());
    match (nearest(name, known()), sections_with(name)) {
        (Some(near), _) => format!("there is no such key; did you mean {near}?"),
        (None, Some(sections)) => format!("there is no such key in [{path}]; it belongs under {sections}"),
        (None, None) => {
            format!("there is no such key; [{path}] has {}", known().collect::<Vec<_>>().join(", "))
        }
    }
}

/// The text for a variable that sets a key of the section `name`, which is none of those that are `known` in the
/// group at `path`.
pub fn not_declared(path: &str, name: &str, group: &Group, known: &Declared) -> String {
    let Group { noun, required, .. } = group;
    let wanted =
        format!("write [{path}.{name}] into the file, or state its {required} in the environment, too");
    match nearest(name, known.names(path)) {
        Some(near) => format!("there is no {noun} {name}; did you mean {near}? If not, {wanted}"),
        None => format!("there is no {noun} {name}: {wanted}"),
    }
}

/// The text for alerts outside a camera.
const EACH_CAMERA_HAS_ALERTS: &str =
    "each camera has alerts of its own: write [cameras.<id>.alerts.<name>] and their keys under it";

/// The text for masks outside a camera.
const EACH_CAMERA_HAS_MASKS: &str =
    "each camera has masks of its own: write masks.<name> = \"…\" under [cameras.<id>]";

/// The text for a key or section that people look for and that does not exist on purpose.
fn hint_for(path: &str) -> Option<&'static str> {
    match path.strip_prefix(schema::DEFAULTS) {
        Some(".uri") => return Some("each camera needs a uri of its own: write it under [cameras.<id>]"),
        Some(".name") => return Some("each camera has a name of its own: write it under [cameras.<id>]"),
        Some(".crop") => return Some("each camera has a crop of its own: write it under [cameras.<id>]"),
        Some(".masks") => return Some(EACH_CAMERA_HAS_MASKS),
        Some(".alerts") => return Some(EACH_CAMERA_HAS_ALERTS),
        _ => {}
    }
    if path == schema::ALERTS.name {
        return Some(EACH_CAMERA_HAS_ALERTS);
    }
    if path == schema::MASKS.name {
        return Some(EACH_CAMERA_HAS_MASKS);
    }
    (path.rsplit('.').next() == Some("password")).then_some(
        "passwords do not stand in the configuration: put it into a file of its own, readable only for \
         camscribe, and name that file with password_file",
    )
}

/// The sections that have a key of this name, such as `[mqtt] or [defaults]`.
fn sections_with(name: &str) -> Option<String> {
    let sections = schema::all().filter(|section| section.find(name).is_some());
    let sections: Vec<_> = sections.map(|section| format!("[{}]", section.name)).collect();
    (!sections.is_empty()).then(|| sections.join(" or "))
}

/// The known name that is most like `name`, if one is like it.
fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
