//! The reference pages in docs/ against the code: each lists everything that there is, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use camscribe::{
    cli::Cli,
    config::{
        Key,
        schema::{self, SectionSchema},
    },
    metrics::{Metrics, Readings, TextFormat},
    publish::{CameraProfile, home_assistant::Discovery, topics::Topics},
    runtime_settings::SETTINGS,
};
use clap::CommandFactory;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of every table row of a page, backticks kept. Header and rule rows are left out.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = page.lines().collect();
    let is_rule = |line: &str| line.starts_with("|---");
    let in_table = |i: usize| {
        lines[i].starts_with('|') && !is_rule(lines[i]) && lines.get(i + 1).is_none_or(|next| !is_rule(next))
    };
    (0..lines.len()).filter(|i| in_table(*i)).map(|i| cells(lines[i])).collect()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The part of a page under each heading of level two, by the first text in backticks of the heading.
fn sections(page: &str) -> BTreeMap<&str, &str> {
    let parts = page.split("\n## ").skip(1);
    parts.filter_map(|part| Some((quoted(part.lines().next()?).next()?, part))).collect()
}

fn assert_same<T: Ord + std::fmt::Debug>(page: &str, listed: BTreeSet<T>, known: BTreeSet<T>) {
    let missing: Vec<_> = known.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&known).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{page} lacks {missing:?}, and lists {unknown:?}, which do not exist"
    );
}

#[test]
fn configuration_md_lists_every_key_with_its_default_and_bounds() {
    let page = text("docs/reference/configuration.md");
    let shared: Vec<&str> = section_named("defaults").keys.iter().map(|key| key.name).collect();
    let (mut listed, mut known) = (BTreeMap::new(), BTreeMap::new());
    for (heading, section) in sections(&page).into_iter().filter(|(heading, _)| heading.starts_with('[')) {
        for row in rows(section) {
            let (key, default) = (row[0].trim_matches('`'), row[1].trim_matches(['`', '"', '[', ']']));
            listed.insert((heading.trim_matches(['[', ']']), key), (default, row[2]));
        }
    }
    for SectionSchema { name, keys, is_inline, .. } in schema::all() {
        // The page names the keys that a camera shares with [defaults] once.
        let is_shared = |key: &&Key| *name == schema::CAMERAS.section.name && shared.contains(&key.name);
        for key in keys.iter().filter(|key| !is_shared(key)) {
            let written = if *is_inline { "<name>" } else { key.name };
            known.insert((*name, written), (key.default.unwrap_or("required"), key.kind.to_string()));
        }
    }
    assert_same("configuration.md", listed.keys().collect(), known.keys().collect());
    for (key, (default, kind)) in known {
        let (listed_default, values) = listed[&key];
        assert_eq!(listed_default, default, "the default of {key:?}");
        for bound in bounds(&kind) {
            assert!(values.contains(bound), "the values of {key:?} lack {bound}: {values}");
        }
    }
}

/// The section of the configuration's schema with this name.
fn section_named(name: &str) -> &'static SectionSchema {
    schema::all().find(|section| section.name == name).expect("a section")
}

/// The words, numbers, durations and sizes of a description such as `a duration from "500ms" to "1h"`.
fn bounds(kind: &str) -> impl Iterator<Item = &str> {
    let words = kind.split([' ', ',']).map(|word| word.trim_matches('"'));
    let is_quoted = |word: &&str| kind.contains(&format!("\"{word}\""));
    words.filter(move |word| is_quoted(word) || word.parse::<u64>().is_ok())
}

#[test]
fn event_md_lists_every_field_of_the_schema() {
    let schema = serde_json::to_value(camscribe::event::json_schema()).unwrap();
    let mut known = BTreeSet::new();
    fields(&schema, &schema, "", &mut known);
    let page = text("docs/reference/event.md");
    let listed = rows(&page).into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_same("event.md", listed, known);
}

/// The paths of all fields of `schema`: `clip.frames[].pts_s`.
fn fields(schema: &Value, whole: &Value, path: &str, found: &mut BTreeSet<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => whole.pointer(reference.trim_start_matches('#')).expect("a definition"),
        None => schema,
    };
    if schema["items"].is_object() {
        fields(&schema["items"], whole, &format!("{path}[]"), found);
    }
    // An object whose fields people name.
    if schema["additionalProperties"].is_object() {
        fields(&schema["additionalProperties"], whole, &format!("{path}.<name>"), found);
    }
    // Kinds of an object, and what may be absent.
    let variants = ["oneOf", "anyOf"].into_iter().filter_map(|any| schema[any].as_array());
    for variant in variants.flatten() {
        fields(variant, whole, path, found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        fields(field, whole, &path, found);
        found.insert(path);
    }
}

