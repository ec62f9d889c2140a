//! `camscribe history` and `camscribe replay`, beside a daemon that writes the history.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::{Daemon, camscribe, wait};

/// Nobody is at the broker's address: the history does without.
const CONFIG: &str = r#"
    node.id = "edge1"
    model = { id = "shapes", device = "cpu" }
    mqtt.url = "mqtt://127.0.0.1:9"
    history = { frames = "all", frame_format = "lossless" }
    defaults = { window = "2s", frames = 8, prompt = "Describe what happens in this video.", change_threshold = 0 }
    [questions.round]
    ask = "Is there a circle?"
    [cameras.porch]
    uri = "test://shapes?object=red-circle-left&period=2s"
    questions = ["round"]
    [cameras.porch.alerts.always]
    question = "round"
    on = 0.0
    off = 0.0
    of = "1/1"
    [cameras.gate]
    uri = "test://shapes?object=blue-square-up&period=2s"
"#;

struct Ran {
    code: Option<i32>,
    out: String,
    told: String,
}

fn output(home: &Path, arguments: &[&str]) -> Output {
    let mut command = camscribe(home);
    command.current_dir(home).args(arguments).env("TZ", "UTC-2").output().unwrap()
}

fn run(home: &Path, arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = output(home, arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), told: text(stderr) }
}

