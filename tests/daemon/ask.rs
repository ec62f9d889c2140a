//! `camscribe ask`: images, videos, text and whole conversations, as the reference is asked.

use std::{
    ffi::OsStr,
    fs,
    io::{Cursor, Write},
    path::Path,
    process::{Output, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{daemon::camscribe, test_source};

fn ask<S: AsRef<OsStr>>(
    home: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> (Option<i32>, String, String) {
    let mut command = camscribe(home);
    command.current_dir(home).args(["ask", "--model", "shapes"]).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn document(home: &Path, arguments: &[&str]) -> Value {
    let (code, out, told) = ask(home, [&["--format", "json"], arguments].concat());
    assert_eq!(code, Some(0), "{told}");
    serde_json::from_str(&out).unwrap()
}

/// A picture of 96 x 64 pixels with a square of this colour, and the bytes of its PNG.
fn picture(path: &Path, colour: [u8; 3]) -> Vec<u8> {
    let image = RgbImage::from_fn(96, 64, |x, y| {
        let inside = (20..44).contains(&x) && (20..44).contains(&y);
        image::Rgb(if inside { colour } else { [240; 3] })
    });
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
    fs::write(path, bytes.get_ref()).unwrap();
    bytes.into_inner()
}

#[test]
fn a_question_about_a_video_is_answered_as_by_describe_with_the_sampling_of_the_reference() {
    let home = TempDir::new().unwrap();
    test_source::h264(home.path(), "object=red-circle-left", 4);
    let (code, out, told) = ask(home.path(), ["--video", "scene.mp4", "What happens?"]);
    assert_eq!((code, out.as_str()), (Some(0), "A red circle moves to the left.\n"), "{told}");
    assert_eq!(told, "asking shapes on cpu, f32\n");
    let few = document(home.path(), &["--video", "scene.mp4", "--max-frames", "2", "What happens?"]);
    let many = document(home.path(), &["--video", "scene.mp4", "--fps", "2", "What happens?"]);
    let images = |answer: &Value| answer["tokens"]["image"].as_u64().unwrap();
    assert_eq!((images(&few), images(&many)), (2 * 4, 8 * 4), "{few} {many}");
}

#[test]
fn images_and_text_are_asked_in_any_number_and_cut_as_wanted() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    picture(&path("a.png"), [200, 0, 0]);
    picture(&path("b.png"), [0, 0, 200]);
    let tokens = |arguments: &[&str]| document(home.path(), arguments)["tokens"]["image"].as_u64().unwrap();
    // The longer side becomes 256 pixels, which are 4 x 3 tiles of 64, and one of the whole; each has 4 tokens.
    assert_eq!(tokens(&["What is shown?", "a.png", "--split"]), 13 * 4);
    assert_eq!(tokens(&["What is shown?", "a.png", "--no-split"]), 4);
    assert_eq!(tokens(&["What is shown?", "a.png", "--split", "--longest-edge", "128"]), 5 * 4);
    assert_eq!(tokens(&["Which differs?", "a.png", "b.png", "a.png", "--no-split"]), 3 * 4);
    let answer = document(home.path(), &["Who are you?", "--max-tokens", "3"]);
    assert_eq!(answer["tokens"]["image"], 0);
    assert_eq!((&answer["tokens"]["generated"], &answer["finish_reason"]), (&json!(3), &json!("length")));
    assert_eq!(answer["model"]["id"], "shapes");
    assert!(!answer["answer"].as_str().unwrap().is_empty());
}

#[test]
fn a_conversation_is_the_same_as_json_in_either_format_and_from_standard_input() {
    let home = TempDir::new().unwrap();
    let bytes = picture(&home.path().join("a.png"), [200, 0, 0]);
    let plain = document(home.path(), &["--system", "Be brief.", "What is shown?", "a.png"]);
    let with = |image: Value| {
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [image, {"type": "text", "text": "What is shown?"}]},
        ])
    };
    let data = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&bytes));
    for image in [
        json!({"type": "image", "url": "a.png"}),
        json!({"type": "image", "path": "a.png"}),
        json!({"type": "image_url", "image_url": {"url": data, "detail": "low"}}),
    ] {
        fs::write(home.path().join("chat.json"), with(image).to_string()).unwrap();
        assert_eq!(document(home.path(), &["--chat", "chat.json"]), plain);
    }
    let mut command = camscribe(home.path());
    command.current_dir(home.path()).args(["ask", "--model", "shapes", "--format", "json", "--chat", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let request = json!({"messages": with(json!({"type": "image", "url": "a.png"}))});
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let answer: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(answer, plain);
    // What the model has said before is a part of the question.
    let mut longer = with(json!({"type": "image", "url": "a.png"}));
    let more = [
        json!({"role": "assistant", "content": "A red square."}),
        json!({"role": "user", "content": "What is its colour?"}),
    ];
    longer.as_array_mut().unwrap().extend(more);
    fs::write(home.path().join("chat.json"), longer.to_string()).unwrap();
    let longer = document(home.path(), &["--chat", "chat.json"]);
    assert!(longer["tokens"]["prompt"].as_u64() > plain["tokens"]["prompt"].as_u64());
}

#[test]
fn words_are_drawn_the_same_for_the_same_seed() {
    let home = TempDir::new().unwrap();
    let drawn = |seed: &str| {
        let arguments = ["Say something.", "--temperature", "1.5", "--top-k", "0", "--seed", seed];
        document(home.path(), &arguments)["answer"].clone()
    };
    let (first, again) = (drawn("1"), drawn("1"));
    assert_eq!(first, again);
    assert!((2..6).any(|seed: u32| drawn(&seed.to_string()) != first));
    let plain = document(home.path(), &["Say something."]);
    assert_eq!(document(home.path(), &["Say something.", "--temperature", "0"]), plain);
    assert_eq!(document(home.path(), &["Say something.", "--temperature", "2", "--top-k", "1"]), plain);
    let penalised = document(home.path(), &["Say something.", "--repetition-penalty", "5"]);
    assert_ne!(penalised["answer"], plain["answer"]);
}

#[test]
fn what_cannot_be_asked_gets_one_clear_sentence_and_nothing_is_fetched() {
    let home = TempDir::new().unwrap();
    picture(&home.path().join("a.png"), [200, 0, 0]);
    fs::write(home.path().join("words.png"), "no image").unwrap();
    let chat = |content: Value| {
        fs::write(home.path().join("chat.json"), json!([{"role": "user", "content": content}]).to_string())
            .unwrap();
    };
    for (arguments, code, words) in [
        (&["What?", "none.png"][..], 1, "none.png"),
        (&["What?", "words.png"], 1, "this is no JPEG, PNG, WebP, GIF, BMP or TIFF image"),
        (&["What?", "--video", "none.mp4"], 1, "none.mp4"),
        (&[], 2, "QUESTION"),
        (&["What?", "--chat", "chat.json"], 2, "cannot be used with"),
        (&["What?", "--temperature", "-1"], 2, "temperature is -1: it must be from 0 to 100"),
        (&["What?", "--top-p", "1.5"], 2, "top_p is 1.5: it must be from 0 to 1"),
        (&["What?", "--longest-edge", "5000"], 2, "from 1 to 4096"),
        (&["What?", "--fps", "0"], 2, "--fps must be above 0"),
        (&["What?", "a.png", "--split", "--longest-edge", "4096"], 1, "is too large for this model"),
        (&[&"long ".repeat(5000)], 1, "and the model ends at"),
        (&["--chat", "none.json"], 1, "none.json"),
        (&["--chat", "words.png"], 1, "words.png holds no conversation"),
    ] {
        let (got, out, told) = ask(home.path(), arguments);
        assert_eq!((got, out.as_str()), (Some(code), ""), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
        assert!(!told.contains("panicked"), "{told}");
    }
    for (content, words) in [
        (
            json!([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]),
            "https:// is not fetched",
        ),
        (json!([{"type": "image_url", "image_url": "data:image/png;base64,!!"}]), "not valid base64"),
        (
            json!([{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]),
            "the image of a data URL",
        ),
        (json!([{"type": "audio", "url": "a.wav"}]), "holds no conversation"),
        (
            json!([{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]),
            "the path of a file",
        ),
    ] {
        chat(content);
        let (code, _, told) = ask(home.path(), ["--chat", "chat.json"]);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(words), "{words}: {told}");
    }
}
