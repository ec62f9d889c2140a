//! The page in a real browser, Chromium, against the real daemon.
//!
//! `CAMSCRIBE_SCREENSHOTS=FOLDER` also writes the pictures of the documentation there.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    api::exchange,
    broker::{Mosquitto, free_port},
    browser::{Browser, ENTER},
    daemon::{Daemon, camscribe, wait},
};

/// What is shown as text, and turns around or widens what is beside it only if the page lets it.
const HOSTILE: &str =
    "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\u{202e}sdrawkcab \u{2066}";
/// The node and one camera, with room for more of its settings.
const ONE: &str = r#"
    model.id = "shapes"
    node.id = "edge1"
    history.frames = "all"
    defaults = { window = "1s", frames = 2, max_tokens = 16, change_threshold = 0 }
    [cameras.porch]
    uri = "test://shapes?object=red-circle-still"
    "#;
/// All pictures of an element that are asked for are there, and there are some.
const PICTURES: &str = "(selector => { const all = [...document.querySelectorAll(`${selector} img[src]`)];
    return all.length > 0 && all.every(image => image.naturalWidth > 0) && all.length })";

/// A page of this daemon.
fn page(daemon: &Daemon, hash: &str) -> String {
    format!("http://{}/{hash}", daemon.http_address())
}

fn json_of(address: &str, path: &str) -> Value {
    let reply = exchange(address, "GET", path, "", b"");
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Waits for an event of the history, and returns its id.
fn event(address: &str, query: &str) -> String {
    wait(&format!("an event of {query}"), || {
        let found = json_of(address, &format!("/api/events?limit=1&{query}"));
        Some(found["events"][0]["event"]["id"].as_str()?.to_owned())
    })
}

/// Opens the first page, and marks it, so that it is known whether it was loaded again.
fn open_and_mark(browser: &Browser, address: &str) {
    browser.open(address);
    browser.run("window.marked = true");
    browser.until("document.querySelector('.tile time[datetime]')");
}

/// Waits until the first tile shows a newer clip than now.
fn wait_for_newer(browser: &Browser) {
    browser.run("window.before = document.querySelector('.tile time').dateTime");
    browser.until("document.querySelector('.tile time').dateTime > window.before && window.marked");
}

/// `camscribe demo`, which ends with this value.
struct Demo {
    child: Child,
    /// Of its page, as address and port.
    address: String,
    _home: TempDir,
}

impl Demo {
    fn start() -> Self {
        let home = TempDir::new().unwrap();
        let mut command = camscribe(home.path());
        command.args(["demo", "--port", "0", "--http-port", "0"]).env("TMPDIR", home.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told =
            lines.find_map(|line| Some(line.split_once("http://")?.1.trim_end_matches('/').to_owned()));
        thread::spawn(move || lines.for_each(drop));
        Self { child, address: told.expect("the demo tells where its page is"), _home: home }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_is_watched_searched_and_asked_in_a_browser() {
    let (demo, browser) = (Demo::start(), Browser::start());
    open_and_mark(&browser, &format!("http://{}/", demo.address));
    browser.until("document.querySelector('.tile .words').innerText.length > 10");
    browser.until(&format!("{PICTURES}('.tile')"));
    browser.until_text(".tile .answers", "red_circle");
    wait_for_newer(&browser);

    event(&demo.address, "q=triangle");
    browser.click("#nav a[href='#/search']");
    browser.type_into("#filter-q", "triangle");
    browser.press("#filter-q", ENTER);
    browser.until_text("mark", "triangle");
    browser.click(".event-time");
    let frames = browser.until(&format!("{PICTURES}('.event-view')"));
    assert!(frames.as_u64() > Some(4), "{frames}");
    browser.until_text(".said .words", "triangle");
    browser.until_text(".event-facts", "shapes, cpu");
    browser.run("history.back()");
    browser.until("document.querySelector('#filter-q')?.value === 'triangle'");

    browser.follow("#/camera/shapes");
    browser.type_into("#ask-question", "Is there a red circle?");
    browser.type_into("#ask-answers", "yes, no");
    browser.click("[aria-labelledby=ask-title] [type=submit]");
    browser.until("document.querySelectorAll('.answered .line').length === 2");
    let answer = browser.text(".answered .line[data-strong] .value");
    assert!(["yes", "no"].contains(&answer.as_str()), "{answer}");
    browser.until(&format!("{PICTURES}('.timeline .event')"));
    assert_eq!(browser.run("return window.marked"), true);
}

#[test]
fn the_page_comes_back_by_itself_when_the_daemon_does() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut daemon = Daemon::with(ONE, |_, command| {
        command.env("CAMSCRIBE__HTTP__LISTEN", &listen);
    });
    let browser = Browser::start();
    open_and_mark(&browser, &page(&daemon, ""));
    daemon.kill();
    browser.until_text("#banner", "Connection lost");
    browser.until("document.querySelector('.tile[data-stale] .words').innerText.length > 10");
    daemon.restart();
    browser.until("document.getElementById('banner').hidden");
    wait_for_newer(&browser);
    // What the history has from before the restart is still listed, and each once.
    browser.follow("#/camera/porch");
    browser.until("document.querySelectorAll('.timeline .event').length > 1");
    let ids = browser.run("return [...document.querySelectorAll('.event')].map(it => it.dataset.id)");
    let mut ids: Vec<_> = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let listed = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), browser.run("return window.marked")), (listed, json!(true)));
    assert_eq!(daemon.stop().0, Some(0));
}

