//! Everything fails or changes, at random moments and at once: the broker, the line to it, the daemon, the
//! cameras, the configuration, the commands of subscribers. At the end the ids prove that every description
//! was delivered at least once and in each camera's order, that the camera that nobody touched lost
//! nothing, that each time that an alert was switched was told, and no other, and that the history has the
//! same events, and no frame without its event. A client of the page comes again and again meanwhile.
//!
//! `cargo test` makes a short run with a fixed seed. `make chaos` makes a long one
//! (`CAMSCRIBE_CHAOS_SECONDS`) with another seed each time; `CAMSCRIBE_CHAOS_SEED` repeats one.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt, fs,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use camscribe::{
    event::{Event, EventKind},
    history::{HistoryError, Reader, Selection},
};
use serde_json::Value;

use crate::support::{
    broker::{self, Mosquitto, Received, Subscriber},
    daemon::{self, Daemon},
    hostile_camera::{Faults, HostileCamera},
    page_client::PageClient,
    proxy::{Link, Proxy},
    rtsp::{Fault, RtspServer},
};

/// Seconds of the short run.
const SHORT: u64 = 40;
/// The seed of the short run.
const SEED: u64 = 20_260_701;
/// The subscriber is idle when nothing came for this long.
const IDLE: Duration = Duration::from_millis(700);
/// A camera without faults, one with many, one that refuses its password at times, one that sends as no camera should,
/// and one that needs no network.
const CAMERAS: [&str; 5] = ["steady", "flaky", "strict", "hostile", "scene"];

/// xorshift64: the same seed makes the same choices.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// A fault or a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    BrokerKilled,
    LinkRefuses,
    LinkSlow,
    LinkStalls,
    LinkCut,
    DaemonKilled,
    DaemonStopped,
    CameraGone,
    CameraResized,
    CameraFrozen,
    CameraGarbage,
    CredentialsRefused,
    Reloaded,
    BrokenReload,
    Commanded,
}

const ACTS: [Act; 15] = [
    Act::BrokerKilled,
    Act::LinkRefuses,
    Act::LinkSlow,
    Act::LinkStalls,
    Act::LinkCut,
    Act::DaemonKilled,
    Act::DaemonStopped,
    Act::CameraGone,
    Act::CameraResized,
    Act::CameraFrozen,
    Act::CameraGarbage,
    Act::CredentialsRefused,
    Act::Reloaded,
    Act::BrokenReload,
    Act::Commanded,
];

/// H.264 with a keyframe a second.
fn stream(width: u32) -> String {
    format!(
        "videotestsrc is-live=true pattern=ball \
         ! video/x-raw,format=I420,width={width},height=240,framerate=10/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 \
         ! video/x-h264,stream-format=byte-stream ! rtph264pay name=pay0 pt=96"
    )
}

/// Gets events, and what is told of alerts.
fn subscriber(broker: &Mosquitto) -> Subscriber {
    Subscriber::with(broker.port(), "camscribe/+/+/description", &["-t", "camscribe/+/+/alerts"])
}

struct World {
    rng: Rng,
    broker: Mosquitto,
    proxy: Proxy,
    subscriber: Subscriber,
    received: Vec<Received>,
    page: PageClient,
    daemon: Daemon,
    toml: String,
    flaky: Option<RtspServer>,
    flaky_port: u16,
    strict: Option<RtspServer>,
    strict_port: u16,
    hostile: HostileCamera,
    done: BTreeMap<Act, u32>,
}

impl World {
    fn new(seed: u64, steady: &RtspServer) -> Self {
        let broker = Mosquitto::start("max_queued_messages 0");
        let proxy = Proxy::start(broker.port());
        let subscriber = subscriber(&broker);
        let (flaky, strict) = (RtspServer::start(&stream(320)), RtspServer::start(&stream(320)));
        let (flaky_port, strict_port) = (flaky.port(), strict.port());
        let hostile = HostileCamera::start(Faults::default());
        let toml = format!(
            r#"
            node.id = "edge1"
            model = {{ id = "shapes", max_batch = 4 }}
            history.frames = "all"
            mqtt.url = "mqtt://127.0.0.1:{}"
            defaults = {{ window = "2s", frames = 2, max_tokens = 8, prompt = "PROMPT", change_threshold = 0 }}
            cameras.steady.uri = "{}"
            cameras.flaky.uri = "{}"
            cameras.strict.uri = "{}"
            cameras.hostile.uri = "{}"
            cameras.scene.uri = "test://shapes"
            cameras.scene.questions = ["red"]
            cameras.scene.alerts.red = {{ question = "red", on = 0.5, off = 0.5, of = "1/1", min_confidence = 0.0 }}
            questions.red.ask = "Is there a red circle?"
            "#,
            proxy.port(),
            steady.uri(),
            flaky.uri(),
            strict.uri(),
            hostile.uri(),
        );
        let daemon = Daemon::with(&toml.replace("PROMPT", "Describe this."), |_, command| {
            command.env("RUST_LOG", "info,camscribe=debug");
        });
        // A camera that is refused pauses for minutes, so each is described once before the first fault.
        daemon::wait("a description of every camera", || {
            (daemon::stored_ids(&daemon.log()).len() == CAMERAS.len()).then_some(())
        });
        let (flaky, strict) = (Some(flaky), Some(strict));
        let (rng, received, done) = (Rng(seed | 1), Vec::new(), BTreeMap::new());
        let page = PageClient::start(daemon.path("stderr"));
        Self {
            rng,
            broker,
            proxy,
            subscriber,
            received,
            page,
            daemon,
            toml,
            flaky,
            flaky_port,
            strict,
            strict_port,
            hostile,
            done,
        }
    }

