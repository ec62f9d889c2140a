//! Which configurations are accepted and what they mean, as `camscribe check` prints it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use camscribe::config::schema::{self, SectionSchema};

use crate::support::check::{Check, PORCH};

#[test]
fn the_environment_is_read_by_each_keys_type_and_errors_name_the_variable() {
    for (variable, value, text) in [
        ("CAMSCRIBE__DEFAULTS__ENABLED", "yes", "true or false, not \"yes\""),
        ("CAMSCRIBE__DEFAULTS__ENABLED", "True", "true or false, not \"True\""),
        ("CAMSCRIBE__MODEL__MAX_BATCH", "16.0", "a whole number from 1 to 64, not \"16.0\""),
        ("CAMSCRIBE__MODEL__MAX_BATCH", "+4", "a whole number from 1 to 64"),
        ("CAMSCRIBE__MODEL__MAX_BATCH", "", "a whole number from 1 to 64"),
        ("CAMSCRIBE__MODEL__LINGER", "20", "has no unit"),
        ("CAMSCRIBE__MODEL__LNGER", "20ms", "did you mean linger?"),
        ("CAMSCRIBE__MODELS__LINGER", "20ms", "did you mean model?"),
        ("CAMSCRIBE__MODEL", "x", "CAMSCRIBE__SECTION__KEY"),
        ("CAMSCRIBE__CAMERAS__PORCH", "x", "CAMSCRIBE__CAMERAS__PORCH__URI"),
        ("CAMSCRIBE__CAMERAS__PORCH__PASSWORD", "hunter2", "name that file with password_file"),
        ("CAMSCRIBE__CAMERAS__PORCH__URI", "http://me:hunter2@h", "unknown scheme"),
        ("CAMSCRIBE__CAMERAS__PROCH__FRAMES", "4", "there is no camera proch; did you mean porch?"),
        ("CAMSCRIBE__CAMERAS__PÖRCH__URI", "/x.mp4", "cannot name a camera"),
        ("CAMSCRIBE__MQTT__URL", "mqtt://me:hunter2@h", "holds credentials"),
        ("CAMSCRIBE__CAMERAS__PORCH__CROP", "0,0", "a crop has two"),
        ("CAMSCRIBE__CAMERAS__PORCH__MASKS__STREET", "0,0 1,0", "has 2 corners"),
        ("CAMSCRIBE__CAMERAS__PROCH__MASKS__STREET", "0,0 1,0 1,1", "did you mean porch?"),
    ] {
        let answer = Check::of(PORCH).env(variable, value).run();
        assert_eq!(answer.code, Some(78), "{variable}: {answer:?}");
        let location = format!("environment variable {variable}: ");
        assert!(answer.err.contains(&location) && answer.err.contains(text), "{}", answer.err);
        assert!(!answer.err.contains("hunter2"), "{}", answer.err);
    }
}

#[test]
fn the_environment_overrides_the_file_and_can_name_any_camera() {
    let toml = format!(
        "{PORCH}[cameras.front-door]\nuri = \"/a.mp4\"\nframes = 3\nmasks.way-in = \"0,0 1,0 1,0.1\"\n[model]\nmax_batch = 4\n"
    );
    let toml = Check::of(&toml)
        .env("CAMSCRIBE__MODEL__MAX_BATCH", "5")
        .env("CAMSCRIBE__DEFAULTS__ENABLED", "false")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__FRAMES", "7")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__URI", "/b.mp4")
        .env("CAMSCRIBE__CAMERAS__YARD__URI", "test://smpte")
        .env("CAMSCRIBE__CAMERAS__YARD__ENABLED", "true")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__CROP", "0,0 1,0.5")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__MASKS__WAY_IN", "0,0,1,0,1,0.2")
        .env("CAMSCRIBE__CAMERAS__YARD__MASKS__STREET", "0,0 1,0 1,0.4 0,0.4")
        .env("CAMSCRIBE_OTHER", "is not ours")
        .run()
        .toml();
    assert_eq!(toml["model"]["max_batch"].as_integer(), Some(5));
    let cameras = toml["cameras"].as_table().unwrap();
    assert_eq!(cameras.keys().collect::<Vec<_>>(), ["front-door", "porch", "yard"]);
    assert_eq!(cameras["front-door"]["frames"].as_integer(), Some(7));
    assert!(cameras["front-door"]["uri"].as_str().unwrap().ends_with("/b.mp4"));
    assert_eq!(cameras["porch"]["enabled"].as_bool(), Some(false));
    assert_eq!(cameras["yard"]["enabled"].as_bool(), Some(true));
    assert_eq!(cameras["front-door"]["crop"].as_str(), Some("0,0 1,0.5"));
    assert_eq!(cameras["front-door"]["masks"]["way-in"].as_str(), Some("0,0,1,0,1,0.2"));
    assert_eq!(cameras["yard"]["masks"]["street"].as_str(), Some("0,0 1,0 1,0.4 0,0.4"));
}

