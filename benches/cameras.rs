//! What a 1080p25 H.264 camera costs: CPU beside a bare decode by GStreamer and a keyframe decode by
//! ffmpeg of the same RTSP stream, and memory per added camera.
//!
//!     cargo bench --bench cameras -- FILM [SECONDS]
//!
//! FILM (any that ffmpeg reads) is made into 1080p25, 4 Mbit/s, a keyframe every two seconds, and served
//! over RTSP (TCP) from this process, which is not measured. Windows are longer than the measurement,
//! so that the model has nothing to do in it: this is the price of watching, not of describing. For
//! memory the windows are the default ones and every clip is described.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

#[path = "../tests/support/daemon.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod daemon;
#[path = "../tests/support/rtsp.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod rtsp;

use daemon::{Daemon, wait};
use rtsp::RtspServer;

/// Until everything has started: the model is loaded, the stream is there.
const SETTLE: Duration = Duration::from_secs(8);

fn film(from: &Path, to: &Path, seconds: u64) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-stream_loop", "-1", "-i"])
        .arg(from)
        .args(["-t", &seconds.to_string(), "-an", "-vf", "scale=1920:1080,setsar=1,fps=25,format=yuv420p"])
        .args(["-c:v", "libx264", "-preset", "veryfast", "-b:v", "4M", "-maxrate", "4M", "-bufsize", "8M"])
        .args(["-g", "50", "-sc_threshold", "0", "-bf", "0"])
        .arg(to)
        .status()
        .expect("ffmpeg is installed");
    assert!(status.success(), "ffmpeg cannot read {}", from.display());
}

/// Seconds that a process has spent on the CPU.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("one").split_whitespace().collect();
    // utime and stime (proc(5)), in hundredths of a second.
    [11, 12].iter().map(|&i: &usize| fields[i].parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// Of one core, while the stream runs.
fn load(pid: u32, seconds: u64) -> f64 {
    thread::sleep(SETTLE);
    let before = cpu(pid);
    thread::sleep(Duration::from_secs(seconds));
    (cpu(pid) - before) / seconds as f64
}

fn rival(program: &str, arguments: &[&str], seconds: u64) -> f64 {
    let quiet = || Stdio::null();
    let mut child: Child = Command::new(program)
        .args(arguments)
        .stdin(quiet())
        .stdout(quiet())
        .stderr(quiet())
        .spawn()
        .expect("it is installed");
    let load = load(child.id(), seconds);
    assert!(child.try_wait().expect("a child of ours").is_none(), "{program} ended early");
    child.kill().and_then(|()| child.wait()).expect("ended");
    load
}

fn watch(camera: &str, cameras: usize, uri: &str) -> Daemon {
    let mut toml = String::from("model.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:9\"\n");
    for i in 0..cameras {
        toml += &format!("[cameras.c{i}]\nuri = \"{uri}\"\n{camera}\n");
    }
    let daemon = Daemon::start(&toml);
    wait("frames", || {
        (daemon.metric("camscribe_frames_total{camera=\"c0\"}").unwrap_or(0.0) > 0.0).then_some(())
    });
    daemon
}

fn own(sampling: &str, seconds: u64, uri: &str) -> f64 {
    // A frame a second; a keyframe every two.
    let camera = format!("sampling = \"{sampling}\"\nwindow = \"64s\"\nframes = 64\nstride = \"64s\"");
    let daemon = watch(&camera, 1, uri);
    let load = load(daemon.pid(), seconds);
    let made = daemon.metric("camscribe_clips_total{camera=\"c0\"}").unwrap_or(0.0);
    assert!(made == 0.0, "a clip was made: shorten the measurement");
    load
}

/// Resident memory with this many cameras, in MB.
fn memory(sampling: &str, cameras: usize, seconds: u64, uri: &str) -> f64 {
    let daemon = watch(&format!("sampling = \"{sampling}\""), cameras, uri);
    thread::sleep(Duration::from_secs(seconds));
    daemon.metric("process_resident_memory_bytes").expect("there") / 1e6
}

fn main() {
    // cargo adds --bench.
    let mut arguments = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let from = arguments.next().expect("name a film: cargo bench --bench cameras -- FILM");
    let seconds: u64 = arguments.next().map_or(30, |it| it.parse().expect("seconds"));
    assert!(seconds <= 40, "a window of 64 s would end within the measurement");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("film.mp4");
    film(Path::new(&from), &file, 3 * SETTLE.as_secs() + 2 * seconds);
    let server = RtspServer::start(&format!(
        "filesrc location={} ! qtdemux ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96",
        file.display()
    ));
    let uri = server.uri();

    let launch = format!(
        "rtspsrc location={uri} protocols=tcp ! rtph264depay ! h264parse ! avdec_h264 ! fakesink sync=false"
    );
    let launch: Vec<&str> = launch.split(' ').collect();
    let common = ["-v", "error", "-rtsp_transport", "tcp"];
    let all = [&common[..], &["-i", &uri, "-f", "null", "-"]].concat();
    let keys = [&common[..], &["-skip_frame", "nokey", "-i", &uri, "-f", "null", "-"]].concat();
    let rate = own("rate", seconds, &uri);
    let bare = rival("gst-launch-1.0", &launch, seconds);
    let ffmpeg = rival("ffmpeg", &all, seconds);
    let keyframes = own("keyframes", seconds, &uri);
    let skipping = rival("ffmpeg", &keys, seconds);
    println!("{seconds} s each; percent of one core\n");
    println!("| | % | ratio, rival / ours |\n|---|---|---|");
    println!("| camscribe, rate (1 frame a second kept) | {:.1} | |", 100.0 * rate);
    println!("| gst-launch-1.0, bare decode | {:.1} | {:.2} |", 100.0 * bare, bare / rate);
    println!("| ffmpeg, full decode | {:.1} | {:.2} |", 100.0 * ffmpeg, ffmpeg / rate);
    println!("| camscribe, keyframes | {:.1} | |", 100.0 * keyframes);
    println!("| ffmpeg -skip_frame nokey | {:.1} | {:.2} |", 100.0 * skipping, skipping / keyframes);

    println!("\n| cameras | resident, MB (rate) | resident, MB (keyframes) |\n|---|---|---|");
    let counts = [1, 2, 4];
    let rows = counts.map(|n| {
        let [rate, keyframes] = ["rate", "keyframes"].map(|sampling| memory(sampling, n, seconds, &uri));
        println!("| {n} | {rate:.0} | {keyframes:.0} |");
        (rate, keyframes)
    });
    let added = (counts[2] - counts[0]) as f64;
    println!(
        "| per added camera | {:.0} | {:.0} |",
        (rows[2].0 - rows[0].0) / added,
        (rows[2].1 - rows[0].1) / added
    );
}
