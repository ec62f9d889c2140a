//! A system clock that is set while the daemon runs.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use camscribe::frame::Clock;
use chrono::{TimeDelta, Utc};

use crate::support::{
    broker::{Mosquitto, Subscriber},
    daemon::{self, Daemon},
    live_camera::{STREAM, assert_whole, described, events},
    proxy::{Link, Proxy},
    rtsp::RtspServer,
};

/// Returns the library of Debian's package `faketime`.
fn libfaketime() -> PathBuf {
    let found = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    assert!(!path.trim().is_empty(), "faketime is installed");
    path.trim().into()
}

#[test]
fn a_clock_set_by_an_hour_loses_no_clip_and_falsifies_none() {
    let broker = Mosquitto::start("");
    let proxy = Proxy::start(broker.port());
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
        proxy.port(),
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
        proxy.set(Link::Refuse);
        fs::write(daemon.path("clock"), offset).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        proxy.set(Link::Pass);
        for camera in ["rtsp", "scene"] {
            let end = Instant::now() + daemon::TIMEOUT;
            loop {
                seen.extend(subscriber.until(described(camera)));
                let newest = events(&seen, camera).pop().unwrap();
                // A camera that has sent its own time (RTCP) is timestamped by it.
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