    fn receive(&mut self, time: Duration) {
        self.received.extend(self.subscriber.all_within(time));
    }

    /// Receives until nothing comes any more.
    fn receive_until_idle(&mut self) {
        loop {
            let more = self.subscriber.all_within(IDLE);
            if more.is_empty() {
                return;
            }
            self.received.extend(more);
        }
    }

    fn act_at_random(&mut self) {
        let faults = self.faults_at_random();
        println!("{faults:?}");
        self.hostile.set_faults(faults);
        let act = ACTS[self.rng.below(ACTS.len() as u64) as usize];
        self.act(act);
    }

    fn act(&mut self, act: Act) {
        let time = self.rng.millis(300, 4000);
        println!("{act:?} {time:?}");
        *self.done.entry(act).or_default() += 1;
        match act {
            Act::BrokerKilled => {
                // What the broker has acknowledged and not delivered is lost with it. It gets time for it, so
                // that what is missing at the end was lost by us.
                self.proxy.set(Link::Refuse);
                self.receive_until_idle();
                self.broker.kill();
                thread::sleep(time);
                self.broker.run();
                self.subscriber = subscriber(&self.broker);
                self.proxy.set(Link::Pass);
            }
            Act::LinkRefuses => self.fault(Link::Refuse, time),
            Act::LinkSlow => self.fault(Link::Slow, time),
            Act::LinkStalls => self.fault(Link::Stall, time),
            Act::LinkCut => {
                let bytes = self.rng.below(4000);
                self.fault(Link::Cut(bytes), time);
            }
            Act::DaemonKilled => {
                self.daemon.kill();
                self.daemon.restart();
            }
            Act::DaemonStopped => {
                self.daemon.signal("TERM");
                assert_eq!(self.daemon.wait(), Some(0), "{}", self.daemon.log());
                self.daemon.restart();
            }
            Act::CameraGone => self.flaky_again(320, time),
            Act::CameraResized => {
                let width = 160 + 16 * self.rng.below(20) as u32;
                self.flaky_again(width, time);
            }
            Act::CameraFrozen => self.suffer(Fault::Frozen, time),
            Act::CameraGarbage => self.suffer(Fault::Garbage, time),
            Act::CredentialsRefused => {
                self.strict = None;
                let locked = RtspServer::with(&stream(320), self.strict_port, Some(("nobody", "knows")));
                self.receive(time);
                drop(locked);
                self.strict = Some(RtspServer::start_at(&stream(320), self.strict_port));
            }
            Act::Reloaded => {
                let prompt = format!("Describe this, {}.", self.rng.below(1000));
                self.daemon.reload(&self.toml.replace("PROMPT", &prompt));
            }
            Act::BrokenReload => {
                self.daemon.reload("cameras.steady.uri = 7");
                self.receive(time);
                // For the next start of the daemon.
                fs::write(self.daemon.path("camscribe.toml"), self.toml.replace("PROMPT", "Describe this."))
                    .unwrap();
            }
            Act::Commanded => {
                let prompt = format!("Describe this, {}.", self.rng.below(1000));
                self.command("scene", "prompt", &prompt);
                self.command("flaky", "enabled", "OFF");
                broker::publish(self.broker.port(), "camscribe/edge1/scene/ask", "What happens?");
                self.receive(time);
                // A command is lost while the daemon is not connected.
                for _ in 0..3 {
                    self.command("flaky", "enabled", "ON");
                    self.receive(IDLE);
                }
            }
        }
        let pause = self.rng.millis(200, 3000);
        self.receive(pause);
    }