#[test]
fn the_state_directory_is_the_configured_one_else_systemds_else_the_default() {
    let of = |mut check: Check| check.run().toml()["node"]["state_dir"].as_str().unwrap().to_owned();
    assert_eq!(of(Check::of(PORCH)), "/var/lib/camscribe");
    assert_eq!(of(Check::of(PORCH).env("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")), "/var/lib/a");
    let written = format!("[node]\nstate_dir = \"/srv/c\"\n{PORCH}");
    assert_eq!(of(Check::of(&written).env("STATE_DIRECTORY", "/var/lib/a")), "/srv/c");
}

#[test]
fn a_window_alone_sets_the_stride_and_few_frames_alone_set_the_minimum() {
    let toml = Check::of(&format!("{PORCH}window = \"4s\"\nframes = 1\n")).run().toml();
    let porch = &toml["cameras"]["porch"];
    assert_eq!((porch["stride"].as_str(), porch["min_frames"].as_integer()), (Some("4s"), Some(1)));
}

#[test]
fn the_built_in_model_gets_its_own_prompt_unless_one_is_configured() {
    let asked = |defaults: &str| {
        let toml = Check::of(&format!("{PORCH}[model]\nid = \"shapes\"\n{defaults}")).run().toml();
        toml["cameras"]["porch"]["prompt"].as_str().unwrap().to_owned()
    };
    assert_eq!(asked(""), "Describe what happens in this video.");
    assert_eq!(asked("[defaults]\nprompt = \"What moves?\"\n"), "What moves?");
}

#[test]
fn a_variable_with_a_single_underscore_is_reported_as_ignored() {
    let answer = Check::of(PORCH).env("CAMSCRIBE_MQTT_URL", "mqtt://h").env("CAMSCRIBE_OTHER", "x").run();
    assert_eq!(answer.toml()["mqtt"]["url"].as_str(), Some("mqtt://localhost:1883"));
    assert!(answer.err.contains("CAMSCRIBE_MQTT_URL: is not read"), "{}", answer.err);
    assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
}

#[test]
fn the_output_of_check_is_a_configuration_with_the_same_output() {
    let first =
        Check::of(&format!("{PORCH}window = \"1m30s\"\nmasks.street = \"0,0 1,0 1,0.4\"\nprompt = \"two\\nlines, a \\\"quote\\\"\"\n")).run();
    first.toml();
    let second = Check::of(&first.out).run();
    assert_eq!(first.out, second.out);
}

#[test]
fn secrets_are_used_and_never_shown() {
    let toml = "[mqtt]\nusername = \"me\"\npassword_file = \"broker\"\n\
                [cameras.a]\nuri = \"rtsp://viewer:hunter2@192.0.2.10/s\"\n\
                [cameras.b]\nuri = \"rtsp://192.0.2.10/s?password=hunter2\"\nusername = \"viewer\"\npassword_file = \"camera\"\n";
    let answer = Check::of(toml)
        .file("broker", "hunter2-broker\n", 0o600)
        .file("camera", "hunter2-camera", 0o644)
        .credentials()
        .run();
    let shown = format!("{}{}", answer.out, answer.err);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(answer.toml()["cameras"]["a"]["uri"].as_str(), Some("rtsp://***@192.0.2.10/s"));
    let warnings: Vec<_> = answer.err.lines().collect();
    assert_eq!(warnings.len(), 2, "{}", answer.err);
    assert!(warnings[0].contains("c.toml:5: cameras.a.uri: holds credentials"), "{}", answer.err);
    assert!(warnings[1].contains("cameras.b.password_file: every user can read"), "{}", answer.err);
}

