//! SIGTERM at any time: the daemon ends within its time limit, and nothing is lost.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use camscribe::{
    answer::{DescribeError, Description, StageTimes},
    app, config,
    describe::{Describer, Work, in_batches},
    event::{FinishReason, ModelInfo, Tokens},
    heartbeat::Heartbeat,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    broker::{Mosquitto, Subscriber},
    daemon::{self, Daemon, stored_ids},
    proxy::{Link, Proxy},
};

/// The time limit of the unit (`TimeoutStopSec`), less a reserve for a busy machine.
const IN_TIME: Duration = Duration::from_secs(30);

fn toml(port: u16) -> String {
    format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{port}"
        defaults = {{ window = "500ms", frames = 2, change_threshold = 0 }}
        cameras.one.uri = "test://shapes"
        cameras.two.uri = "test://shapes"
        "#
    )
}

#[test]
fn a_stop_at_any_moment_ends_in_time_and_loses_nothing() {
    let broker = Mosquitto::start("");
    let proxy = Proxy::start(broker.port());
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let mut daemon = Daemon::with(&toml(proxy.port()), |_, command| {
        command.env("RUST_LOG", "camscribe=debug");
    });
    // Before its signal handlers exist, while it loads the model, while it warms up, while it connects,
    // while it describes; and without a broker, so that what is left must wait on disk.
    let delays = [0, 20, 60, 120, 250, 400, 600, 900, 1300, 1800, 2500, 4000];
    for (life, delay) in delays.into_iter().enumerate() {
        proxy.set(if life % 6 == 5 { Link::Refuse } else { Link::Pass });
        if life > 0 {
            daemon.restart();
        }
        thread::sleep(Duration::from_millis(delay));
        let asked = Instant::now();
        daemon.signal("TERM");
        let status = daemon.status();
        assert!(asked.elapsed() < IN_TIME, "after {delay} ms: {:?}", asked.elapsed());
        // Before its handlers exist, the signal itself ends it.
        let early = delay < 1000 && status.signal() == Some(15);
        assert!(status.code() == Some(0) || early, "after {delay} ms: {status}");
    }
    proxy.set(Link::Pass);
    daemon.restart();
    daemon.logged("in the outbox");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    let log = daemon.log();
    assert!(log.contains("on disk until the next start delivers them"), "{log}");
    assert!(daemon.logged("every description").contains("was delivered"));
    assert!(!log.contains("panicked"), "{log}");

    let seen = subscriber.all_within(Duration::from_secs(1));
    let delivered: BTreeSet<String> = seen
        .iter()
        .filter(|m| m.topic.ends_with("/description"))
        .map(|m| m.json()["id"].as_str().unwrap().to_owned())
        .collect();
    for (camera, ids) in stored_ids(&log) {
        let lost: Vec<_> = ids.iter().filter(|id| !delivered.contains(*id)).collect();
        assert!(lost.is_empty(), "{camera}: {lost:?} of {}", ids.len());
    }
}

#[test]
fn what_the_broker_refused_was_not_delivered() {
    let broker = Mosquitto::start("message_size_limit 300");
    let mut daemon = Daemon::start(&format!(
        "model.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:{}\"\ndefaults.window = \"2s\"\n\
         cameras.one.uri = \"test://shapes?live=false&duration=4s\"\n",
        broker.port()
    ));
    assert_eq!(daemon.wait(), Some(0));
    let told = daemon.logged("nothing is left to deliver");
    assert!(told.ends_with("the broker did not take 2, and a full outbox dropped 0"), "{told}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let broker = Mosquitto::stopped("");
    let mut daemon = Daemon::start(&toml(broker.port()));
    daemon::wait("descriptions that wait", || {
        daemon.metric("camscribe_outbox_messages").filter(|&waiting| waiting >= 2.0)
    });
    daemon.signal("TERM");
    daemon.logged("send it again to stop at once");
    let asked = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(5));
}

/// A describer that warms up quickly and then takes minutes for a clip.
#[derive(Default)]
struct Sluggish {
    warm: bool,
    heartbeat: Arc<Heartbeat>,
}

impl Describer for Sluggish {
    fn model(&self) -> ModelInfo {
        ModelInfo {
            id: "sluggish".into(),
            revision: String::new(),
            device: "cpu".into(),
            dtype: "f32".into(),
        }
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        in_batches(work, &|_| None, |requests| {
            if std::mem::replace(&mut self.warm, true) {
                thread::sleep(Duration::from_secs(600));
            }
            let description = Description {
                text: "Something.".into(),
                labels: Vec::new(),
                finish_reason: FinishReason::Stop,
                tokens: Tokens::default(),
                stages: StageTimes::default(),
            };
            Ok(requests.iter().map(|_| Ok(description.clone())).collect())
        })
    }
}

#[test]
fn a_model_that_takes_minutes_does_not_hold_up_the_end() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("camscribe.toml");
    let more = format!(
        "http.listen = \"\"\nnode.state_dir = {:?}\ncameras.file.uri = \"test://shapes?live=false\"\n",
        home.path().join("state")
    );
    fs::write(&file, toml(1) + &more).unwrap();
    let config = config::load(Some(&file)).unwrap().config;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancellationToken::new();
    let asked = runtime.block_on(async {
        let load = |_: &config::ModelSettings| Ok(Box::new(Sluggish::default()) as Box<dyn Describer>);
        let running = tokio::spawn(app::run(config, load, None, stop.clone()));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let asked = Instant::now();
        stop.cancel();
        running.await.unwrap().unwrap();
        asked
    });
    assert!(asked.elapsed() < Duration::from_secs(50), "{:?}", asked.elapsed());
    runtime.shutdown_background();
}
