//! The import rules of the crate (`docs/architecture.md`), as functions from a [`Source`] to what breaks
//! them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::source::{Reference, Source, Target};

/// Crates that only some folders may name. A crate that ends in `*` stands for every crate that begins so; a `*`
/// in a folder stands for any one folder.
pub const SEALED: &[(&str, &[&str])] = &[
    ("gstreamer*", &["capture/"]),
    ("cudarc", &["nn/"]),
    ("candle_*", &["nn/", "describe/*/"]),
    ("rumqttc", &["publish/mqtt/"]),
    ("rusqlite", &["history/", "publish/outbox/", "sqlite/"]),
    ("axum", &["http/"]),
    ("hyper*", &["http/"]),
];

/// The modules directly below the crate, from the lowest layer to the highest. A module imports itself and
/// modules of lower layers only, so that those of one layer never import each other.
pub const LAYERS: &[&[&str]] = &[
    &[
        "alert",
        "camera",
        "decision",
        "device",
        "heartbeat",
        "interval",
        "json_input",
        "logging",
        "memory",
        "ownership",
        "plural",
        "resize",
        "retry",
        "tls",
        "view",
    ],
    &["calibration", "frame", "hub", "lifecycle", "shutdown", "sqlite"],
    &["prompt_spec"],
    &["clip", "config", "event", "look_back"],
    &["answer", "camera_ask", "gate", "metrics", "nn", "request", "runtime_settings"],
    &["chat_format", "image_file", "queue"],
    &["capture", "describe", "history", "http", "publish"],
    &["bench", "events"],
    &["app"],
    &["cli"],
];

/// Returns each circle of files that import each other, once, with the lines that close it.
pub fn circles(source: &Source) -> Vec<String> {
    let mut edges: BTreeMap<&str, BTreeMap<&str, &Reference>> = BTreeMap::new();
    for reference in &source.references {
        if let Target::File(to) = &reference.to {
            edges.entry(&reference.from).or_default().entry(to).or_insert(reference);
        }
    }
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for file in &source.files {
        if done.contains(file.as_str()) {
            continue;
        }
        let Some(circle) = shortest_circle(file, &edges) else { continue };
        done.extend(circle.iter().map(|reference| reference.from.as_str()));
        let lines: Vec<String> = circle.iter().map(|reference| format!("    {}", show(reference))).collect();
        found.push(format!("circle of {} files:\n{}", circle.len(), lines.join("\n")));
    }
    found
}

/// Returns the shortest way from a file back to itself.
fn shortest_circle<'a>(
    start: &'a str,
    edges: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Reference>>,
) -> Option<Vec<&'a Reference>> {
    let mut reached: BTreeMap<&str, &Reference> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(file) = next.pop_front() {
        for (&to, &reference) in edges.get(file).into_iter().flatten() {
            if reached.contains_key(to) {
                continue;
            }
            reached.insert(to, reference);
            if to == start {
                let mut way = vec![reference];
                while way[0].from != start {
                    way.insert(0, reached[way[0].from.as_str()]);
                }
                return Some(way);
            }
            next.push_back(to);
        }
    }
    None
}

/// Returns every line that names a crate outside its place, or re-exports it from its place.
pub fn leaks(source: &Source, sealed: &[(&str, &[&str])]) -> Vec<String> {
    let mut found = Vec::new();
    for reference in &source.references {
        let Target::Crate(name) = &reference.to else { continue };
        for (krate, places) in sealed {
            let matches = match krate.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == krate,
            };
            if !matches {
                continue;
            }
            let at_home = places.iter().any(|place| lies_in(&reference.from, place));
            if !at_home {
                found.push(format!("{}: {krate} belongs to {}", show(reference), places.join(", ")));
            } else if reference.re_export {
                found.push(format!("{}: {krate} is re-exported", show(reference)));
            }
        }
    }
    found
}

fn lies_in(file: &str, place: &str) -> bool {
    let mut folders = file.split('/');
    let mut wanted = place.trim_end_matches('/').split('/');
    wanted.all(|wanted| folders.next().is_some_and(|folder| wanted == "*" || wanted == folder))
        && folders.next().is_some()
}

/// Returns every line that imports a module of its own layer or of a higher one, and every module that the
/// table of layers does not name.
pub fn against_the_stages(source: &Source, layers: &[&[&str]]) -> Vec<String> {
    let rank = |module: &str| layers.iter().position(|layer| layer.contains(&module));
    let mut found = BTreeSet::new();
    for file in source.files.iter().filter_map(|file| module(file)) {
        if rank(file).is_none() {
            found.insert(format!("{file}: the table of layers does not name it"));
        }
    }
    for reference in &source.references {
        let Target::File(to) = &reference.to else { continue };
        let (Some(from), Some(to)) = (module(&reference.from), module(to)) else { continue };
        if let (Some(lower), Some(higher)) = (rank(from), rank(to))
            && from != to
            && lower <= higher
        {
            found.insert(format!("{}: {from} must not import {to}", show(reference)));
        }
    }
    found.into_iter().collect()
}

/// Returns the module directly below the crate that a file belongs to; none for the crate's root.
fn module(file: &str) -> Option<&str> {
    let name = file.split('/').next().unwrap_or(file);
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!matches!(name, "lib" | "main")).then_some(name)
}

fn show(reference: &Reference) -> String {
    let to = match &reference.to {
        Target::File(file) => file,
        Target::Crate(name) => name,
    };
    format!("{}:{}: {} -> {to}", reference.from, reference.line, reference.path)
}
