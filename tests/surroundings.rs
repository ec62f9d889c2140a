//! What the machine itself does to the daemon: names that no longer resolve, a clock that is set.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use camscribe::{event::Event, frame::Clock};
use chrono::{TimeDelta, Utc};

#[path = "support/broker.rs"]
mod broker;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/rtsp.rs"]
mod rtsp;

use broker::{Mosquitto, Received, Subscriber};
use daemon::Daemon;
use proxy::{Line, Proxy};
use rtsp::RtspServer;

const STREAM: &str = "videotestsrc is-live=true pattern=ball \
     ! video/x-raw,format=I420,width=320,height=240,framerate=10/1 \
     ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96";

/// What a camera said, once each.
fn events(messages: &[Received], camera: &str) -> Vec<Event> {
    let (topic, mut ids) = (format!("camscribe/edge1/{camera}/description"), BTreeSet::new());
    let all = messages.iter().filter(|m| m.topic == topic);
    let all = all.map(|m| serde_json::from_value::<Event>(m.json()).unwrap());
    all.filter(|event| ids.insert(event.id)).collect()
}

/// No clip is missing but those that are counted as dropped.
fn assert_whole(events: &[Event]) {
    assert!(events.len() > 3, "{}", events.len());
    for pair in events.windows(2) {
        assert_eq!(pair[1].clip.seq, pair[0].clip.seq + 1 + pair[1].dropped.clips);
    }
}

fn described(camera: &str) -> impl FnMut(&Received) -> bool {
    let topic = format!("camscribe/edge1/{camera}/description");
    move |m| m.topic == topic
}

#[test]
fn names_that_no_longer_resolve_cost_nothing_but_time() {
    if !daemon::may_mount() {
        return println!("not run: hiding names from a process takes rights that this user lacks");
    }
    let broker = Mosquitto::start("");
    let line = Proxy::start(broker.port());
    let camera = RtspServer::start(STREAM);
    let port = camera.port();
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://broker.test:{}"
        defaults = {{ window = "1s", frames = 2, change_threshold = 0 }}
        cameras.named.uri = "rtsp://camera.test:{port}/stream"
        cameras.steady.uri = "test://shapes"
        "#,
        line.port()
    );
    const GONE: &str = "127.0.0.1 localhost\n";
    const THERE: &str = "127.0.0.1 localhost broker.test camera.test\n";
    let daemon = Daemon::with(&toml, |home, command| {
        fs::write(home.join("hosts"), THERE).unwrap();
        // Nobody answers there.
        fs::write(home.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
        let at = home.display();
        let mounts =
            format!("mount --bind {at}/hosts /etc/hosts && mount --bind {at}/resolv.conf /etc/resolv.conf");
        daemon::apart(home, command, &mounts);
    });
    let mut seen = subscriber.until(described("named"));

    fs::write(daemon.path("hosts"), GONE).unwrap();
    line.set(Line::Refuse);
    drop(camera);
    let metric = |name: &str| daemon.metric(name).unwrap_or(0.0);
    daemon::wait("the camera to be missed", || {
        (metric("camscribe_camera_state{camera=\"named\",state=\"offline\"}") == 1.0).then_some(())
    });
    // Both are there again, and nobody knows where.
    line.set(Line::Pass);
    let _camera = RtspServer::start_at(STREAM, port);
    daemon.logged("not connected to the MQTT broker at broker.test");
    daemon.logged("failed to lookup address");
    let before = metric("camscribe_outbox_messages");
    daemon::wait("descriptions to wait", || {
        (metric("camscribe_outbox_messages") >= before + 5.0).then_some(())
    });
    assert_eq!(metric("camscribe_broker_connected"), 0.0);
    assert_eq!(metric("camscribe_camera_state{camera=\"named\",state=\"online\"}"), 0.0);

    fs::write(daemon.path("hosts"), THERE).unwrap();
    daemon::wait("the broker", || (metric("camscribe_broker_connected") == 1.0).then_some(()));
    daemon::wait("the camera", || {
        (metric("camscribe_camera_state{camera=\"named\",state=\"online\"}") == 1.0).then_some(())
    });
    let made = metric("camscribe_descriptions_total{camera=\"named\"}");
    daemon::wait("its words", || {
        (metric("camscribe_descriptions_total{camera=\"named\"}") > made).then_some(())
    });
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("every description was delivered"), "{log}");
    seen.extend(subscriber.all_within(Duration::from_secs(1)));
    assert_whole(&events(&seen, "steady"));
}

/// Where Debian's package `faketime` puts its library.
fn libfaketime() -> PathBuf {
    let found = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    assert!(!path.trim().is_empty(), "faketime is installed");
    path.trim().into()
}

#[test]
fn a_clock_that_is_set_by_an_hour_loses_no_clip_and_lies_about_none() {
    let broker = Mosquitto::start("");
    let line = Proxy::start(broker.port());
    let camera = RtspServer::start(STREAM);
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        defaults = {{ window = "1s", frames = 2, change_threshold = 0 }}
        cameras.rtsp.uri = "{}"
        cameras.scene.uri = "test://shapes"
        "#,
        line.port(),
        camera.uri()
    );
    let daemon = Daemon::with(&toml, |home, command| {
        fs::write(home.join("clock"), "+0\n").unwrap();
        command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", home.join("clock")).envs(
            ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"].map(|name| (name, "1")),
        );
    });
    let hour = TimeDelta::hours(1);
    let mut seen = subscriber.until(described("rtsp"));
    // Forward, while the broker is away and descriptions wait; then back again.
    for (offset, ahead) in [("+3600\n", true), ("+0\n", false)] {
        line.set(Line::Refuse);
        fs::write(daemon.path("clock"), offset).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        line.set(Line::Pass);
        for camera in ["rtsp", "scene"] {
            let end = Instant::now() + daemon::PATIENCE;
            loop {
                seen.extend(subscriber.until(described(camera)));
                let newest = events(&seen, camera).pop().unwrap();
                // A camera that has told its own time (RTCP) is stamped by it, whatever this machine's clock says.
                let ahead = ahead && newest.clip.clock != Clock::Camera;
                if (newest.clip.start - Utc::now() > hour / 2) == ahead {
                    break;
                }
                assert!(Instant::now() < end, "{camera} does not follow the clock");
            }
        }
    }
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("every description was delivered"), "{log}");
    seen.extend(subscriber.all_within(Duration::from_secs(1)));
    for camera in ["rtsp", "scene"] {
        let events = events(&seen, camera);
        assert_whole(&events);
        for pair in events.windows(2) {
            assert!(pair[1].clip.gap || pair[1].clip.start >= pair[0].clip.start, "{camera}: {pair:?}");
        }
        for event in &events {
            assert!(event.clip.gap || event.clip.end - event.clip.start < TimeDelta::seconds(3), "{event:?}");
            let pts: Vec<_> = event.clip.frames.iter().map(|frame| frame.pts_s).collect();
            assert!(pts.is_sorted() && pts.last().unwrap() - pts[0] <= 1.5, "{event:?}");
        }
    }
}