#[test]
fn metrics_md_lists_every_metric_with_its_type() {
    let code = code("src/metrics");
    let literals = code.split('"').skip(1).step_by(2);
    let is_name = |text: &&str| text.starts_with("camscribe_") || text.starts_with("process_");
    let known: BTreeSet<&str> = literals.filter(is_name).collect();
    let page = text("docs/reference/metrics.md");
    let table = page.split("\n## ").next().unwrap();
    let types: BTreeMap<&str, &str> =
        rows(table).into_iter().map(|row| (row[0].trim_matches('`'), row[1])).collect();
    let listed = types.keys().map(|name| name.strip_suffix("_total").unwrap_or(name)).collect();
    assert_same("metrics.md", listed, known);
    for line in Metrics::new().page(&Readings::default(), TextFormat::Prometheus).lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        assert_eq!(types.get(name), Some(&kind), "{name}");
    }
}

#[test]
fn topics_md_lists_every_topic() {
    let topics = Topics::new("PREFIX", "NODE").unwrap();
    let camera = "camera".parse().unwrap();
    let methods = [
        "status",
        "info",
        "load",
        "camera_status",
        "description",
        "latest",
        "snapshot",
        "answer",
        "alert",
        "alerts",
        "ask",
        "ask_answer",
        "asks",
        "set",
        "state",
        "commands",
    ];
    let mut known = BTreeSet::from([
        topics.status(),
        topics.info(),
        topics.load(),
        topics.camera_status(&camera),
        topics.description(&camera),
        topics.latest(&camera),
        topics.snapshot(&camera),
        topics.answer(&camera, "question"),
        topics.alert(&camera, "alert"),
        topics.alerts(&camera),
        topics.ask(&camera),
        topics.ask_answer(&camera),
        topics.asks(),
        topics.commands(),
    ]);
    for setting in &SETTINGS {
        known.extend([topics.set(&camera, setting.name), topics.state(&camera, setting.name)]);
    }
    assert_eq!(
        BTreeSet::from(methods.map(String::from)),
        topic_methods(),
        "list a new topic in this test, too"
    );
    let discovery = Discovery::new("DISCOVERY", true).unwrap().unwrap();
    known.insert(discovery.birth_topic());
    let profile = CameraProfile {
        name: "Camera".into(),
        questions_only: false,
        questions: [("question".into(), vec!["yes".into(), "no".into()])].into(),
        alerts: [("alert".into(), None)].into(),
    };
    let configs = discovery.node(&topics).into_iter().chain(discovery.camera(&topics, &camera, &profile));
    known.extend(configs.map(|(topic, _)| topic));

    let page = text("docs/reference/topics.md");
    let plain = |topic: &str| {
        let topic = topic.replace("<prefix>", "PREFIX").replace("<node>", "NODE");
        topic
            .replace("<camera>", "camera")
            .replace("<discovery>", "DISCOVERY")
            .replace("<question>", "question")
            .replace("<alert>", "alert")
    };
    let cells = rows(&page).into_iter().map(|row| plain(row[0].trim_matches('`')));
    let listed = cells.filter(|topic| topic.contains('/')).collect();
    assert_same("topics.md", listed, known);
}

/// The public methods of `Topics` that give a topic.
fn topic_methods() -> BTreeSet<String> {
    let file = syn::parse_file(&text("src/publish/topics.rs")).unwrap();
    let impls = file.items.into_iter().filter_map(|item| match item {
        syn::Item::Impl(item) if item.trait_.is_none() => Some(item.items),
        _ => None,
    });
    let methods = impls.flatten().filter_map(|item| match item {
        syn::ImplItem::Fn(method) => Some(method.sig),
        _ => None,
    });
    let gives_text = |sig: &syn::Signature| match &sig.output {
        syn::ReturnType::Type(_, kind) => {
            matches!(&**kind, syn::Type::Path(it) if it.path.is_ident("String"))
        }
        syn::ReturnType::Default => false,
    };
    methods.filter(gives_text).map(|sig| sig.ident.to_string()).collect()
}