    /// Some of the faults that a camera recovers from by itself. They stay until the next act.
    fn faults_at_random(&mut self) -> Faults {
        let sometimes = |rng: &mut Rng, at: u64| (rng.below(3) == 0).then(|| 1 + rng.below(at) as u32);
        let rng = &mut self.rng;
        Faults {
            ssrc_every: sometimes(rng, 50),
            ssrc_change: sometimes(rng, 75),
            slip_every: sometimes(rng, 50),
            stall: sometimes(rng, 75),
            hang_up: sometimes(rng, 200),
            foreign: rng.below(3) == 0,
            // Up to three days behind or ahead.
            clock_ahead: f64::from(sometimes(rng, 6 * 86_400).unwrap_or(3 * 86_400)) - 3. * 86_400.,
            ..Faults::default()
        }
    }

    fn command(&self, camera: &str, what: &str, payload: &str) {
        broker::publish(self.broker.port(), &format!("camscribe/edge1/{camera}/set/{what}"), payload);
    }

    fn fault(&mut self, fault: Link, time: Duration) {
        self.proxy.set(fault);
        self.receive(time);
        self.proxy.set(Link::Pass);
    }

    fn flaky_again(&mut self, width: u32, time: Duration) {
        self.flaky = None;
        self.receive(time);
        self.flaky = Some(RtspServer::start_at(&stream(width), self.flaky_port));
    }

    fn suffer(&mut self, fault: Fault, time: Duration) {
        self.flaky.as_ref().unwrap().set_fault(fault);
        self.receive(time);
        self.flaky.as_ref().unwrap().set_fault(Fault::None);
    }

    /// Stops the daemon and starts it again with all cameras disabled, until everything is delivered.
    fn drain(&mut self) {
        self.daemon.signal("TERM");
        assert_eq!(self.daemon.wait(), Some(0), "{}", self.daemon.log());
        let nothing = self.toml.replace("PROMPT", "Describe this.");
        let off: String = CAMERAS.iter().map(|c| format!("cameras.{c}.enabled = false\n")).collect();
        fs::write(self.daemon.path("camscribe.toml"), nothing + &off).unwrap();
        self.daemon.restart();
        daemon::wait("an empty outbox", || {
            (self.daemon.metric("camscribe_outbox_messages") == Some(0.0)).then_some(())
        });
        self.receive_until_idle();
        self.daemon.signal("TERM");
        assert_eq!(self.daemon.wait(), Some(0), "{}", self.daemon.log());
    }

    /// Drains the outbox and compares what arrived with what the daemon logged as stored.
    fn check_deliveries(mut self) {
        self.drain();
        let (told, events): (Vec<Received>, Vec<Received>) =
            std::mem::take(&mut self.received).into_iter().partition(|it| it.topic.ends_with("/alerts"));
        let events: Vec<Event> =
            events.iter().map(|m| serde_json::from_slice(&m.payload).expect("an event")).collect();
        let ids: BTreeSet<_> = events.iter().map(|e| e.id).collect();
        println!("{}", Report { done: &self.done, events: &events, unique: ids.len() });
        let log = self.daemon.log();
        let made = daemon::stored_ids(&log);
        for camera in CAMERAS {
            let once = once(&events, camera);
            let arrived: Vec<String> = once.iter().map(|e| e.id.to_string()).collect();
            // A daemon that is killed between storing an event and logging it delivers the event after all.
            let stored: BTreeSet<&String> = made[camera].iter().collect();
            let logged: Vec<&String> = arrived.iter().filter(|id| stored.contains(id)).collect();
            assert_eq!(
                logged,
                made[camera].iter().collect::<Vec<_>>(),
                "{camera}: made, and delivered in that order"
            );
            let kills = self.done.get(&Act::DaemonKilled).copied().unwrap_or(0) as usize;
            assert!(
                arrived.len() - logged.len() <= kills,
                "{camera}: {} that were never logged",
                arrived.len() - logged.len()
            );
            let clips: BTreeSet<_> = once.iter().map(|e| e.clip.start).collect();
            assert_eq!(clips.len(), once.len(), "{camera}: a clip under two ids");
            assert!(once.iter().all(|e| e.kind == EventKind::Description));
        }
        // Each run of the daemon counts its clips from 0.
        for pair in once(&events, "steady").windows(2) {
            let (before, after) = (pair[0], pair[1]);
            assert!(!after.clip.gap, "{after:?}");
            let missed = after.dropped.clips + after.dropped.failed;
            let next = [before.clip.seq + 1 + missed, missed];
            assert!(next.contains(&after.clip.seq), "{before:?}\n{after:?}");
        }
        assert!(!log.contains("panicked"), "{log}");
        check_alerts(&once(&events, "scene"), &told);
        let ids = ids.iter().map(ToString::to_string).collect();
        check_history(&self.daemon, &ids);
        let seen = &self.page.told;
        let (shown, resets) = (seen.events.lock().unwrap(), seen.resets.load(Ordering::Relaxed));
        println!(
            "the page was told of {} events, {resets} times that it missed some; {} searches",
            shown.len(),
            seen.searches.load(Ordering::Relaxed)
        );
        assert!(!shown.is_empty() && shown.is_subset(&ids), "{:?}", shown.difference(&ids));
    }
}

