//! What the daemon reports to monitoring and to the service manager: metrics, health and sd_notify(3).

use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use camscribe::{
    answer::{DescribeError, Description, StageTimes},
    camera::CameraId,
    clip::Clip,
    describe::{
        Describer, Work, in_batches,
        worker::{self, Batching},
    },
    event::{Event, FinishReason, ModelInfo, Tokens},
    frame::{Clock, Frame},
    heartbeat::Heartbeat,
    lifecycle::Lifecycle,
    prompt_spec::PromptSpec,
    queue::{ClipQueue, Overflow},
};
use chrono::{TimeDelta, Utc};

use crate::support::{
    broker::{self, Mosquitto, Subscriber, free_port},
    daemon::{self, Daemon, number, wait},
};

#[test]
fn metrics_agree_with_what_was_published() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    // The scene ends; the other camera keeps the daemon running.
    let daemon = Daemon::start(&format!(
        r#"
        node.id = "edge1"
        model = {{ id = "shapes", max_batch = 2 }}
        mqtt.url = "mqtt://127.0.0.1:{}"
        defaults = {{ window = "1s", frames = 4, prompt = "Describe what happens in this video." }}
        cameras.scene.uri = "test://shapes?duration=8s"
        cameras.nobody.uri = "rtsp://127.0.0.1:{}/stream"
        cameras.off = {{ uri = "test://shapes", enabled = false }}
        "#,
        broker.port(),
        free_port()
    ));
    wait("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(daemon.get("/elsewhere").0, 404);

    let seen = subscriber
        .until(|m| m.topic == "camscribe/edge1/scene/status" && m.text().contains("\"why\":\"ended\""));
    let page = wait("the end of the work", || {
        let (_, page) = daemon.get("/metrics");
        let of_scene = |name: &str| number(&page, &format!("{name}{{camera=\"scene\"}}")).unwrap_or(0.0);
        let dropped = number(&page, "camscribe_clips_dropped_total{camera=\"scene\",reason=\"overload\"}");
        let described = of_scene("camscribe_descriptions_total") + of_scene("camscribe_unchanged_total");
        let done = described + dropped.unwrap_or(0.0);
        (done >= 8.0
            && done == of_scene("camscribe_clips_total")
            && number(&page, "camscribe_outbox_messages") == Some(0.0))
        .then_some(page)
    });
    let published = number(&page, "camscribe_descriptions_total{camera=\"scene\"}").unwrap();
    assert_eq!(number(&page, "camscribe_unchanged_total{camera=\"scene\"}"), Some(0.0), "it moves");
    let mut events = Vec::new();
    let mut take = |message: &broker::Received| {
        if message.topic == "camscribe/edge1/scene/description" {
            events.push(serde_json::from_value::<Event>(message.json()).unwrap());
        }
        events.len()
    };
    let mut count = seen.iter().map(&mut take).last().unwrap_or(0);
    while (count as f64) < published {
        count = take(&subscriber.next());
    }
    assert_eq!(events.len() as f64, published);

    let sum = |of: fn(&Event) -> usize| events.iter().map(of).sum::<usize>() as f64;
    let millis = |of: fn(&Event) -> u64| events.iter().map(of).sum::<u64>() as f64 / 1000.0;
    let batches = number(&page, "camscribe_batch_clips_count").unwrap();
    assert!((1.0..=published).contains(&batches), "{batches}");
    for (name, wanted) in [
        ("camscribe_tokens_total{camera=\"scene\",kind=\"prompt\"}", sum(|e| e.tokens.prompt)),
        ("camscribe_tokens_total{camera=\"scene\",kind=\"image\"}", sum(|e| e.tokens.image)),
        ("camscribe_tokens_total{camera=\"scene\",kind=\"generated\"}", sum(|e| e.tokens.generated)),
        ("camscribe_batch_clips_sum", published),
        ("camscribe_stage_seconds_count{stage=\"queued\"}", published),
        ("camscribe_stage_seconds_count{stage=\"total\"}", published),
        ("camscribe_stage_seconds_count{stage=\"preprocess\"}", batches),
        ("camscribe_stage_seconds_count{stage=\"vision\"}", batches),
        ("camscribe_stage_seconds_count{stage=\"prefill\"}", batches),
        ("camscribe_stage_seconds_count{stage=\"decode\"}", published),
        ("camscribe_queue_clips", 0.0),
        ("camscribe_queue_age_seconds", 0.0),
        ("camscribe_outbox_bytes", 0.0),
        ("camscribe_outbox_age_seconds", 0.0),
        ("camscribe_broker_connected", 1.0),
        ("camscribe_broker_reconnects_total", 0.0),
        ("camscribe_camera_state{camera=\"scene\",state=\"offline\"}", 1.0),
        ("camscribe_camera_state{camera=\"nobody\",state=\"online\"}", 0.0),
        ("camscribe_camera_state{camera=\"off\",state=\"disabled\"}", 1.0),
        ("camscribe_frames_total{camera=\"nobody\"}", 0.0),
    ] {
        assert_eq!(number(&page, name), Some(wanted), "{name}\n{page}");
    }
    let total = number(&page, "camscribe_stage_seconds_sum{stage=\"total\"}").unwrap();
    assert!((total - millis(|e| e.timing_ms.total)).abs() < 1e-6, "{total}\n{page}");
    // Only this camera's clips were described: all of the model's time was for it.
    for stage in ["preprocess", "vision", "prefill", "decode"] {
        let all = number(&page, &format!("camscribe_stage_seconds_sum{{stage=\"{stage}\"}}")).unwrap();
        let of_scene = format!("camscribe_camera_model_seconds_total{{camera=\"scene\",stage=\"{stage}\"}}");
        let of_scene = number(&page, &of_scene).unwrap();
        // Answers that were decoded together each waited for all of that time.
        let is_right = if stage == "decode" { of_scene <= all + 1e-6 } else { (of_scene - all).abs() < 1e-6 };
        assert!(of_scene > 0.0 && is_right, "{stage}\n{page}");
    }
    assert!(number(&page, "process_cpu_seconds_total").unwrap() > 0.1);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((number(&page, "process_start_time_seconds").unwrap() - now).abs() < 86_400.0);
    assert!(page.contains("camscribe_build_info{version=\""), "{page}");
    // Four frames per second for eight seconds.
    assert!(number(&page, "camscribe_frames_total{camera=\"scene\"}").unwrap() >= 32.0, "{page}");
    assert!(number(&page, "process_resident_memory_bytes").unwrap() > 1e7);
    assert!(page.contains("camscribe_model_info{version=\""), "{page}");
    assert!(!page.contains("camscribe_device_memory_bytes{"), "the CPU has no memory of its own");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let daemon = Daemon::start(
        "mqtt.url = \"mqtt://127.0.0.1:9\"\nmodel.id = \"shapes\"\ncameras.a.uri = \"test://ball\"\n",
    );
    let address = daemon.http_address();
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let asked = Instant::now();
    assert_eq!(daemon.get("/metrics").0, 200);
    // Silent ones are closed after two minutes in any case.
    assert!(asked.elapsed() < Duration::from_secs(60));
    drop(silent);
}