/// A daemon that wants a token.
fn locked() -> Daemon {
    Daemon::with(&format!("http.token_file = \"CONFIG/token\"\n{ONE}"), |home, _| {
        fs::write(home.join("token"), "the-token-of-this-test\n").unwrap();
    })
}

#[test]
fn a_person_logs_in_with_the_token_and_out_again() {
    let daemon = locked();
    let browser = Browser::start();
    browser.open(&page(&daemon, "#/camera/porch"));
    browser.type_into("#token", "another-token");
    browser.press("#token", ENTER);
    browser.until_text("main", "does not know this token");
    browser.type_into("#token", "the-token-of-this-test");
    browser.press("#token", ENTER);
    // Back where the person wanted to be, and still there when the page is loaded again.
    browser.until("document.querySelector('.timeline .event') && !document.getElementById('logout').hidden");
    assert_eq!(browser.run("return [document.cookie, localStorage.length]"), json!(["", 0]));
    browser.open(&page(&daemon, ""));
    browser.until(&format!("{PICTURES}('.tile')"));
    browser.click("#logout");
    browser.until("document.getElementById('token')");
    assert_eq!(browser.promised("fetch('api/node').then(answer => answer.status)"), 401);
    assert_eq!(daemon.stop().0, Some(0));
}

/// What is wrong with a page that shows hostile text: nothing, as long as it is text.
const HARM: &str =
    "[window.ran, document.querySelectorAll('main script, main img[src=x], #announcer *').length,
    Math.max(0, document.documentElement.scrollWidth - innerWidth)]";

