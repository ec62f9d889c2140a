//! `describe` over folders and many files: what is found, what is written where, and what is done again.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    daemon::{camscribe, wait},
    test_source,
};

const WORDS: &str = "A red circle moves to the left.";

/// A home directory with a film of four seconds, `scene.mp4`.
fn home() -> (TempDir, PathBuf) {
    let home = TempDir::new().unwrap();
    let film = test_source::h264(home.path(), "object=red-circle-left", 4);
    (home, film)
}

fn describe<S: AsRef<OsStr>>(home: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = camscribe(home);
    command.current_dir(home).args(["describe", "--model", "shapes", "--window", "2s"]).args(arguments);
    command
}

fn run<const N: usize>(home: &Path, arguments: [&str; N]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = describe(home, arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn put(film: &Path, path: PathBuf) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(film, path).unwrap();
}

/// The files below a folder, hidden ones left out.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else if !name.starts_with('.') {
            found.insert(name);
        }
    }
    found
}

#[test]
fn a_folder_is_searched_by_content_and_a_broken_film_does_not_stop_the_others() {
    let (home, film) = home();
    let films = home.path().join("films");
    let names = [
        "1 first day.mp4",
        "2/clip.mp4",
        "2/two\nlines.mp4",
        "3/clip.mp4",
        "a film without ending",
        "really a film.txt",
        "日本.mp4",
        "東京.mp4",
    ];
    names.iter().for_each(|name| put(&film, films.join(name)));
    let bytes = fs::read(&film).unwrap();
    fs::write(films.join("2/half.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    // No films, and hidden ones.
    fs::write(films.join("words.mp4"), "This is a letter, not a film.\n".repeat(100)).unwrap();
    fs::write(films.join("empty.mp4"), "").unwrap();
    fs::write(films.join("page.html"), "<html><body>films</body></html>").unwrap();
    // A file that looks a little like raw H.264.
    fs::write(
        films.join("catalogue.mo"),
        b"\xde\x12\x04\x95 \0\0\x01\x67abcd\0\0\x01\x68abcd\0\0\x01\x65abcd".repeat(2),
    )
    .unwrap();
    put(&film, films.join(".hidden.mp4"));
    put(&film, films.join(".trash/clip.mp4"));
    symlink(&films, films.join("2/back")).unwrap();
    symlink("nowhere", films.join("nothing.mp4")).unwrap();
    symlink("itself", films.join("itself")).unwrap();
    assert!(Command::new("mkfifo").arg(films.join("pipe.mp4")).status().unwrap().success());

    let (code, out, told) = run(home.path(), ["--format", "jsonl", "films"]);
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wanted = names
        .iter()
        .flat_map(|name| [(format!("films/{name}"), 0.0, 2.0), (format!("films/{name}"), 2.0, 4.0)]);
    let part = |event: &Value| {
        let offset = |key: &str| event[key].as_f64().unwrap();
        (event["source"].as_str().unwrap().to_owned(), offset("offset_start_s"), offset("offset_end_s"))
    };
    assert_eq!(events.iter().map(part).collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{told}");
    assert!(events.iter().all(|event| event["description"] == WORDS));
    let cameras: BTreeSet<_> = events.iter().map(|event| event["camera"].as_str().unwrap()).collect();
    assert_eq!(cameras.len(), names.len(), "{cameras:?}");
    assert_eq!(code, Some(1));
    // On a slow machine there is more than one line of progress.
    let is_progress = |line: &&str| line.contains(" of 9: ") && !line.starts_with("1 of 9: ");
    let lines: Vec<&str> = told.lines().filter(|line| !is_progress(line)).collect();
    assert_eq!(lines[0], "describing with shapes on the CPU, f32");
    assert_eq!(lines[1], "1 of 9: films/1 first day.mp4");
    assert!(lines[2].starts_with("error: films/2/half.mp4: the video is damaged or was cut off"), "{told}");
    assert!(lines[3].starts_with("described 8 of 9 sources: 16 clips in "), "{told}");
    assert!(lines[3].contains("; passed over as no video: 7 files (films/"), "{told}");
    assert!(lines[3].contains("films/empty.mp4"), "{told}");
    assert_eq!(lines[4], "error: 1 of 9 sources could not be described: films/2/half.mp4");
    assert_eq!(lines.len(), 5, "{told}");

    // What is named must be a film.
    let (code, _, told) = run(home.path(), ["films/words.mp4", "films/1 first day.mp4"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("error: films/words.mp4: this is not a video file"), "{told}");
    fs::create_dir(home.path().join("none")).unwrap();
    let (code, _, told) = run(home.path(), ["none"]);
    assert_eq!((code, told.as_str()), (Some(1), "error: none: there is no video in it\n"));
    // A disk that is not mounted, and a name that is not UTF-8, do not stop the others.
    let wrong = OsStr::from_bytes(b"wrong\xff.mp4");
    let output =
        describe(home.path(), [OsStr::new("none"), wrong, OsStr::new("scene.mp4")]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.iter().filter(|byte| **byte == b'\n').count()),
        (Some(1), 3)
    );
    assert!(told.contains("error: none: there is no video in it\n"), "{told}");
    assert!(told.contains("error: \"wrong\\xFF.mp4\": the name is not UTF-8"), "{told}");
    assert!(
        told.ends_with("error: 2 of 3 sources could not be described: none, \"wrong\\xFF.mp4\"\n"),
        "{told}"
    );
}

#[test]
fn each_source_has_a_file_of_its_own_and_no_two_have_one() {
    let (home, film) = home();
    for name in ["a/clip.mp4", "a/deep/clip.mp4", "b/clip.mp4", "b/Clip.MP4", "b/clip.mkv"] {
        put(&film, home.path().join(name));
    }
    let long = format!("a/{}.mp4", "映".repeat(83));
    put(&film, home.path().join(&long));
    let (code, out, told) =
        run(home.path(), ["--format", "srt", "--output-dir", "out/new", "a", "b/clip.mkv"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{told}");
    let out = home.path().join("out/new");
    let written = files(&out);
    let plain = ["clip.mkv.srt", "clip.mp4.srt", "deep/clip.mp4.srt"].map(String::from);
    assert!(written.is_superset(&BTreeSet::from(plain)) && written.len() == 4, "{written:?}");
    let wanted =
        format!("1\n00:00:00,000 --> 00:00:02,000\n{WORDS}\n\n2\n00:00:02,000 --> 00:00:04,000\n{WORDS}\n\n");
    for name in &written {
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), wanted, "{name}");
    }
    // Names that some file systems hold to be the same, and those of different folders.
    let (code, _, told) = run(home.path(), ["--output-dir", "both", "a", "b"]);
    assert_eq!(code, Some(0), "{told}");
    let folded: BTreeSet<_> =
        files(&home.path().join("both")).into_iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(folded.len(), 6, "{folded:?}");
}

#[test]
fn an_interrupted_run_is_resumed_and_only_what_has_changed_is_done_again() {
    let (home, film) = home();
    for name in ["films/a.mp4", "films/b.mp4", "films/c.mp4"] {
        put(&film, home.path().join(name));
    }
    let out = home.path().join("out");
    let whole = BTreeSet::from(["a.mp4.txt", "b.mp4.txt", "c.mp4.txt"].map(String::from));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut running = describe(home.path(), ["--output-dir", "out", "films", "test://shapes?live=false"]);
        let running = running.stderr(Stdio::piped()).spawn().unwrap();
        // The test picture does not end.
        let part = out.join("shapes.txt.part");
        wait("its first description", || fs::metadata(&part).ok().filter(|it| it.len() > 0));
        let sent = Command::new("kill").args(["-s", signal, &running.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let Output { status, stderr, .. } = running.wait_with_output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{told}");
        assert!(told.contains("what was described of it is in out/shapes.txt.part\n"), "{told}");
        assert!(told.ends_with("stopped after 3 of 4 sources\n"), "{told}");
        fs::remove_file(&part).unwrap();
        assert_eq!(files(&out), whole);
    }
    let resume = |more: &[&str]| {
        let arguments = ["--output-dir", "out", "--resume", "films"];
        let output = describe(home.path(), arguments.iter().chain(more)).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert_eq!(files(&out), whole);
        told.lines()
            .find(|line| line.starts_with("described "))
            .unwrap()
            .split(':')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(resume(&[]), "described 0 of 3 sources, 3 already whole");
    fs::write(out.join("a.mp4.txt"), "cut o").unwrap();
    fs::remove_file(out.join("b.mp4.txt")).unwrap();
    assert_eq!(resume(&[]), "described 2 of 3 sources, 1 already whole");
    // The same bytes, but nobody knows that.
    fs::write(home.path().join("films/c.mp4"), fs::read(&film).unwrap()).unwrap();
    assert_eq!(resume(&[]), "described 1 of 3 sources, 2 already whole");
    for other in [&["--prompt", "Is the scene empty?"][..], &["--to", "2s"]] {
        assert_eq!(resume(other), "described 3 of 3 sources");
        assert_eq!(resume(other), "described 0 of 3 sources, 3 already whole");
    }
    let wanted = format!("00:00:00.000 - 00:00:02.000  {WORDS}\n");
    assert_eq!(fs::read_to_string(out.join("b.mp4.txt")).unwrap(), wanted);
}

#[test]
fn an_output_never_takes_the_place_of_another_sources_nor_of_a_file_of_somebody_else() {
    let (home, film) = home();
    let out = home.path().join("out");
    for folder in ["monday", "tuesday"] {
        put(&film, home.path().join(folder).join("clip.mp4"));
        let (code, _, told) = run(home.path(), ["--output-dir", "out", "--resume", folder]);
        assert_eq!(code, Some(0), "{told}");
    }
    let written = files(&out);
    assert!(written.contains("clip.mp4.txt") && written.len() == 2, "{written:?}");
    for folder in ["monday", "tuesday"] {
        let (code, _, told) = run(home.path(), ["--output-dir", "out", "--resume", folder]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("described 0 of 1 source, 1 already whole"), "{told}");
    }
    assert_eq!(files(&out), written);

    fs::write(out.join("scene.mp4.txt"), "my own words").unwrap();
    let (code, _, told) = run(home.path(), ["--output-dir", "out", "scene.mp4"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("out/scene.mp4.txt exists, and camscribe does not know it"), "{told}");
    assert_eq!(fs::read_to_string(out.join("scene.mp4.txt")).unwrap(), "my own words");
}

#[test]
fn a_folder_for_outputs_is_written_by_one_camscribe_and_never_over_a_source() {
    let (home, film) = home();
    put(&film, home.path().join("films/a"));
    put(&film, home.path().join("films/a.txt"));
    let (code, _, told) = run(home.path(), ["--output-dir", "films", "films"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("films/a.txt is a source and cannot be an output"), "{told}");
    assert_eq!(fs::read(home.path().join("films/a.txt")).unwrap(), fs::read(&film).unwrap());

    let mut first = describe(home.path(), ["--output-dir", "out", "test://shapes"]).spawn().unwrap();
    wait("the first one", || fs::metadata(home.path().join("out/shapes.txt.part")).ok());
    let (code, _, told) = run(home.path(), ["--output-dir", "out", "films"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("another camscribe writes into out"), "{told}");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_part_of_a_film_is_described_as_a_table() {
    let (home, _) = home();
    let range = ["--from", "1s", "--to", "00:00:03.5", "scene.mp4"];
    let arguments = ["--format", "csv", "-o", "-"].into_iter().chain(range);
    let output = describe(home.path(), arguments).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = table.split("\r\n").map(|row| row.split(',').collect()).collect();
    assert_eq!(rows[0], ["source", "offset_start_s", "offset_end_s", "start", "end", "description"]);
    assert_eq!(rows.len(), 4, "{table}");
    assert_eq!(rows[1][..3], ["scene.mp4", "1", "3"]);
    assert_eq!(rows[2][..3], ["scene.mp4", "3", "3.5"]);
    assert!(rows[1][3].ends_with('Z') && rows[1][5] == WORDS, "{table}");
    assert_eq!(rows[3], [""]);

    let (code, _, told) = run(home.path(), ["--from", "1m", "scene.mp4"]);
    assert_eq!(code, Some(1));
    assert!(told.ends_with("error: scene.mp4: it ends after 4.0 s, before --from\n"), "{told}");
    // The film has no frame between two of its frames.
    let (code, _, told) = run(home.path(), ["--from", "3010ms", "--to", "3020ms", "scene.mp4"]);
    assert_eq!(code, Some(1));
    assert!(told.ends_with("error: scene.mp4: it has no frame between --from and --to\n"), "{told}");
    for (wrong, words) in [
        (["--from", "3s", "--to", "3s", "scene.mp4"], "--from must be before --to"),
        (["--from", "90", "--to", "1h", "scene.mp4"], "\"00:01:30\""),
        (["--to", "5s", "--sampling", "reference", "scene.mp4"], "--sampling reference takes whole files"),
    ] {
        let (code, _, told) = run(home.path(), wrong);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn the_rest_of_a_film_behind_the_last_whole_window_is_described_too() {
    let (home, _) = home();
    let (code, out, told) = run(home.path(), ["--to", "2050ms", "scene.mp4"]);
    assert_eq!(code, Some(0), "{told}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[1].starts_with("00:00:02.000 - 00:00:02.050  "), "{out}");
    // A subtitle must not end where it begins.
    let (code, out, told) = run(home.path(), ["--format", "srt", "--to", "10ms", "scene.mp4"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(out.starts_with("1\n00:00:00,000 --> 00:00:01,000\n"), "{out}");
}

#[test]
fn an_image_that_is_named_is_described_as_an_image() {
    let (home, _) = home();
    let image = image::RgbImage::from_fn(96, 64, |x, _| image::Rgb([200, x as u8, 30]));
    for name in ["a.png", "b.jpg"] {
        image.save(home.path().join(name)).unwrap();
    }
    let (code, out, told) = run(home.path(), ["--format", "jsonl", "a.png", "scene.mp4", "b.jpg"]);
    assert_eq!(code, Some(0), "{told}");
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events
        .iter()
        .map(|it| (it["source"].as_str().unwrap(), it["clip"]["frames"].as_array().unwrap().len()))
        .collect();
    assert_eq!(kinds, [("a.png", 1), ("scene.mp4", 8), ("scene.mp4", 8), ("b.jpg", 1)], "{out}");
    // The whole of it and 4 x 3 tiles, of 4 tokens each: as an image, not as a frame.
    assert_eq!(
        (&events[0]["tokens"]["image"], &events[0]["offset_end_s"]),
        (&52.into(), &0.0.into()),
        "{out}"
    );
    let mut ask = camscribe(home.path());
    ask.current_dir(home.path()).args([
        "ask",
        "--model",
        "shapes",
        "--max-tokens",
        "96",
        "What happens?",
        "a.png",
    ]);
    let asked = String::from_utf8(ask.output().unwrap().stdout).unwrap();
    let (_, described, _) = run(home.path(), ["--prompt", "What happens?", "a.png"]);
    assert_eq!(described.trim_end(), format!("00:00:00.000 - 00:00:00.000  {}", asked.trim_end()));
    let together = ["--together", "--prompt", "What happens?", "a.png", "b.jpg"];
    let (code, described, told) = run(home.path(), together);
    assert_eq!(code, Some(0), "{told}");
    let asked = String::from_utf8(ask.arg("b.jpg").output().unwrap().stdout).unwrap();
    let line = format!("00:00:00.000 - 00:00:00.000  {}", asked.trim_end());
    assert!(described.starts_with("a.png, b.jpg:") && described.trim_end().ends_with(&line), "{described}");
    let (code, _, told) = run(home.path(), ["--together", "a.png", "scene.mp4"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("scene.mp4") && told.contains("--together"), "{told}");
    let (code, _, told) = run(home.path(), ["--from", "1s", "a.png"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("a.png: it is an image, which has no times: leave out --from and --to"), "{told}");
}

#[test]
fn a_video_in_a_folder_that_is_over_before_from_is_left_out_at_each_run() {
    let (home, film) = home();
    put(&film, home.path().join("films/short.mp4"));
    fs::rename(
        test_source::h264(home.path(), "object=red-circle-left", 8),
        home.path().join("films/long.mp4"),
    )
    .unwrap();
    for summary in ["described 1 of 1 source: 2 clips in ", "described 0 of 1 source, 1 already whole: "] {
        let (code, _, told) = run(home.path(), ["--output-dir", "out", "--resume", "--from", "4s", "films"]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains(summary), "{told}");
        assert!(told.ends_with("; with no frame between --from and --to: 1 video\n"), "{told}");
    }
}

#[test]
fn what_cannot_be_written_or_is_no_source_is_named_and_what_is_named_twice_is_one() {
    let (home, _) = home();
    let (code, _, told) = run(home.path(), ["-o", "/dev/full", "scene.mp4"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("error: /dev/full cannot be written\n"), "{told}");
    let (code, _, told) = run(home.path(), ["scene.mp4", "test://shapes?colour=red"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("the source \"test://shapes?colour=red\": test:// has no option"), "{told}");
    let (code, out, told) = run(home.path(), ["scene.mp4", "./scene.mp4", "scene.mp4"]);
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}{told}");
}

#[test]
fn a_reader_that_leaves_ends_describe_in_peace() {
    let (home, _) = home();
    let mut running = describe(home.path(), ["test://shapes?live=false"]);
    let mut running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("00:00:00.000 - "), "{line}");
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "describing with shapes on the CPU, f32\n");
}

#[test]
fn options_have_the_rules_and_the_words_of_the_configuration() {
    let (home, _) = home();
    for (key, value) in [
        ("window", "499ms"),
        ("window", "8"),
        ("stride", "99ms"),
        ("frames", "65"),
        ("max_tokens", "0"),
        ("max_tokens", "2049"),
        ("prompt", " "),
        ("prompt", "<image>?"),
    ] {
        let quoted = if matches!(key, "frames" | "max_tokens") { value.into() } else { format!("{value:?}") };
        let file = home.path().join("c.toml");
        fs::write(&file, format!("[cameras.a]\nuri = \"a.mp4\"\n{key} = {quoted}\n")).unwrap();
        let checked = camscribe(home.path()).args(["check", "--config"]).arg(&file).output().unwrap();
        let checked = String::from_utf8(checked.stderr).unwrap();
        let why = checked.split(&format!("cameras.a.{key}: ")).nth(1).unwrap().lines().next().unwrap();
        let option = format!("--{}", key.replace('_', "-"));
        let mut command = camscribe(home.path());
        command.args(["describe", "--model", "shapes", &option, value, "a.mp4"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8(output.stderr).unwrap();
        // The command line and TOML write numbers differently.
        assert_eq!(told.replace('"', ""), format!("error: {option}: {why}\n").replace('"', ""));
    }
    let (code, _, told) = run(home.path(), ["--max-tokens", "2048", "scene.mp4"]);
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn a_copy_of_the_model_is_asked_the_question_of_its_card() {
    let (home, _) = home();
    let copy = home.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let event = |model: &str| {
        let mut command = camscribe(home.path());
        command.current_dir(home.path());
        command.args(["describe", "--model", model, "--format", "jsonl", "scene.mp4"]);
        let output = command.output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let (inside, copied) = (event("shapes"), event("./copy"));
    assert_eq!(copied["model"]["id"], "./copy");
    assert_eq!((&copied["prompt"], &copied["description"]), (&inside["prompt"], &WORDS.into()));
}