#[test]
fn reconnects_are_counted_and_waiting_descriptions_have_an_age() {
    let mut broker = Mosquitto::stopped("allow_anonymous true");
    broker.run();
    let daemon = Daemon::start(&format!(
        r#"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        defaults = {{ window = "1s", frames = 2, prompt = "Describe what happens in this video." }}
        cameras.scene.uri = "test://shapes"
        "#,
        broker.port()
    ));
    let metric = |name: &str, good: fn(f64) -> bool| {
        wait(name, || daemon.metric(name).is_some_and(good).then_some(()));
    };
    metric("camscribe_broker_connected", |v| v == 1.0);
    broker.kill();
    metric("camscribe_broker_connected", |v| v == 0.0);
    assert_eq!(daemon.get("/readyz").0, 200, "the broker does not matter");
    metric("camscribe_outbox_messages", |v| v >= 2.0);
    metric("camscribe_outbox_bytes", |v| v > 1000.0);
    metric("camscribe_outbox_age_seconds", |v| v > 0.5);
    broker.run();
    metric("camscribe_broker_reconnects_total", |v| v >= 1.0);
    metric("camscribe_outbox_messages", |v| v < 2.0);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_port_in_use_is_reported_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let daemon =
        Daemon::with("model.id = \"shapes\"\ncameras.scene.uri = \"test://shapes\"", |_, command| {
            command.env("CAMSCRIBE__HTTP__LISTEN", &address);
        });
    let (code, log) = daemon.ended();
    assert_eq!(code, Some(1), "{log}");
    let line = log.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{log}"));
    for word in [address.as_str(), "in use", "http.listen"] {
        assert!(line.contains(word), "{line}");
    }
}