/// Runs a command that succeeds. Returns what it printed.
fn done(home: &Path, arguments: &[&str]) -> String {
    let Ran { code, out, told } = run(home, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {told}");
    out
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn search(home: &Path, arguments: &[&str]) -> Vec<Value> {
    let all = [&["history", "search", "--config", "camscribe.toml", "--format", "jsonl"], arguments].concat();
    lines(&run(home, &all).out)
}

fn id(event: &Value) -> &str {
    event["id"].as_str().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A daemon whose history has events of both cameras with frames.
fn daemon() -> Daemon {
    let daemon = Daemon::start(CONFIG);
    wait("both cameras have events", || {
        let has = |arguments: &[&str]| search(daemon.home.path(), arguments).len() >= 2;
        (has(&["circle", "--camera", "porch"]) && has(&["--camera", "gate"])).then_some(())
    });
    daemon
}

#[test]
fn without_a_history_every_command_says_where_it_was_looked_for_and_makes_none() {
    let home = TempDir::new().unwrap();
    let nil = "00000000-0000-0000-0000-000000000000";
    for command in [
        &["history", "search", "x"][..],
        &["history", "show", nil],
        &["history", "export"],
        &["history", "forget", "--all", "--yes"],
        &["replay", nil],
    ] {
        let Ran { code, out, told } = run(home.path(), &[command, &["--state-dir", "state"]].concat());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{told}");
        assert!(
            told.starts_with("error: there is no history, since state/history.db does not exist: "),
            "{told}"
        );
        assert!(told.contains("--state-dir") && told.lines().count() == 1, "{told}");
        assert!(!home.path().join("state").exists());
    }
    fs::create_dir(home.path().join("state")).unwrap();
    fs::write(home.path().join("state/history.db"), "no database at all, but long enough".repeat(50))
        .unwrap();
    let Ran { code, told, .. } = run(home.path(), &["history", "search", "--state-dir", "state"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("the history state/history.db cannot be read") && told.contains("not a database"),
        "{told}"
    );
    assert_eq!(fs::read_dir(home.path().join("state")).unwrap().count(), 1);
}

#[test]
fn wrong_options_are_told() {
    let home = TempDir::new().unwrap();
    for (arguments, why) in [
        (&["search", "--from", "yesterday"][..], "is not a time: write one such as 2026-11-30"),
        (&["search", "--limit", "0"], "1..=1000"),
        (&["search", "--from", "1h", "--to", "2h"], "--from"),
        (&["show", "7"], "ID"),
        (&["forget", "--yes"], "--camera"),
        (&["forget", "--all", "--camera", "porch"], "cannot be used with"),
        (&["export", "--format", "xml"], "jsonl, csv, zip"),
    ] {
        let Ran { code, told, .. } = run(home.path(), &[&["history"], arguments].concat());
        assert!(code == Some(2) && told.contains(why), "{arguments:?}: {told}");
    }
}

#[test]
fn events_are_searched_shown_exported_replayed_and_forgotten_while_camscribe_runs() {
    let daemon = daemon();
    let home = daemon.home.path();
    let events = search(home, &["circle", "--camera", "porch"]);
    searched(home, &events);
    shown(home, id(&events[0]));
    exported(home);
    let Ran { code, out, told } = run(home, &["replay", id(&events[0]), "--config", "camscribe.toml"]);
    assert_eq!(code, Some(0), "{told}");
    let words =
        format!("the same words: {}\nIs there a circle? ", events[0]["description"].as_str().unwrap());
    assert!(out.starts_with(&words) && out.contains(", the same\nthe probabilities are the same\n"), "{out}");
    assert_eq!(told, "describing 8 frames again with shapes on cpu, f32\n");
    forgotten(home);
    assert_eq!(daemon.stop().0, Some(0));
}

fn searched(home: &Path, events: &[Value]) {
    let history = |arguments: &[&str]| {
        let all = [&["history", "search", "--config", "camscribe.toml"], arguments].concat();
        run(home, &all)
    };
    let Ran { out, told, .. } = history(&["circle", "--camera", "porch", "--limit", "1"]);
    let (head, words) = out.split_once('\n').unwrap();
    assert!(head.contains(" +02:00  porch  ") && head.ends_with("  8 frames"), "{out}");
    assert!(words.starts_with("    A ") && words.contains("circle") && !out.contains('\u{1b}'), "{out}");
    assert!(told.starts_with("there are more: --limit"), "{told}");
    assert!(events.iter().all(|event| event["camera"] == "porch" && event["evidence"]["frames"] == 8));
    let switched = search(home, &["--alert", "always"]);
    assert_eq!((switched.len(), &switched[0]["alerts"]["always"]["changed"]), (1, &Value::Bool(true)));
    assert!(search(home, &["--to", "1d"]).is_empty() && !search(home, &["--from", "1d"]).is_empty());
    let Ran { code, out, told } = history(&["\"", "unspoken"]);
    assert_eq!((code, out.as_str(), told.as_str()), (Some(0), "", "the history has no such event\n"));
}

fn shown(home: &Path, id: &str) {
    let show = ["history", "show", id, "--config", "camscribe.toml"];
    let page = done(home, &show);
    for row in [
        "id           ",
        "camera       porch of node edge1\n",
        "answer       round: ",
        "model        shapes on cpu, f32\n",
        "replay       camscribe replay ",
    ] {
        assert!(page.contains(row), "{row}: {page}");
    }
    let with_frames = [&show[..], &["--frames", "seen/here"]].concat();
    assert_eq!(run(home, &with_frames).told, "written into seen/here: 8 frames\n");
    let folder = home.join("seen/here");
    assert_eq!((mode(&folder), fs::read_dir(&folder).unwrap().count()), (0o700, 8));
    let frame = folder.join(format!("{id}-7.png"));
    assert_eq!(mode(&frame), 0o600);
    assert!(image::open(&frame).is_ok());
    let Ran { code, told, .. } = run(home, &with_frames);
    assert!(code == Some(1) && told.contains("name another folder"), "{told}");
}

fn exported(home: &Path) {
    let until = lines(&done(home, &["history", "export", "--state-dir", "state"])).pop().unwrap();
    // What comes meanwhile is left out.
    let export = |arguments: &[&str]| {
        let to =
            ["history", "export", "--state-dir", "state", "--to", until["clip"]["end"].as_str().unwrap()];
        let output = output(home, &[&to, arguments].concat());
        assert!(output.status.success(), "{output:?}");
        (output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let events = lines(&String::from_utf8(export(&[]).0).unwrap());
    assert!(events.len() >= 2);

    fs::write(home.join("events.csv"), "of before").unwrap();
    let (out, told) = export(&["--format", "csv", "-o", "events.csv"]);
    assert_eq!((out.len(), told), (0, format!("exported: {} events\n", events.len())));
    let table = fs::read_to_string(home.join("events.csv")).unwrap();
    let rows: Vec<_> = table.split("\r\n").collect();
    assert_eq!(rows[0], "id,camera,start,end,type,description,answers,alerts");
    assert_eq!(rows.len(), events.len() + 2, "{table}");
    assert!(rows[1].starts_with(&format!("\"{}\",\"", id(&events[0]))), "{table}");

    let (_, told) = export(&["--format", "zip", "-o", "all.zip"]);
    assert_eq!(told, format!("exported: {} events, {} frames\n", events.len(), 8 * events.len()));
    let (piped, _) = export(&["--format", "zip"]);
    fs::write(home.join("piped.zip"), piped).unwrap();
    for (name, bits) in [("all.zip", 0o600), ("events.csv", 0o600)] {
        assert_eq!(mode(&home.join(name)), bits, "{name}");
    }
    for (archive, folder) in [("all.zip", "all"), ("piped.zip", "piped")] {
        assert!(
            tool(home, "unzip", &["-tqq", archive]) && tool(home, "unzip", &["-q", archive, "-d", folder])
        );
        let folder = home.join(folder);
        assert!(tool(&folder, "sha256sum", &["-c", "--strict", "--quiet", "SHA256SUMS"]));
        let text = fs::read_to_string(folder.join("events.jsonl")).unwrap();
        assert_eq!(lines(&text), events);
        let frames = fs::read_dir(folder.join("frames")).unwrap();
        let ids: BTreeSet<_> = frames.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(ids, events.iter().map(|event| id(event).to_owned()).collect());
        assert!(image::open(folder.join("frames").join(id(&events[0])).join("0.png")).is_ok());
    }
    let names = fs::read_dir(home).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.ends_with(".part")));
    let Ran { code, told, .. } = run(home, &["history", "export", "--state-dir", "state", "-o", "all"]);
    assert!(code == Some(2) && told.contains("all is no regular file"), "{told}");
}

fn tool(folder: &Path, name: &str, arguments: &[&str]) -> bool {
    Command::new(name).args(arguments).current_dir(folder).status().unwrap().success()
}

fn forgotten(home: &Path) {
    let forget = ["history", "forget", "--config", "camscribe.toml", "--camera", "gate"];
    let Ran { code, told, .. } = run(home, &forget);
    assert!(
        code == Some(2) && told.contains(" frames of camera gate, for good?") && told.contains("--yes"),
        "{told}"
    );
    let Ran { code, told, .. } = run(home, &[&forget[..], &["--to", "0s", "--yes"]].concat());
    assert!(code == Some(0) && told.starts_with("forgotten: ") && told.contains("are still sent"), "{told}");
    let Ran { code, told, .. } = run(home, &[&forget[..], &["--to", "1d"]].concat());
    assert!(code == Some(0) && told.ends_with(": nothing is forgotten\n"), "{told}");
    assert!(!search(home, &["--camera", "porch"]).is_empty());
}

#[test]
fn a_replay_finds_changed_frames_and_says_why_others_cannot_be_replayed() {
    let daemon = daemon();
    let home = daemon.home.path().to_owned();
    let mut events = search(&home, &["circle", "--camera", "porch"]);
    let (second, first) = (events.pop().unwrap(), events.pop().unwrap());
    let moved = tempfile::tempdir().unwrap();
    // The daemon would go on.
    for entry in fs::read_dir(home.join("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, moved.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    drop(daemon);
    let state = moved.path().to_str().unwrap();
    let replay = |event: &Value, arguments: &[&str]| {
        run(moved.path(), &[&["replay", id(event), "--state-dir", state], arguments].concat())
    };
    let Ran { code, told, .. } = replay(&first, &["--model", "shapes", "--device", "cpu", "--dtype", "f32"]);
    assert_eq!(code, Some(0), "{told}");
    let Ran { code, told, .. } = replay(&first, &["--model", "some/other"]);
    assert!(code == Some(1) && told.contains("cannot be found") && told.contains("camscribe pull"), "{told}");
    let database = rusqlite::Connection::open(moved.path().join("history.db")).unwrap();
    let of = |event: &Value| {
        let hex = id(event).replace('-', "");
        format!("event = (SELECT row FROM events WHERE hex(id) = upper('{hex}'))")
    };
    let newest = "SELECT picture FROM frames WHERE number = 0 LIMIT 1";
    let sql = format!("UPDATE frames SET picture = ({newest}) WHERE {}", of(&first));
    assert_eq!(database.execute(&sql, []).unwrap(), 8);
    let Ran { code, out, told } = replay(&first, &[]);
    assert!(code == Some(1) && out.starts_with("other words\n  then: A red circle"), "{out}{told}");
    assert!(told.contains("is not described the same again"), "{told}");
    let sql = format!("UPDATE evidence SET is_lossless = 0 WHERE {}", of(&second));
    assert_eq!(database.execute(&sql, []).unwrap(), 1);
    let Ran { code, told, .. } = replay(&second, &[]);
    assert!(code == Some(1) && told.contains("history.frame_format = \"lossless\""), "{told}");
    database.execute(&format!("DELETE FROM frames WHERE {}", of(&second)), []).unwrap();
    assert!(replay(&second, &[]).told.contains("have been deleted"));
    let unknown = serde_json::json!({"id": "00000000-0000-0000-0000-000000000000"});
    let Ran { code, told, .. } = replay(&unknown, &[]);
    assert!(code == Some(1) && told.contains("the history has no event 0000"), "{told}");
}
