//! Imports run one way: no circle between files, heavy libraries sealed in their places, stages that do not
//! know each other, and an engine that names no model.

use std::{fs, path::Path};

mod rules;
mod source;

use rules::{LAYERS, SEALED, against_the_stages, circles, leaks};
use source::Source;

fn src() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn library() -> Source {
    Source::read(&src(), "lib.rs")
}

fn programs() -> Vec<Source> {
    ["main.rs", "bin/bench.rs", "bin/golden.rs"].map(|root| Source::read(&src(), root)).into()
}

#[track_caller]
fn nothing(broken: &[String]) {
    assert!(broken.is_empty(), "{} lines break the rule:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    nothing(&circles(&library()));
}

#[test]
fn heavy_libraries_are_named_only_in_their_places() {
    let mut broken = leaks(&library(), SEALED);
    broken.extend(programs().iter().flat_map(|program| leaks(program, SEALED)));
    nothing(&broken);
}

#[test]
fn no_module_imports_one_of_its_own_layer_or_of_a_higher_one() {
    nothing(&against_the_stages(&library(), LAYERS));
}

#[test]
fn the_engine_names_no_model() {
    // Each folder of describe/ is a model family.
    let families = fs::read_dir(src().join("describe")).unwrap().map(|entry| entry.unwrap());
    let families: Vec<_> =
        families.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).collect();
    assert!(!families.is_empty());
    let mut broken = Vec::new();
    for file in library().files.iter().filter(|file| file.starts_with("nn/")) {
        let text = fs::read_to_string(src().join(file)).unwrap().to_lowercase();
        for family in &families {
            if text.contains(family.to_str().unwrap()) {
                broken.push(format!("{file} names {}", family.display()));
            }
        }
    }
    nothing(&broken);
}

/// A crate of these files.
fn planted(files: &[(&str, &str)]) -> Source {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Source::read(folder.path(), "lib.rs")
}

#[test]
fn a_planted_circle_is_found_however_it_is_written() {
    for (there, back) in [
        ("use crate::b::B;", "use crate::a::A;"),
        ("use super::{b::{self, B}};", "fn f() -> super::a::A { todo!() }"),
        ("fn f() { crate::b::g() }", "fn f() { println!(\"{}\", crate::a::A) }"),
        ("use crate::{b::*};", "pub(crate) use crate::a::A as Other;"),
        ("fn f() { if true { let B { .. } = super::b::B::new(); } }", "impl From<u8> for crate::a::A {}"),
    ] {
        let source = planted(&[("lib.rs", "mod a; mod b;"), ("a.rs", there), ("b.rs", back)]);
        let found = circles(&source);
        assert_eq!(found.len(), 1, "{there} {back}: {found:?}");
        assert!(found[0].contains("a.rs:1: ") && found[0].contains("b.rs:1: "), "{found:?}");
    }
}

#[test]
fn a_child_that_imports_from_a_parent_that_imports_from_it_is_a_circle() {
    let source = planted(&[
        ("lib.rs", "pub mod a;"),
        ("a/mod.rs", "pub mod child;\n\npub use child::Child;\npub struct Parent;"),
        ("a/child.rs", "// A comment.\nuse super::Parent;\npub struct Child(Parent);"),
    ]);
    let found = circles(&source);
    assert_eq!(
        found,
        [
            "circle of 2 files:\n    a/child.rs:2: super::Parent -> a/mod.rs\n    a/mod.rs:3: child::Child -> a/child.rs"
        ]
    );
}

#[test]
fn siblings_tests_and_visibility_make_no_circle() {
    let source = planted(&[
        ("lib.rs", "pub mod a;"),
        ("a/mod.rs", "pub mod one; pub mod two; pub use one::One;"),
        ("a/one.rs", "use super::two::Two; pub(in crate::a) struct One(Two);"),
        (
            "a/two.rs",
            "pub struct Two;
             impl Two { #[cfg(test)] fn one() -> super::one::One { todo!() } }
             #[cfg(test)] use super::one::One;
             #[cfg(all(test, unix))] mod more { use crate::a::One; }
             #[test] fn test() { super::one::One; }",
        ),
    ]);
    assert_eq!(circles(&source), [""; 0]);
}

#[test]
fn a_planted_leak_is_found_and_a_re_export_is_one() {
    let sealed: &[(&str, &[&str])] = &[("gstreamer*", &["capture/"]), ("candle_*", &["nn/", "describe/*/"])];
    let source = planted(&[
        ("lib.rs", "pub mod capture; pub mod describe;"),
        ("capture/mod.rs", "use gstreamer as gst;\npub use gstreamer_app::AppSink;\nfn f() { gst::init() }"),
        ("describe/mod.rs", "pub mod family; pub mod worker; use gstreamer;"),
        ("describe/worker.rs", "fn f() { println!(\"{}\", candle_core::NAME) }"),
        ("describe/family/mod.rs", "use candle_core::{self, Tensor};"),
    ]);
    assert_eq!(
        leaks(&source, sealed),
        [
            "capture/mod.rs:2: gstreamer_app::AppSink -> gstreamer_app: gstreamer* is re-exported",
            "describe/mod.rs:1: gstreamer -> gstreamer: gstreamer* belongs to capture/",
            "describe/worker.rs:1: candle_core::NAME -> candle_core: candle_* belongs to nn/, describe/*/",
        ]
    );
}

#[test]
fn a_stage_that_imports_another_or_a_higher_one_is_found() {
    let layers: &[&[&str]] = &[&["frame"], &["capture", "publish"], &["app"]];
    let source = planted(&[
        ("lib.rs", "pub mod frame; pub mod capture; pub mod publish; pub mod app; pub mod new;"),
        ("frame.rs", "use crate::app::App;"),
        ("capture/mod.rs", "pub mod inner; use crate::frame::Frame; use inner::Inner;"),
        ("capture/inner.rs", "use crate::publish::Topic;"),
        ("publish.rs", ""),
        ("app.rs", "use crate::{capture::inner, frame, publish};"),
        ("new.rs", ""),
    ]);
    assert_eq!(
        against_the_stages(&source, layers),
        [
            "capture/inner.rs:1: crate::publish::Topic -> publish.rs: capture must not import publish",
            "frame.rs:1: crate::app::App -> app.rs: frame must not import app",
            "new: the table of layers does not name it",
        ]
    );
}