/// Receives the messages at `$NOTIFY_SOCKET`, line by line.
fn service_manager(socket: &Path) -> Receiver<String> {
    let socket = UnixDatagram::bind(socket).unwrap();
    let (sender, messages) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.lines().any(|line| sender.send(line.to_owned()).is_err()) {
                return;
            }
        }
    });
    messages
}

#[test]
fn the_service_manager_is_notified_of_every_stage_from_start_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let messages = service_manager(&socket);
    let until = |wanted: &str| {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| line != wanted) {
            lines.push(
                messages.recv_timeout(daemon::TIMEOUT).unwrap_or_else(|_| panic!("{wanted}: {lines:?}")),
            );
        }
        lines
    };
    let until_containing = |wanted: &str| loop {
        let line = messages.recv_timeout(daemon::TIMEOUT).unwrap_or_else(|_| panic!("{wanted}"));
        if line.contains(wanted) {
            return line;
        }
    };
    // No broker listens there: readiness does not depend on it.
    let toml = format!(
        r#"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        defaults = {{ window = "1s", frames = 2, prompt = "Describe what happens in this video." }}
        cameras.scene.uri = "test://shapes"
        "#,
        free_port()
    );
    let daemon = Daemon::with(&toml, |_, command| {
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "2000000").env_remove("WATCHDOG_PID");
    });
    let start = until("READY=1");
    assert!(start.contains(&"STATUS=loading the model".to_owned()), "{start:?}");
    assert!(start.contains(&"STATUS=warming up the model".to_owned()), "{start:?}");
    until("STATUS=watching 1 camera");
    until_containing("STATUS=1 of 1 cameras online, broker not connected");
    // While clips are described.
    let described = || daemon.metric("camscribe_descriptions_total{camera=\"scene\"}").unwrap_or(0.0);
    for _ in 0..3 {
        let before = described();
        until("WATCHDOG=1");
        wait("a description", || (described() > before).then_some(()));
    }
    daemon.signal("HUP");
    until("RELOADING=1");
    let line = messages.recv_timeout(daemon::TIMEOUT).unwrap();
    assert!(line.strip_prefix("MONOTONIC_USEC=").is_some_and(|n| n.parse::<u64>().is_ok()), "{line}");
    until("READY=1");
    daemon.reload("cameras.scene.url = 1");
    let rejected = until_containing("the last reload was rejected: see the log");
    assert!(rejected.starts_with("STATUS=1 of 1 cameras online, broker not connected"), "{rejected}");
    daemon.signal("TERM");
    until("STOPPING=1");
    assert_eq!(daemon.ended().0, Some(0));
}

/// A describer that blocks until the test releases it.
struct Stuck {
    heartbeat: Arc<Heartbeat>,
    release: Receiver<()>,
}

impl Describer for Stuck {
    fn model(&self) -> ModelInfo {
        ModelInfo { id: "stuck".into(), revision: String::new(), device: "none".into(), dtype: "f32".into() }
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        in_batches(work, &|_| None, |requests| {
            self.release.recv().unwrap();
            let description = Description {
                text: "nothing".into(),
                labels: Vec::new(),
                finish_reason: FinishReason::Stop,
                tokens: Tokens { prompt: 1, image: 0, generated: 1 },
                stages: StageTimes::default(),
            };
            Ok(requests.iter().map(|_| Ok(description.clone())).collect())
        })
    }
}

