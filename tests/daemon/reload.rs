//! SIGHUP applies what changed in the configuration and touches nothing else.

use std::collections::BTreeSet;

use camscribe::event::Event;

use crate::support::{
    broker::{self, Mosquitto, Received, Subscriber},
    daemon::{Daemon, wait},
};

const STAYS: &str = "[cameras.stays]\nuri = \"test://shapes\"\n";
const GOES: &str = "[cameras.goes]\nuri = \"test://shapes?period=2s\"\n";
const COMES: &str = "[cameras.comes]\nuri = \"test://shapes?period=3s\"\n";

fn toml(port: u16, cameras: &[&str]) -> String {
    format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{port}"
        defaults = {{ window = "2s", frames = 2, prompt = "Describe what happens in this video." }}
        {}"#,
        cameras.concat()
    )
}

/// Returns the events of a camera.
fn events(messages: &[Received], camera: &str) -> Vec<Event> {
    let topic = format!("camscribe/edge1/{camera}/description");
    let of_camera = messages.iter().filter(|m| m.topic == topic);
    of_camera.map(|m| serde_json::from_value(m.json()).unwrap()).collect()
}

/// Asserts that no clip is missing but those that were dropped by overload, and that none has a gap. A clip may
/// be delivered twice.
fn check_whole(events: &[Event]) {
    let mut seen = BTreeSet::new();
    let once: Vec<_> = events.iter().filter(|event| seen.insert(event.id)).collect();
    assert!(once.len() > 1);
    for pair in once.windows(2) {
        assert_eq!(pair[1].clip.seq, pair[0].clip.seq + 1 + pair[1].dropped.clips);
    }
    assert!(once.iter().all(|event| !event.clip.gap));
}

/// Returns the topics below `filter` that have a retained message. A marker that is published now ends the
/// wait.
pub fn retained(port: u16, filter: &str, marker: &str) -> Vec<String> {
    broker::publish(port, marker, "marker");
    let subscriber = Subscriber::with(port, filter, &["-t", marker, "--retain-as-published"]);
    broker::publish(port, marker, "marker");
    let all = subscriber.until(|m| m.topic == marker && !m.retained);
    all.into_iter().filter(|m| m.retained).map(|m| m.topic).collect()
}