#[test]
fn command_line_md_lists_every_command_and_option() {
    let page = text("docs/reference/command-line.md");
    let (mut listed, mut known) = (BTreeSet::new(), BTreeSet::new());
    for (heading, section) in sections(&page) {
        let Some(heading) = heading.strip_prefix("camscribe ") else { continue };
        // What follows the command's name is no word in small letters.
        let is_name = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
        let command = heading.split(' ').take_while(is_name).collect::<Vec<_>>().join(" ");
        listed.insert((command.clone(), String::new(), String::new()));
        for row in rows(section) {
            let option = quoted(row[0]).last().unwrap().split(' ').next().unwrap();
            // A default in words follows from something else: clap does not know it.
            let default = row[1].trim_matches('`');
            let known_to_clap = row[1].starts_with('`') || default.parse::<u64>().is_ok();
            let default = if known_to_clap { default } else { "" };
            listed.insert((command.clone(), option.to_owned(), default.to_owned()));
        }
    }
    for (name, command) in commands(&Cli::command(), "") {
        known.insert((name.clone(), String::new(), String::new()));
        for option in command.get_arguments().filter(|argument| !argument.is_positional()) {
            let defaults: Vec<_> =
                option.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
            let default = match option.get_action().takes_values() {
                true => defaults.join(","),
                false => String::new(),
            };
            known.insert((name.clone(), format!("--{}", option.get_long().expect("a long name")), default));
        }
    }
    // The configuration's default file is one of the words: its option has no default of its own.
    let of_config = |(command, option, default): (String, String, String)| match option.as_str() {
        "--config" => (command, option, String::new()),
        _ => (command, option, default),
    };
    assert_same("command-line.md", listed.into_iter().map(of_config).collect(), known);
}

/// The commands below a command that do something, each with its name.
fn commands(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
    let below = command.get_subcommands().flat_map(|below| {
        let name = format!("{name} {}", below.get_name()).trim().to_owned();
        match below.has_subcommands() {
            true => commands(below, &name),
            false => vec![(name, below.clone())],
        }
    });
    below.collect()
}

#[test]
fn http_md_lists_every_route() {
    let code = code("src/http");
    let routes = code.split(".route(").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let known: BTreeSet<&str> = routes.collect();
    let page = text("docs/reference/http.md");
    let table = page.split("\n## ").next().unwrap();
    let listed =
        rows(table).into_iter().map(|row| row[0].trim_matches('`').split(' ').next_back().unwrap()).collect();
    assert_same("http.md", listed, known);
}

#[test]
fn every_path_and_link_in_the_documentation_exists() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let folder = page.parent().unwrap();
        for path in quoted_outside_code(&text).filter(|it| is_path(it)) {
            let path = path.trim_end_matches('/');
            if !root().join(path).exists() {
                broken.push(format!("{}: `{path}`", page.display()));
            }
        }
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { folder.join(path) };
            let there = target.exists()
                && (anchor.is_empty()
                    || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)));
            if !there {
                broken.push(format!("{}: ({link})", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these do not exist:\n{}", broken.join("\n"));
}

/// All pages of documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root().join(name)).into();
    pages.extend([root().join("benches/RESULTS.md"), root().join("models/shapes/README.md")]);
    pages.extend(files(&root().join("docs"), "md"));
    pages
}

/// The code of all files below a folder, without their unit tests.
fn code(folder: &str) -> String {
    let texts = files(&root().join(folder), "rs").into_iter().map(|path| fs::read_to_string(path).unwrap());
    texts.map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned()).collect()
}

/// The files below a folder whose names end in `.ending`, in order.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The texts in backticks that stand on one line, code blocks left out.
fn quoted_outside_code(page: &str) -> impl Iterator<Item = &str> {
    page.split("```").step_by(2).flat_map(str::lines).flat_map(quoted)
}

/// Whether a text in backticks names a file or folder of this repository.
fn is_path(text: &str) -> bool {
    let folders = [
        "src/",
        "tests/",
        "docs/",
        "benches/",
        "config/",
        "pipelines/",
        "systemd/",
        "models/",
        "fuzz/",
        ".ci/",
    ];
    folders.iter().any(|folder| text.starts_with(folder)) && !text.contains(['*', '<', '{', ' ', '…'])
}

/// Where relative links lead.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings =
        page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