fn clip() -> Clip {
    let camera: CameraId = "porch".parse().unwrap();
    let start = Utc::now();
    Clip {
        camera: camera.clone(),
        seq: 0,
        start,
        end: start + TimeDelta::seconds(1),
        clock: Clock::Arrival,
        start_pts: Duration::ZERO,
        duration: Duration::from_secs(1),
        frames: vec![Frame {
            camera,
            captured_at: start,
            clock: Clock::Arrival,
            pts: Duration::ZERO,
            width: 1,
            height: 1,
            rgb: vec![0; 3].into(),
            original: None,
        }],
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec::new("What?", 1)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_gets_no_ping_while_the_model_is_stuck() {
    let limit = Duration::from_millis(200);
    let lifecycle = Arc::new(Lifecycle::with_limit(limit));
    let (release, released) = channel();
    let heartbeat = Arc::new(Heartbeat::default());
    lifecycle.monitor(Arc::clone(&heartbeat));
    let queue = Arc::new(ClipQueue::new(std::num::NonZeroUsize::MIN));
    let work = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || {
            let mut model = Stuck { heartbeat, release: released };
            let batching = Batching {
                max_batch: std::num::NonZeroUsize::MIN,
                linger: Duration::ZERO,
                client_share: 0.0,
            };
            worker::run(&mut model, &queue, batching, |_| {}).unwrap();
        })
    };
    let pings = Arc::new(AtomicUsize::new(0));
    let (watched, counter) = (Arc::clone(&lifecycle), Arc::clone(&pings));
    let watchdog = tokio::spawn(async move {
        watched.ping_while_healthy(|| _ = counter.fetch_add(1, Ordering::SeqCst)).await;
    });
    let more_than = |count: usize| {
        let pings = Arc::clone(&pings);
        tokio::task::spawn_blocking(move || {
            wait("the watchdog", || (pings.load(Ordering::SeqCst) > count).then_some(()))
        })
    };
    more_than(2).await.unwrap(); // a model that waits for clips is healthy
    queue.push(clip(), Overflow::Block).unwrap();
    let stuck = Arc::clone(&lifecycle);
    tokio::task::spawn_blocking(move || wait("a stuck model", || stuck.health().is_err().then_some(())))
        .await
        .unwrap();
    // A ping may have been on its way.
    tokio::time::sleep(limit).await;
    let before = pings.load(Ordering::SeqCst);
    tokio::time::sleep(limit * 10).await;
    assert_eq!(pings.load(Ordering::SeqCst), before);
    release.send(()).unwrap();
    more_than(before).await.unwrap();
    queue.close();
    tokio::task::spawn_blocking(move || work.join().unwrap()).await.unwrap();
    watchdog.abort();
}

#[test]
fn a_node_is_online_after_its_cameras_have_a_status() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/#");
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        cameras.off = {{ uri = "test://shapes", enabled = false }}
        cameras.on.uri = "test://shapes"
        "#,
        broker.port()
    );
    let daemon = Daemon::start(&toml);
    let seen = subscriber.until(|m| m.topic == "camscribe/edge1/status" && m.text() == "online");
    for camera in ["off", "on"] {
        let topic = format!("camscribe/edge1/{camera}/status");
        assert!(seen.iter().any(|m| m.topic == topic), "{topic}: {seen:?}");
    }
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn metrics_have_the_format_that_the_client_accepts() {
    let toml = format!(
        r#"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        cameras.scene.uri = "test://shapes"
        "#,
        free_port()
    );
    let daemon = Daemon::start(&toml);
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain\r\n"] {
        let (head, page) = daemon.get_with("/metrics", accept);
        assert!(head.to_lowercase().contains("\r\ncontent-type: text/plain; version=0.0.4"), "{head}");
        assert!(page.contains("# TYPE camscribe_broker_reconnects_total counter\n"), "{page}");
        assert!(!page.contains("# EOF"), "{page}");
    }
    let (head, page) = daemon.get_with("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(
        head.to_lowercase().contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(page.contains("# TYPE camscribe_broker_reconnects counter\n"), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[test]
fn a_camera_whose_windows_yield_no_clip_reports_it() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/+/status");
    // More frames than the source gives in a window.
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        cameras.slow = {{ uri = "test://shapes?fps=5", window = "500ms", frames = 16, min_frames = 16 }}
        "#,
        broker.port()
    );
    let daemon = Daemon::start(&toml);
    let status = subscriber.until(|m| m.text().contains("min_frames"));
    assert_eq!(status.last().unwrap().json()["state"], "online");
    daemon.logged("its windows have fewer frames than min_frames asks for");
    let dropped = daemon.metric("camscribe_clips_dropped_total{camera=\"slow\",reason=\"too_few_frames\"}");
    assert!(dropped >= Some(3.0), "{dropped:?}");
    assert_eq!(daemon.metric("camscribe_clips_total{camera=\"slow\"}"), Some(0.0));
    assert_eq!(daemon.stop().0, Some(0));
}