#[test]
fn a_client_certificate_and_its_key_go_together() {
    let both = format!(
        "{PORCH}[mqtt]\nurl = \"mqtts://h\"\nclient_cert_file = \"c.pem\"\nclient_key_file = \"k.pem\"\n"
    );
    for (toml, text) in [
        // These files hold no certificate.
        (both.clone(), "mqtt.client_cert_file "),
        (
            both.replace("client_key_file", "ca_file"),
            "mqtt.client_cert_file: needs client_key_file beside it",
        ),
        (
            both.replace("client_cert_file", "ca_file"),
            "mqtt.client_key_file: needs client_cert_file beside it",
        ),
    ] {
        let pem = |label| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let pem = [pem("CERTIFICATE"), pem("PRIVATE KEY")].concat();
        let answer = Check::of(&toml).file("c.pem", &pem, 0o600).file("k.pem", &pem, 0o600).run();
        assert_eq!(answer.code, Some(78), "{answer:?}");
        assert!(answer.err.contains(text), "{}", answer.err);
    }
}

#[test]
fn a_password_file_holds_exactly_one_password() {
    let toml = format!("{PORCH}[mqtt]\nusername = \"me\"\npassword_file = \"secret\"\n");
    for (content, text) in [
        ("", "is empty"),
        ("\n", "is empty"),
        ("hunter2\nhunter3\n", "more than one line"),
        (&"x".repeat(5000), "longer than 4096 bytes"),
    ] {
        let answer = Check::of(&toml).file("secret", content, 0o600).credentials().run();
        assert_eq!(answer.code, Some(78), "{answer:?}");
        assert!(answer.err.contains("mqtt.password_file: ") && answer.err.contains(text), "{}", answer.err);
        assert!(!answer.err.contains("hunter"), "{}", answer.err);
    }
    let mut check = Check::of(&toml).credentials();
    fs::create_dir(check.path("secret")).unwrap();
    assert!(check.run().err.contains("is not a file"));
}

#[test]
fn names_that_the_environment_cannot_tell_apart_are_refused() {
    let camera = |name: &str| format!("[cameras.{name}]\nuri = \"test://shapes\"\n");
    let answer = Check::of(&(camera("front-door") + &camera("front_door"))).run();
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("cameras.front-door: differs from \"front_door\" by"), "{}", answer.err);
    assert_eq!(Check::of(&(camera("front-door") + &camera("back_door"))).run().code, Some(0));
}

#[test]
fn a_file_that_is_missing_or_names_no_camera_is_refused() {
    let mut check = Check::of("");
    let answer = check.run();
    assert!(
        answer.err.contains("c.toml: there is no camera: write a [cameras.<id>] section"),
        "{}",
        answer.err
    );
    fs::remove_file(check.path("c.toml")).unwrap();
    let answer = check.run();
    assert_eq!(answer.code, Some(78));
    assert!(answer.err.contains("c.toml: cannot be read: No such file"), "{}", answer.err);
    fs::write(check.path("c.toml"), [b'#', 0xff]).unwrap();
    assert!(check.run().err.contains("UTF-8"));
    fs::write(check.path("c.toml"), "# much too long\n".repeat(100_000)).unwrap();
    assert!(check.run().err.contains("longer than 1048576 bytes"));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    for arguments in [&["check", "--wibble"][..], &["wibble"], &[], &["completions", "wibble"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_camscribe")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_schema_is_json_each_shell_gets_its_completions_and_the_manual_page_knows_every_command() {
    let camscribe = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_camscribe")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let schema: serde_json::Value = serde_json::from_str(&camscribe(&["schema"])).unwrap();
    assert_eq!(schema["title"], "camscribe event");
    assert!(jsonschema::validator_for(&schema).is_ok());
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(camscribe(&["completions", shell]).contains("describe"), "{shell}");
    }
    let page = camscribe(&["man"]);
    assert!(page.contains("\n.TH camscribe 1"), "{page}");
    for command in ["RUN", "DESCRIBE", "CHECK", "PULL", "FORGET", "DEMO", "SCHEMA", "COMPLETIONS"] {
        assert!(page.contains(&format!("\n.SH CAMSCRIBE {command}\n")), "{command}");
    }
    assert!(!page.contains("CAMSCRIBE MAN"), "it is for packagers");
}

#[test]
fn the_reference_file_explains_every_key_gives_its_default_and_checks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/camscribe.toml");
    let text = fs::read_to_string(&path).unwrap();
    let answer = Check::of(&text).run();
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));

    // What is commented out, with no space behind the "#", is right as well.
    let used = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let text: String = text.lines().map(used).collect();
    let answer = Check::of(&text).run();
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));

    let toml: toml::Table = text.parse().unwrap();
    let written: BTreeSet<&str> = toml.keys().map(String::as_str).collect();
    let groups = schema::GROUPS.iter().map(|group| group.name);
    assert_eq!(written, schema::SECTIONS.iter().map(|section| section.name).chain(groups).collect());
    for section in schema::SECTIONS {
        assert_has_defaults(&toml[section.name], section);
    }
    assert_has_defaults(&toml["questions"]["parcel"], &schema::QUESTIONS.section);
    assert_has_defaults(&toml["cameras"]["porch"]["alerts"]["parcel"], &schema::ALERTS.section);
    for (id, camera) in toml[schema::CAMERAS.name].as_table().unwrap() {
        assert!(camera.get(schema::CAMERAS.required).is_some(), "{id} lacks {}", schema::CAMERAS.required);
    }
    // Each key has a comment above it, or above the keys just before it.
    let lines: Vec<_> = text.lines().collect();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| l.contains(" = ") && !l.starts_with('#')) {
        let explained = lines[..i].iter().rev().take_while(|l| !l.is_empty()).any(|l| l.starts_with("# "));
        assert!(explained, "nothing explains {line}");
    }
}