#[test]
fn a_reload_touches_only_the_cameras_that_changed() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, "camscribe/#");
    let daemon = Daemon::start(&toml(port, &[STAYS, GOES]));
    let described = |camera: &str| {
        let topic = format!("camscribe/edge1/{camera}/description");
        move |m: &Received| m.topic == topic
    };
    let mut seen = subscriber.until(described("goes"));
    seen.extend(subscriber.until(described("stays")));
    let of_goes = |topics: &[String]| topics.iter().filter(|t| t.contains("/goes")).count();
    // Of Home Assistant's discovery.
    assert_eq!(of_goes(&retained(port, "homeassistant/#", "a")), 10);

    daemon.reload(&toml(port, &[STAYS, COMES]));
    daemon.logged("the configuration is active: started: comes; removed: goes");
    seen.extend(subscriber.until(described("comes")));
    seen.extend(subscriber.until(described("stays")));
    assert_eq!(of_goes(&retained(port, "homeassistant/#", "b")), 0);
    assert_eq!(retained(port, "homeassistant/#", "c").iter().filter(|t| t.contains("/comes")).count(), 10);
    let info = Subscriber::to(port, "camscribe/edge1/info").next().json();
    let names: Vec<_> = info["cameras"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["comes", "stays"]);

    // A file with errors changes nothing, and each error is logged.
    let broken = toml(port, &[STAYS, "[cameras.goes]\nurl = \"x\"\n[cameras.third]\nuri = \"ftp://x\"\n"]);
    daemon.reload(&broken);
    daemon.logged("the new configuration is rejected");
    daemon.logged("cameras.goes.url: ");
    daemon.logged("cameras.third.uri: ");
    // So does a file with an impossible source.
    daemon.reload(&toml(port, &[STAYS, "[cameras.goes]\nuri = \"test://no-such-scene\"\n"]));
    daemon.logged("cameras.goes.uri: test://no-such-scene does not exist");
    seen.extend(subscriber.until(described("comes")));
    seen.extend(subscriber.until(described("stays")));

    // Keys that need a restart are named; the rest of the same file is applied.
    let other = toml(port, &[STAYS, COMES]).replace("\"edge1\"", "\"edge2\"") + "enabled = false\n";
    daemon.reload(&other);
    daemon.logged("the configuration is active: disabled: comes");
    daemon.logged("changes in [node] take effect after a restart of camscribe");
    seen.extend(
        subscriber.until(|m| m.topic == "camscribe/edge1/comes/status" && m.text().contains("\"disabled\"")),
    );
    seen.extend(subscriber.until(described("stays")));
    check_whole(&events(&seen, "stays"));
    assert_eq!(daemon.metric("camscribe_camera_state{camera=\"comes\",state=\"disabled\"}"), Some(1.0));
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_changed_prompt_is_used_from_the_next_clip_on() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let daemon = Daemon::start(&toml(broker.port(), &[STAYS, GOES]));
    let mut seen = subscriber.until(|m| m.topic == "camscribe/edge1/goes/description");
    let changed = format!("{GOES}prompt = \"What moves?\"\n");
    daemon.reload(&toml(broker.port(), &[STAYS, &changed]));
    seen.extend(
        subscriber
            .until(|m| m.topic == "camscribe/edge1/goes/description" && m.json()["prompt"] == "What moves?"),
    );
    seen.extend(subscriber.until(|m| m.topic == "camscribe/edge1/stays/description"));
    check_whole(&events(&seen, "stays"));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_new_broker_receives_what_the_old_one_did_not() {
    let (first, second) = (Mosquitto::start(""), Mosquitto::start(""));
    let at_first = Subscriber::to(first.port(), "camscribe/#");
    let at_second = Subscriber::to(second.port(), "camscribe/#");
    let daemon = Daemon::start(&toml(first.port(), &[STAYS]));
    let described = |m: &Received| m.topic == "camscribe/edge1/stays/description";
    let mut seen = at_first.until(described);
    daemon.reload(&toml(second.port(), &[STAYS]));
    daemon.logged("the configuration is active: reconnecting to the broker");
    seen.extend(at_first.until(|m| m.topic == "camscribe/edge1/status" && m.text().is_empty()));
    for _ in 0..2 {
        seen.extend(at_second.until(described));
    }
    check_whole(&events(&seen, "stays"));
    assert_eq!(retained(first.port(), "#", "a"), [] as [String; 0]);
    assert!(retained(second.port(), "homeassistant/#", "a").iter().any(|t| t.contains("stays")));
    let status = Subscriber::to(second.port(), "camscribe/edge1/stays/status").next();
    assert_eq!(status.json()["state"], "online");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_camera_removed_while_the_daemon_is_stopped_leaves_no_retained_topic() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let mut daemon = Daemon::start(&toml(broker.port(), &[STAYS, GOES]));
    subscriber.until(|m| m.topic == "camscribe/edge1/goes/snapshot");
    daemon.kill();
    std::fs::write(daemon.path("camscribe.toml"), toml(broker.port(), &[STAYS])).unwrap();
    daemon.restart();
    subscriber.until(|m| m.topic == "camscribe/edge1/goes/status" && m.text().is_empty());
    subscriber.until(|m| m.topic == "camscribe/edge1/stays/latest");
    assert_eq!(daemon.stop().0, Some(0));
    let left = retained(broker.port(), "#", "a");
    assert!(left.iter().any(|topic| topic.contains("stays")), "{left:?}");
    assert!(left.iter().all(|topic| !topic.contains("goes")), "{left:?}");
}