#[test]
fn hostile_text_is_shown_as_text() {
    let name = HOSTILE.replace('\u{202e}', "\\u202e").replace('\u{2066}', "\\u2066");
    let daemon = Daemon::start(&format!("{ONE}name = \"{name}\"\n"));
    let browser = Browser::start();
    // So that the test can tell the page of an event that no model would make.
    browser.before_each_page(
        "window.EventSource = class extends EventSource {
            constructor(address) { super(address); window.source = this; }
        };",
    );
    browser.open(&page(&daemon, ""));
    browser.until(&format!("{PICTURES}('.tile')"));
    browser.until_text(".tile h2", "<script>");
    browser.follow("#/camera/porch");
    browser.until_text("h1", "<script>");
    let prompt = format!("{HOSTILE}{}", "w".repeat(200));
    browser.until("!document.getElementById('prompt').readOnly");
    browser.run(&format!(
        "const field = document.getElementById('prompt');
         field.value = {};
         field.dispatchEvent(new Event('input'))",
        json!(prompt)
    ));
    browser.click("[aria-labelledby=settings-title] [type=submit]");
    browser.until_text("[aria-labelledby=settings-title]", "Done.");
    browser.type_into("#ask-question", HOSTILE);
    browser.click("[aria-labelledby=ask-title] [type=submit]");
    browser.until_text(".asked", "<script>");
    let asked = wait("a clip with this prompt", || {
        let found = json_of(&daemon.http_address(), "/api/events?limit=1");
        let event = &found["events"][0]["event"];
        (event["prompt"] == prompt.as_str()).then(|| event["id"].as_str().unwrap().to_owned())
    });
    browser.click("[role=switch]");
    browser.until_text(".page-head", "Switched off");

    // Only a clip that was being described may still come: the event is told again and again.
    let told = format!(
        "fetch('api/cameras').then(it => it.json()).then(({{ cameras: [{{ latest }}] }}) => {{
            const description = {} + 'x'.repeat(10000);
            const probabilities = [{{ value: description, probability: 1 }}];
            const answer = {{ type: 'choice', choice: description, probabilities, confidence: 1 }};
            const alert = {{ on: true, changed: true, since: latest.clip.end, probability: 1 }};
            const found = {{ answers: {{ [description]: answer }}, alerts: {{ [description]: alert }} }};
            const event = {{ ...latest, ...found, id: `f${{latest.id.slice(1)}}`, description }};
            window.source.dispatchEvent(new MessageEvent('event', {{ data: JSON.stringify(event) }}));
        }})",
        json!(HOSTILE)
    );
    for (width, hash, selector) in [
        (1280, "#/camera/porch", ".now .words"),
        (360, "#/camera/porch", ".timeline .event:first-child .words"),
        (360, "#/", ".tile .words"),
        (1280, "#/", ".tile .answers"),
        (1280, &format!("#/event/{asked}"), ".event-facts .words"),
        (360, &format!("#/event/{asked}"), ".event-facts .words"),
    ] {
        browser.resize(width, 860);
        browser.follow(hash);
        browser.until(&format!("document.querySelector('{selector}')"));
        lay_out_all(&browser);
        let shown = format!("return document.querySelector(\"{selector}\")?.innerText.includes('<script>')");
        wait(&format!("hostile text in {selector}"), || {
            assert_eq!(browser.promised(&told), Value::Null);
            (browser.run(&shown) == json!(true)).then_some(())
        });
        assert_eq!(browser.run(&format!("return {HARM}")), json!([null, 0, 0]), "{width} {hash}");
    }
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn fifty_cameras_have_a_tile_each() {
    let mut toml =
        String::from("model.id = \"shapes\"\nnode.id = \"n\"\ndefaults = { window = \"2s\", frames = 2 }\n");
    for n in 1..=50 {
        let enabled = n % 25 == 0;
        toml +=
            &format!("[cameras.cam{n}]\nuri = \"test://shapes\"\nname = \"Hall {n}\"\nenabled = {enabled}\n");
    }
    let (daemon, browser) = (Daemon::start(&toml), Browser::start());
    open_and_mark(&browser, &page(&daemon, ""));
    assert_eq!(browser.run("return document.querySelectorAll('.tile').length"), 50);
    browser.until_text(".summary", "50 cameras, 2 online");
    browser.run("scrollTo(0, document.documentElement.scrollHeight)");
    let place = "document.querySelector('.tile:last-child').getBoundingClientRect()";
    browser.until(&format!("scrollY > 1000 && {place}.top < innerHeight"));
    browser.type_into("#tile-filter", "hall 50");
    browser.until("document.querySelectorAll('.tile:not([hidden])').length === 1");
    browser.until(&format!("{PICTURES}('.tile:not([hidden])')"));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_camera_is_switched_off_and_on_and_asked_something_else() {
    let (daemon, browser) = (Daemon::start(ONE), Browser::start());
    let camera = || json_of(&daemon.http_address(), "/api/cameras")["cameras"][0].clone();
    browser.open(&page(&daemon, "#/camera/porch"));
    browser.until_text(".page-head", "Online");
    for (state, enabled) in [("Switched off", false), ("Online", true)] {
        browser.click("[role=switch]:enabled");
        browser.until_text(".page-head", state);
        browser.until(&format!("document.querySelector('[role=switch]').ariaChecked === '{enabled}'"));
        assert_eq!(camera()["enabled"], enabled);
    }
    let before = camera()["prompt"].clone();
    browser.type_into("#prompt", "What stands there?");
    browser.click("[aria-labelledby=settings-title] [type=submit]:enabled");
    browser.until_text("[aria-labelledby=settings-title]", "Done.");
    assert_eq!(camera()["prompt"], "What stands there?");
    browser.click("[aria-labelledby=settings-title] .plain:last-child:enabled");
    browser.until(&format!("document.getElementById('prompt').value === {before}"));
    assert_eq!(camera()["prompt"], before);
    // What cannot be asked is refused in words, and what was typed stays.
    browser.type_into("#prompt", "What is in <image>?");
    browser.click("[aria-labelledby=settings-title] [type=submit]:enabled");
    browser.until_text("[aria-labelledby=settings-title]", "Not changed:");
    assert_eq!(browser.run("return document.getElementById('prompt').value"), "What is in <image>?");
    assert_eq!(daemon.stop().0, Some(0));
}

/// Cameras in all states, with answers and alerts.
fn many(mqtt: u16, away: u16) -> String {
    let mut toml = format!(
        r#"
        model.id = "shapes"
        node.id = "edge1"
        mqtt.url = "mqtt://127.0.0.1:{mqtt}"
        history = {{ frames = "all", frame_format = "lossless" }}
        defaults = {{ window = "8s", frames = 8, max_tokens = 48 }}
        questions.red_circle.ask = "Is there a red circle?"
        questions.colour = {{ ask = "Which colour has the triangle?", answers = ["green", "yellow", "blue"] }}
        "#
    );
    for (id, name, scene, more) in [
        ("back_yard", "Back yard", "object=yellow-square-up&background=black&period=8s", ""),
        (
            "front_porch",
            "Front porch",
            "object=red-circle-still&object=blue-square-right&period=8s",
            "red_circle",
        ),
        ("garage", "Garage", "object=green-triangle-left&background=white&period=8s", "colour"),
        ("gate", "Gate", "object=blue-circle-down&background=grey&period=8s", "red_circle"),
        (
            "loading_dock",
            "Loading dock",
            "object=yellow-triangle-right&object=green-square-still&period=8s",
            "colour",
        ),
        ("reception", "Reception", "background=white&period=8s", ""),
    ] {
        toml += &format!("[cameras.{id}]\nname = \"{name}\"\nuri = \"test://shapes?{scene}\"\n");
        if !more.is_empty() {
            toml += &format!("questions = [\"{more}\"]\n");
        }
        if more == "red_circle" {
            toml += "alerts.red_circle = { question = \"red_circle\", of = \"1/1\" }\n";
        }
    }
    toml + &format!(
        "[cameras.stairs]\nname = \"Stairs\"\nuri = \"rtsp://127.0.0.1:{away}/stream\"\n\
         [cameras.store_room]\nname = \"Store room\"\nuri = \"test://shapes\"\nenabled = false\n"
    )
}

/// Lays out also what nobody sees yet.
fn lay_out_all(browser: &Browser) {
    let all = "document.querySelectorAll('.tile, .event')";
    browser.run(&format!("for (const it of {all}) it.style.contentVisibility = 'visible'"));
}

/// What axe-core finds that keeps people from using what is shown.
fn barriers(browser: &Browser) -> Value {
    lay_out_all(browser);
    browser.promised(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
            violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 200)}`)))",
    )
}

/// Writes a picture of the documentation.
fn save(browser: &Browser, folder: Option<&Path>, name: &str) {
    if let Some(folder) = folder {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(name), browser.screenshot()).unwrap();
    }
}

#[test]
fn nothing_keeps_people_from_using_the_page() {
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe/axe.min.js");
    let axe = fs::read_to_string(axe).unwrap_or_else(|error| panic!("needs axe-core: run .ci/axe ({error})"));
    let folder = env::var_os("CAMSCRIBE_SCREENSHOTS");
    let folder = folder.as_deref().map(Path::new);
    let broker = Mosquitto::start("");
    let (daemon, browser) = (Daemon::start(&many(broker.port(), free_port())), Browser::start());
    let address = daemon.http_address();
    browser.resize(1280, 900);
    browser.open(&page(&daemon, ""));
    browser.run(&axe);
    browser.until("document.querySelectorAll('.tile .shot img:not([hidden])').length === 6");
    browser.until_text(".tile[data-alert]", "red_circle");
    browser.until("document.querySelector('[data-state=offline]')");
    let porch = event(&address, "camera=front_porch");
    let views = [
        ("#/", ".tile", "page-overview.png"),
        ("#/camera/front_porch", ".timeline .event", "page-camera.png"),
        ("#/search?q=triangle", ".event mark", ""),
        (&format!("#/event/{porch}?frame=5"), ".event-facts", "page-event.png"),
        ("#/event/none", ".sentence", ""),
        ("#/node", ".facts", ""),
    ];
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        for (hash, shown, picture) in views {
            browser.follow(hash);
            browser.until(&format!("document.querySelector('{shown}') && location.hash === '{hash}'"));
            assert_eq!(barriers(&browser), json!([]), "{scheme} {hash}");
            if (scheme == "dark") == (picture == "page-camera.png") && !picture.is_empty() {
                browser.run("scrollTo(0, 0)");
                browser.until(&format!("{PICTURES}('main')"));
                save(&browser, folder, &picture.replace("camera", "camera-dark"));
            }
        }
    }
    assert_eq!(daemon.stop().0, Some(0));

    let locked = locked();
    browser.open(&page(&locked, ""));
    browser.run(&axe);
    browser.until("document.getElementById('token')");
    assert_eq!(barriers(&browser), json!([]));
    assert_eq!(locked.stop().0, Some(0));
}