/// Asserts that every key of the section is written, each with its default if it has one.
fn assert_has_defaults(table: &toml::Value, section: &SectionSchema) {
    let table = table.as_table().unwrap();
    let written: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    assert_eq!(written, section.keys.iter().map(|key| key.name).collect(), "[{}]", section.name);
    for key in section.keys.iter().filter(|key| key.default.is_some()) {
        let value = match &table[key.name] {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(texts) if texts.is_empty() => String::new(),
            other => other.to_string(),
        };
        assert_eq!(Some(value.as_str()), key.default, "{}.{}", section.name, key.name);
    }
}

#[test]
fn the_fragments_of_conf_d_override_the_file_in_their_order() {
    let mut check = Check::of(&format!("{PORCH}frames = 4\n[model]\nmax_batch = 4\n"));
    fs::create_dir(check.path("conf.d")).unwrap();
    check = check
        .file("conf.d/20-box.toml", "[cameras.porch]\nframes = 6\n[cameras.yard]\nuri = \"a.mp4\"\n", 0o644)
        .file("conf.d/10-fleet.toml", "[cameras.porch]\nframes = 5\nmin_frames = 3\n", 0o644)
        .file("conf.d/.hidden.toml", "nonsense", 0o644)
        .file("conf.d/30-old.toml.bak", "nonsense", 0o644);
    let toml = check.run().toml();
    assert_eq!(toml["model"]["max_batch"].as_integer(), Some(4));
    let cameras = toml["cameras"].as_table().unwrap();
    assert_eq!(cameras["porch"]["frames"].as_integer(), Some(6));
    assert_eq!(cameras["porch"]["min_frames"].as_integer(), Some(3));
    // A relative path starts at the folder of the main file.
    assert!(!cameras["yard"]["uri"].as_str().unwrap().contains("conf.d"));
    let answer = check.env("CAMSCRIBE__CAMERAS__PORCH__FRAMES", "7").run().toml();
    assert_eq!(answer["cameras"]["porch"]["frames"].as_integer(), Some(7));
}

#[test]
fn an_error_in_a_fragment_is_told_with_its_file_and_does_not_hide_those_of_the_main_file() {
    let check = Check::of(&format!("{PORCH}frames = 0\n"));
    fs::create_dir(check.path("conf.d")).unwrap();
    let mut check = check.file("conf.d/a.toml", "[mqtt]\nurl = \"http://x\"\n", 0o644);
    let answer = check.run();
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("c.toml:3: cameras.porch.frames: "), "{}", answer.err);
    assert!(answer.err.contains("conf.d/a.toml:2: mqtt.url: "), "{}", answer.err);
}

#[test]
fn a_broken_pipeline_file_is_told_without_a_probe() {
    let check = Check::of(&format!("{PORCH}pipeline = \"own\"\n"));
    fs::create_dir(check.path("pipelines")).unwrap();
    let mut check = check.file("pipelines/own.txt", "nosuchelement name=source ! appsink name=frames", 0o644);
    let answer = check.run();
    assert_eq!((answer.code, answer.out.as_str()), (Some(78), ""), "{answer:?}");
    assert!(answer.err.contains("cameras.porch.pipeline: pipeline file "), "{}", answer.err);
    assert!(answer.err.contains("nosuchelement"), "{}", answer.err);
    // Together with what is wrong with the broker's files.
    fs::write(check.path("ca.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let mut check = check.env("CAMSCRIBE__MQTT__URL", "mqtts://h").env("CAMSCRIBE__MQTT__CA_FILE", "ca.pem");
    let answer = check.run();
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("nosuchelement") && answer.err.contains("ca.pem"), "{}", answer.err);
}