#[test]
fn names_and_prefixes_changed_while_the_daemon_is_stopped_leave_no_retained_topic() {
    let broker = Mosquitto::start("");
    let before = toml(broker.port(), &[STAYS]);
    let mut daemon = Daemon::start(&before);
    Subscriber::to(broker.port(), "#").until(|m| m.topic == "camscribe/edge1/stays/snapshot");
    for (after, there) in [
        (format!("mqtt.commands = false\n{before}"), "homeassistant/sensor/"),
        (format!("mqtt.discovery_prefix = \"ha\"\n{before}"), "ha/switch/"),
        (before.replace("edge1", "edge2"), "camscribe/edge2/stays/state/prompt"),
    ] {
        daemon.signal("TERM");
        assert_eq!(daemon.wait(), Some(0));
        std::fs::write(daemon.path("camscribe.toml"), &after).unwrap();
        let subscriber = Subscriber::to(broker.port(), "#");
        daemon.restart();
        // Messages that were retained come first; those of this run follow.
        subscriber.until(|m| !m.retained && m.topic.ends_with("/stays/description"));
        subscriber.until(|m| !m.retained && m.topic.ends_with("/stays/snapshot") && !m.payload.is_empty());
        let left = retained(broker.port(), "#", "a");
        assert!(left.iter().any(|topic| topic.starts_with(there)), "{after}\n{left:?}");
        let node = if after.contains("edge2") { "edge2" } else { "edge1" };
        let ha = if after.contains("\"ha\"") { "ha/" } else { "homeassistant/" };
        for topic in &left {
            assert!(topic.contains(node), "{after}\n{topic}");
            assert!(topic.starts_with("camscribe/") || topic.starts_with(ha), "{after}\n{topic}");
            let controls =
                topic.contains("/state/") || topic.contains("/switch/") || topic.contains("/text/");
            assert!(!(controls && after.contains("commands = false")), "{after}\n{topic}");
        }
    }
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_camera_that_comes_back_with_other_broker_settings_is_found_by_home_assistant() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, "camscribe/#");
    let daemon = Daemon::start(&toml(port, &[STAYS, GOES]));
    subscriber.until(|m| m.topic == "camscribe/edge1/goes/snapshot");
    daemon.reload(&toml(port, &[STAYS]));
    subscriber.until(|m| m.topic == "camscribe/edge1/goes/status" && m.text().is_empty());
    daemon.reload(&toml(port, &[STAYS, GOES]).replace("mqtt.url", "mqtt.version = \"5\"\nmqtt.url"));
    subscriber.until(|m| m.topic == "camscribe/edge1/goes/description");
    assert_eq!(retained(port, "homeassistant/#", "a").iter().filter(|t| t.contains("/goes")).count(), 10);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_new_name_is_announced_and_restarts_no_camera() {
    let broker = Mosquitto::start("");
    let config = "homeassistant/sensor/camscribe-edge1/stays-description/config";
    let daemon = Daemon::start(&toml(broker.port(), &[STAYS]));
    let subscriber = Subscriber::to(broker.port(), config);
    assert_eq!(subscriber.next().json()["device"]["name"], "stays");
    daemon.reload(&toml(broker.port(), &[STAYS, "name = \"Back yard\"\n"]));
    daemon.logged("the configuration is active: renamed: stays");
    assert_eq!(subscriber.next().json()["device"]["name"], "Back yard");
    assert!(!daemon.log().contains("ended after"), "{}", daemon.log());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn the_newest_event_of_a_camera_stays_retained_after_new_broker_settings() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    // The scene is still and is described once.
    let still = "[cameras.still]\nuri = \"test://black\"\n";
    let before = toml(broker.port(), &[still]);
    let daemon = Daemon::start(&before);
    subscriber.until(|m| m.topic == "camscribe/edge1/still/snapshot");
    subscriber.until(|m| m.topic == "camscribe/edge1/still/description" && m.json()["type"] == "unchanged");
    for after in [
        format!("mqtt.commands = false\n{before}"),
        format!("mqtt = {{ commands = false, topic_prefix = \"other\" }}\n{before}"),
    ] {
        let after = after.replacen("mqtt.url", "# mqtt.url", usize::from(after.contains("mqtt = {")));
        let url = format!("mqtt = {{ url = \"mqtt://127.0.0.1:{}\",", broker.port());
        daemon.reload(&after.replace("mqtt = {", &url));
        daemon.logged("reconnecting to the broker");
        let prefix = if after.contains("other") { "other" } else { "camscribe" };
        let filter = format!("{prefix}/edge1/still/latest");
        let latest = Subscriber::to(broker.port(), &filter).until(|m| !m.text().is_empty());
        assert_eq!(latest.last().unwrap().json()["type"], "description");
        let filter = format!("{prefix}/edge1/still/snapshot");
        Subscriber::to(broker.port(), &filter).until(|m| m.payload.starts_with(&[0xFF, 0xD8]));
    }
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_camera_that_failed_is_retried_by_a_reload() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let own = format!("{GOES}pipeline = \"own\"\n");
    let toml = toml(broker.port(), &[STAYS, &own]);
    let daemon = Daemon::with(&toml, |home, _| {
        std::fs::create_dir(home.join("pipelines")).unwrap();
        std::fs::write(home.join("pipelines/own.txt"), "nosuchelement name=source ! fakesink").unwrap();
    });
    let status = "camscribe/edge1/goes/status";
    subscriber.until(|m| m.topic == status && m.text().contains("nosuchelement"));
    // Another camera that is disabled changes nothing.
    subscriber.until(|m| m.topic == "camscribe/edge1/stays/description");
    broker::publish(broker.port(), "camscribe/edge1/stays/set/enabled", "OFF");
    subscriber.until(|m| m.topic == "camscribe/edge1/stays/status" && m.text().contains("disabled"));
    // A file with a mistake changes nothing.
    daemon.reload(&toml);
    daemon.logged("the new configuration is rejected");
    daemon.logged("cameras.goes.pipeline: pipeline file ");
    let shapes = include_str!("../../pipelines/shapes.txt");
    std::fs::write(daemon.path("pipelines/own.txt"), shapes).unwrap();
    daemon.reload(&toml);
    subscriber.until(|m| m.topic == status && m.text().contains("online"));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_credential_that_only_a_restart_brings_holds_up_nothing_else() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, "camscribe/#");
    let mut daemon = Daemon::with(&toml(port, &[STAYS]), |home, command| {
        std::fs::create_dir(home.join("credentials")).unwrap();
        command.env("CREDENTIALS_DIRECTORY", home.join("credentials"));
    });
    subscriber.until(|m| m.topic == "camscribe/edge1/stays/description");
    let new =
        "[cameras.new]\nuri = \"rtsp://127.0.0.1:9/\"\nusername = \"me\"\npassword_file = \"new-password\"\n";
    daemon.reload(&toml(port, &[STAYS, COMES, new]));
    let told = daemon.logged("cameras.new.password_file: ");
    assert!(told.contains("LoadCredential=") && told.contains("restart the service"), "{told}");
    assert!(told.contains("until then, what is new in cameras.new is not applied"), "{told}");
    daemon.logged("the configuration is active: started: comes");
    daemon.logged("one that is still the old one needs a restart");
    subscriber.until(|m| m.topic == "camscribe/edge1/comes/description");
    assert_eq!(daemon.metric("camscribe_config_last_reload_successful"), Some(1.0));
    assert_eq!(daemon.metric("camscribe_camera_state{camera=\"new\",state=\"offline\"}"), None);
    // The same at the start is a mistake.
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    daemon.restart();
    assert_eq!(daemon.wait(), Some(78));
    // With the credential everything is watched.
    std::fs::write(daemon.path("credentials/new-password"), "hunter2").unwrap();
    daemon.restart();
    subscriber.until(|m| m.topic == "camscribe/edge1/new/status" && !m.text().is_empty());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_rejected_reload_shows_at_the_broker_and_in_the_metrics() {
    let broker = Mosquitto::start("");
    let daemon = Daemon::start(&toml(broker.port(), &[STAYS]));
    daemon.logged("connected to the MQTT broker");
    let info = |wanted: fn(&serde_json::Value) -> bool| {
        let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/info");
        subscriber.until(|m| wanted(&m.json()["reload"])).last().unwrap().json()["reload"].clone()
    };
    daemon.reload("cameras.a.url = 1");
    let rejected = info(|reload| reload["error"].is_string());
    assert!(rejected["error"].as_str().unwrap().contains("camscribe.toml:1: cameras.a.url: "), "{rejected}");
    assert_eq!(daemon.metric("camscribe_config_last_reload_successful"), Some(0.0));
    daemon.reload(&toml(broker.port(), &[STAYS]));
    info(|reload| reload.is_object() && reload["error"].is_null());
    assert_eq!(daemon.metric("camscribe_config_last_reload_successful"), Some(1.0));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn counters_never_fall_and_every_clip_is_counted_once() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let daemon = Daemon::start(&toml(port, &[STAYS, GOES]));
    daemon.logged("connected to the MQTT broker");
    let of = |name: &str| format!("{name}{{camera=\"goes\"}}");
    let reason = |reason: &str| {
        let name = format!("camscribe_clips_dropped_total{{camera=\"goes\",reason=\"{reason}\"}}");
        daemon.metric(&name).unwrap_or(0.0)
    };
    let falling = ["camscribe_frames_total", "camscribe_clips_total", "camscribe_decoder_errors_total"];
    let mut before = falling.map(|_| 0.0);
    for window in ["1s", "2s", "1s", "2s"] {
        daemon.reload(&toml(port, &[STAYS, &format!("{GOES}window = \"{window}\"\nenabled = true\n")]));
        wait("new clips", || (daemon.metric(&of("camscribe_clips_total"))? > before[1]).then_some(()));
        let now = falling.map(|name| daemon.metric(&of(name)).unwrap());
        assert!(before.iter().zip(now).all(|(before, now)| now >= *before), "{before:?} {now:?}");
        before = now;
    }
    daemon.reload(&toml(port, &[STAYS, &format!("{GOES}enabled = false\n")]));
    wait("the last clips", || {
        let clips = daemon.metric(&of("camscribe_clips_total"))?;
        let events = daemon.metric(&of("camscribe_descriptions_total"))?
            + daemon.metric(&of("camscribe_unchanged_total"))?;
        let lost = reason("overload") + reason("undescribed") + reason("stopped");
        (clips == events + lost && clips >= before[1]).then_some(())
    });
    let now = falling.map(|name| daemon.metric(&of(name)).unwrap());
    assert!(before.iter().zip(now).all(|(before, now)| now >= *before), "{before:?} {now:?}");
    // A removed camera leaves the page.
    daemon.reload(&toml(port, &[STAYS]));
    daemon.logged("removed: goes");
    wait("its end", || (!daemon.get("/metrics").1.contains("camera=\"goes\"")).then_some(()));
    assert_eq!(daemon.stop().0, Some(0));
}