/// The history has the events that were delivered, and no other, and frames of most.
fn check_history(daemon: &Daemon, delivered: &BTreeSet<String>) {
    let reader = Reader::open(&daemon.path("state")).unwrap();
    let (mut recorded, mut frames) = (BTreeSet::new(), 0);
    let each = |event: &Event, count: usize| {
        assert!(recorded.insert(event.id.to_string()), "{} twice", event.id);
        // All of them, or none where the daemon was killed before they were written.
        assert!(count == 0 || count == event.clip.frames.len(), "{count} frames of {}", event.id);
        frames += count;
        Ok::<_, HistoryError>(())
    };
    reader.for_each(&Selection::default(), each).unwrap();
    let missing: Vec<_> = delivered.difference(&recorded).collect();
    let more: Vec<_> = recorded.difference(delivered).collect();
    assert!(missing.is_empty() && more.is_empty(), "not in the history: {missing:?}; only there: {more:?}");
    let all = rusqlite::Connection::open(daemon.path("state/history.db")).unwrap();
    let sql = "SELECT count(*) FROM frames";
    let rows: i64 = all.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(rows).unwrap(), frames, "frames without an event");
    println!("the history has {} events and {frames} frames", recorded.len());
}

/// The alert goes on and off in turn, from one process to the next, and each switching was told as its event has it.
fn check_alerts(events: &[&Event], told: &[Received]) {
    let mut is_on = false;
    let mut switched = BTreeMap::new();
    for event in events {
        let alert = event.alerts["red"];
        assert_eq!(alert.changed, alert.on != is_on, "{event:?}");
        is_on = alert.on;
        if alert.changed {
            switched.insert(event.id.to_string(), if alert.on { "ON" } else { "OFF" });
        }
    }
    let told: Vec<Value> = told.iter().map(Received::json).collect();
    let text = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
    let states: BTreeMap<_, _> = told.iter().map(|it| (text(it, "id"), text(it, "state"))).collect();
    println!("the alert was switched {} times, and told {} times", switched.len(), told.len());
    assert!(
        states
            .iter()
            .map(|(id, state)| (id.as_str(), state.as_str()))
            .eq(switched.iter().map(|(id, state)| (id.as_str(), *state))),
        "{states:?} was told, {switched:?} was so"
    );
}

/// Returns a camera's events, each once, in the order in which they first arrived.
fn once<'a>(events: &'a [Event], camera: &str) -> Vec<&'a Event> {
    let mut seen = BTreeSet::new();
    events.iter().filter(|e| e.camera.as_str() == camera && seen.insert(e.id)).collect()
}

struct Report<'a> {
    done: &'a BTreeMap<Act, u32>,
    events: &'a [Event],
    unique: usize,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, events, unique } = self;
        writeln!(f, "{done:?}")?;
        for camera in CAMERAS {
            let once = once(events, camera);
            let dropped: u64 = once.iter().map(|e| e.dropped.clips).sum();
            let gaps = once.iter().filter(|e| e.clip.gap).count();
            writeln!(f, "{camera}: {} descriptions, {gaps} with a gap, {dropped} clips dropped", once.len())?;
        }
        write!(f, "{} messages, {unique} events, {} duplicates", events.len(), events.len() - unique)
    }
}

fn seed() -> u64 {
    let seed = number("CAMSCRIBE_CHAOS_SEED").unwrap_or(SEED);
    println!("seed {seed}: set CAMSCRIBE_CHAOS_SEED for the same choices");
    seed
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|it| it.parse().expect("a number"))
}

#[test]
fn whatever_fails_every_description_is_delivered_in_order_and_the_steady_camera_loses_nothing() {
    let steady = RtspServer::start(&stream(320));
    let mut world = World::new(seed(), &steady);
    let time = Duration::from_secs(number("CAMSCRIBE_CHAOS_SECONDS").unwrap_or(SHORT));
    let start = Instant::now();
    while start.elapsed() < time {
        world.act_at_random();
    }
    world.check_deliveries();
}

#[test]
fn the_daemon_killed_thirty_times_loses_nothing_and_publishes_nothing_under_two_ids() {
    let steady = RtspServer::start(&stream(320));
    let mut world = World::new(seed(), &steady);
    for _ in 0..30 {
        world.act(Act::DaemonKilled);
    }
    world.check_deliveries();
}
