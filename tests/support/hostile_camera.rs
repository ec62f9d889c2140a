//! An RTSP camera in a few sockets, with the faults of real ones. It sends H.264 inside the RTSP connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use sha2::{Digest, Sha256};

/// Pictures per second.
const FPS: u32 = 25;
/// Timestamps per second.
const CLOCK_RATE: u32 = 90_000;
/// The largest payload of a packet, in bytes.
const PAYLOAD: usize = 1200;
/// The SSRC that the camera announces.
const SSRC: u32 = 0xC517_011F;
/// Seconds from 1900 to 1970.
const NTP_TO_UNIX: f64 = 2_208_988_800.;

/// What is wrong with a camera. Pictures count from 0, and again from 0 when its faults change.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The SSRC changes every so many pictures; sequence numbers go on.
    pub ssrc_every: Option<u32>,
    /// At this picture the SSRC, the sequence numbers and the timestamps become others.
    pub ssrc_change: Option<u32>,
    /// Every other picture, packets of another sender come first.
    pub foreign: bool,
    /// The header `RTP-Info` of the answer to PLAY.
    pub rtp_info: RtpInfo,
    /// Seconds that the camera's clock is ahead of ours.
    pub clock_ahead: f64,
    /// One picture in this many has a timestamp hours away.
    pub slip_every: Option<u32>,
    /// Only the first picture is a keyframe.
    pub one_keyframe: bool,
    /// At this picture the network stands still for a second and a half, then all of it comes at once.
    pub stall: Option<u32>,
    /// The answer to SETUP does not name channels.
    pub no_channels: bool,
    /// A login is wanted, by a digest with SHA-256 alone: see [`LOGIN`].
    pub sha256: bool,
    /// A session ends after this many seconds without a request, as the camera says.
    pub timeout: Option<u32>,
    /// The camera says so of this many seconds, but goes on.
    pub session: Option<u32>,
    /// The answer to a request while pictures are sent.
    pub keep_alive: KeepAliveAnswer,
    /// At this picture it hangs up, once.
    pub hang_up: Option<u32>,
    /// It hangs up instead of answering this method; if it wants a login, once that was sent.
    pub hang_up_on: Option<&'static str>,
    /// What it states as its clock rate in place of `/90000`.
    pub clock_rate: Option<&'static str>,
    /// Its pictures come without parameter sets.
    pub no_parameter_sets: bool,
    /// Every packet has the marker of a picture's last one.
    pub marks: bool,
    /// A byte that belongs to nothing comes before every so many packets.
    pub stray_every: Option<u16>,
    /// It knows no OPTIONS and no Range, says first that it will answer, and describes its stream as few do: without a
    /// URI, with a multicast address, another name of the protocol and spaces.
    pub odd_words: bool,
}

/// The user name and the password of a camera that wants a login.
pub const LOGIN: (&str, &str) = ("viewer", "sec:ret");

/// What a camera answers to a request while it sends pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum KeepAliveAnswer {
    #[default]
    Ok,
    /// 454, "Session Not Found".
    Unknown,
    Silence,
    Close,
}

/// What a camera says of its first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RtpInfo {
    #[default]
    Right,
    Absent,
    Zero,
    Wrong,
}

/// A camera that runs until it is dropped.
pub struct HostileCamera {
    port: u16,
    faults: Arc<Mutex<Faults>>,
    stop: Arc<AtomicBool>,
    /// When the first picture of the latest viewer was sent.
    began: Arc<Mutex<Option<SystemTime>>>,
    /// How many viewers asked for pictures.
    plays: Arc<AtomicU32>,
}

impl HostileCamera {
    pub fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let film = Arc::new(film(if faults.one_keyframe { 10 * FPS } else { FPS }));
        let plays = Arc::new(AtomicU32::new(0));
        let faults = Arc::new(Mutex::new(faults));
        let (stopped, beginning) = (stop.clone(), began.clone());
        let (shared, counted) = (faults.clone(), plays.clone());
        thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let viewer = Viewer {
                    faults: shared.clone(),
                    film: film.clone(),
                    socket: Arc::new(Mutex::new(socket.try_clone().unwrap())),
                    began: beginning.clone(),
                    plays: counted.clone(),
                    last_request: Arc::new(Mutex::new(Instant::now())),
                    playing: AtomicBool::new(false),
                };
                // An error is the viewer's hanging up.
                thread::spawn(move || viewer.serve(BufReader::new(socket)));
            }
        });
        Self { port, faults, stop, began, plays }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many viewers asked for pictures.
    pub fn plays(&self) -> u32 {
        self.plays.load(Ordering::SeqCst)
    }

    /// Changes what is wrong with it, also for who watches it now.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    pub fn uri(&self) -> String {
        format!("rtsp://127.0.0.1:{}/live", self.port)
    }

    /// When the first picture of the latest viewer was sent, by our clock.
    pub fn began(&self) -> SystemTime {
        self.began.lock().unwrap().expect("somebody has watched")
    }
}

impl Drop for HostileCamera {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// The NAL units of each picture: ten seconds, a keyframe every `keyframes` pictures.
fn film(keyframes: u32) -> Vec<Vec<Vec<u8>>> {
    gst::init().unwrap();
    let launch = format!(
        "videotestsrc num-buffers={} pattern=ball ! video/x-raw,width=320,height=240,framerate={FPS}/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={keyframes} option-string=slices=3 \
         ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=out sync=false",
        10 * FPS
    );
    let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut pictures = Vec::new();
    while let Ok(sample) = out.pull_sample() {
        pictures.push(nal_units(&sample.buffer().unwrap().map_readable().unwrap()));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    pictures
}

/// Cuts a byte stream at its start codes (ITU-T H.264, annex B).
fn nal_units(stream: &[u8]) -> Vec<Vec<u8>> {
    let code = |at: &usize| stream[*at..].starts_with(&[0, 0, 1]);
    let starts: Vec<usize> = (0..stream.len()).filter(code).map(|at| at + 3).collect();
    let ends = starts.iter().skip(1).map(|next| next - 3).chain([stream.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| {
        let unit = &stream[*start..end];
        unit[..unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)].to_vec()
    });
    units.filter(|unit| !unit.is_empty()).collect()
}

/// One connection.
struct Viewer {
    faults: Arc<Mutex<Faults>>,
    film: Arc<Vec<Vec<Vec<u8>>>>,
    socket: Arc<Mutex<TcpStream>>,
    began: Arc<Mutex<Option<SystemTime>>>,
    plays: Arc<AtomicU32>,
    last_request: Arc<Mutex<Instant>>,
    playing: AtomicBool,
}

impl Viewer {
    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    fn serve(self, mut requests: BufReader<TcpStream>) -> io::Result<()> {
        let viewer = Arc::new(self);
        loop {
            if requests.fill_buf()?.first() == Some(&b'$') {
                // A receiver report.
                let mut header = [0; 4];
                requests.read_exact(&mut header)?;
                let length = u16::from_be_bytes([header[2], header[3]]);
                io::copy(&mut requests.by_ref().take(length.into()), &mut io::sink())?;
                continue;
            }
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if requests.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                match line.trim() {
                    "" => break,
                    line => lines.push(line.to_owned()),
                }
            }
            if !lines.is_empty() {
                viewer.answer(&lines)?;
            }
        }
    }

    fn answer(self: &Arc<Self>, request: &[String]) -> io::Result<()> {
        let mut words = request[0].split(' ');
        let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let header = |name: &str| {
            let line = request.iter().find(|line| line.to_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
        };
        *self.last_request.lock().unwrap() = Instant::now();
        let is_due = !self.faults().sha256 || !header("authorization").is_empty();
        if self.faults().hang_up_on == Some(method) && is_due {
            return self.socket.lock().unwrap().shutdown(Shutdown::Both);
        }
        if self.faults().sha256 && !is_authorised(method, header("authorization")) {
            let challenge =
                format!("WWW-Authenticate: Digest realm=\"{REALM}\", nonce=\"{NONCE}\", algorithm=SHA-256");
            return self.send_text(&format!(
                "RTSP/1.0 401 Unauthorized\r\nCSeq: {}\r\n{challenge}\r\n\r\n",
                header("cseq")
            ));
        }
        if self.began_to_send() && method != "TEARDOWN" {
            match self.faults().keep_alive {
                KeepAliveAnswer::Ok => {}
                KeepAliveAnswer::Unknown => {
                    let answer =
                        format!("RTSP/1.0 454 Session Not Found\r\nCSeq: {}\r\n\r\n", header("cseq"));
                    return self.send_text(&answer);
                }
                KeepAliveAnswer::Silence => return Ok(()),
                KeepAliveAnswer::Close => return self.socket.lock().unwrap().shutdown(Shutdown::Both),
            }
        }
        if self.faults().odd_words {
            let refusal = match method {
                "OPTIONS" => Some("400 Bad Request"),
                "PLAY" if !header("range").is_empty() => Some("457 Invalid Range"),
                _ => None,
            };
            let status = refusal.unwrap_or("100 Continue");
            self.send_text(&format!("RTSP/1.0 {status}\r\nCSeq: {}\r\n\r\n", header("cseq")))?;
            if refusal.is_some() {
                return Ok(());
            }
        }
        let (mut headers, mut body) = (String::new(), String::new());
        match method {
            "OPTIONS" => headers += "Public: OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, GET_PARAMETER\r\n",
            "DESCRIBE" => {
                headers += &format!("Content-Type: application/sdp\r\nContent-Base: {uri}/\r\n");
                let clock_rate = self.faults().clock_rate.unwrap_or("/90000");
                body += &format!(
                    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=camera\r\nt=0 0\r\na=control:*\r\n\
                     m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264{clock_rate}\r\n\
                     a=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
                );
                if self.faults().odd_words {
                    headers = headers.replace("application/sdp", "text/plain");
                    body = body
                        .replace("RTP/AVP", "RTP/AVP/TCP")
                        .replace("t=0 0", "c=IN IP4 239.1.2.3/127\r\nt=0 0")
                        .replace("a=control:track1\r\n", "")
                        .replace("rtpmap:96 ", "rtpmap: 96  ");
                }
            }
            "SETUP" => {
                let transport = header("transport").split(',').next().unwrap_or_default();
                let transport = match self.faults().no_channels {
                    true => "RTP/AVP/TCP;unicast",
                    false => transport,
                };
                let timeout = self
                    .faults()
                    .timeout
                    .or(self.faults().session)
                    .map_or_else(String::new, |timeout| format!(";timeout={timeout}"));
                headers += &format!("Transport: {transport};ssrc={SSRC:X}\r\nSession: 1{timeout}\r\n");
            }
            "PLAY" => headers += &format!("Session: 1\r\n{}", self.rtp_info(uri)),
            _ => headers += "Session: 1\r\n",
        }
        if !body.is_empty() {
            headers += &format!("Content-Length: {}\r\n", body.len());
        }
        let answer = format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\n{headers}\r\n{body}", header("cseq"));
        self.send_text(&answer)?;
        match method {
            "PLAY" => {
                self.plays.fetch_add(1, Ordering::SeqCst);
                self.playing.store(true, Ordering::SeqCst);
                let viewer = self.clone();
                thread::spawn(move || Stream::new(&viewer).play());
            }
            "TEARDOWN" => self.socket.lock().unwrap().shutdown(Shutdown::Both)?,
            _ => {}
        }
        Ok(())
    }

    fn send_text(&self, text: &str) -> io::Result<()> {
        self.socket.lock().unwrap().write_all(text.as_bytes())
    }

    fn began_to_send(&self) -> bool {
        self.playing.load(Ordering::SeqCst)
    }

    fn rtp_info(&self, uri: &str) -> String {
        let (sequence, timestamp) = match self.faults().rtp_info {
            RtpInfo::Right => (FIRST_SEQUENCE, FIRST_TIMESTAMP),
            RtpInfo::Absent => return String::new(),
            RtpInfo::Zero => (0, 0),
            RtpInfo::Wrong => (FIRST_SEQUENCE + 30_001, FIRST_TIMESTAMP + 999_999),
        };
        format!("RTP-Info: url={uri}/track1;seq={sequence};rtptime={timestamp}\r\n")
    }
}

const REALM: &str = "camera";
const NONCE: &str = "0123456789abcdef";

/// Whether this is the answer to the camera's challenge (RFC 7616, section 3.4, without qop).
fn is_authorised(method: &str, authorization: &str) -> bool {
    let hash = |text: String| {
        Sha256::digest(text).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    };
    let uri =
        authorization.split("uri=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let login = hash(format!("{}:{REALM}:{}", LOGIN.0, LOGIN.1));
    let wanted = hash(format!("{login}:{NONCE}:{}", hash(format!("{method}:{uri}"))));
    authorization.contains(&format!("response=\"{wanted}\""))
}

const FIRST_SEQUENCE: u16 = 20_000;
const FIRST_TIMESTAMP: u32 = 1_000_000_000;

/// What one viewer is sent.
struct Stream<'a> {
    viewer: &'a Viewer,
    ssrc: u32,
    sequence: u16,
    /// The timestamp of the first picture.
    base: u32,
}

impl<'a> Stream<'a> {
    fn new(viewer: &'a Viewer) -> Self {
        Self { viewer, ssrc: SSRC, sequence: FIRST_SEQUENCE, base: FIRST_TIMESTAMP }
    }

    /// Sends pictures until the viewer has gone.
    fn play(&mut self) -> io::Result<()> {
        let (mut faults, mut changed) = (self.viewer.faults(), 0);
        let began = SystemTime::now();
        let start = Instant::now();
        *self.viewer.began.lock().unwrap() = Some(began);
        let every = |n: u32, interval: Option<u32>| interval.is_some_and(|i| n > 0 && n.is_multiple_of(i));
        for n in 0u32.. {
            let current = self.viewer.faults();
            if current != faults {
                (faults, changed) = (current, n);
            }
            let at = Some(n - changed);
            let due = start + Duration::from_secs(1) * n / FPS;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let silent = self.viewer.last_request.lock().unwrap().elapsed();
            if faults.timeout.is_some_and(|timeout| silent > Duration::from_secs(timeout.into())) {
                return self.viewer.socket.lock().unwrap().shutdown(Shutdown::Both);
            }
            if faults.stall == at {
                thread::sleep(Duration::from_millis(1500));
            }
            if faults.hang_up == at {
                self.viewer.faults.lock().unwrap().hang_up = None;
                return self.viewer.socket.lock().unwrap().shutdown(Shutdown::Both);
            }
            if every(n, faults.ssrc_every) {
                self.ssrc = self.ssrc.wrapping_add(0x10001);
            }
            if faults.ssrc_change == at {
                self.ssrc = 0x0123_4567;
                self.sequence = self.sequence.wrapping_add(12_345);
                self.base = self.base.wrapping_add(123_456_789);
            }
            let mut timestamp = self.base.wrapping_add(n * CLOCK_RATE / FPS);
            // The first report comes after the first pictures, as cameras do it.
            if n % (5 * FPS) == FPS / 3 {
                self.report(began + Duration::from_secs(1) * n / FPS, timestamp)?;
            }
            if every(n + 7, faults.slip_every) {
                timestamp = timestamp.wrapping_add(10_000 * CLOCK_RATE);
            }
            let film = &self.viewer.film;
            if faults.foreign && n.is_multiple_of(2) {
                for (i, unit) in film[(n as usize + 100) % film.len()].iter().enumerate() {
                    let sequence = (n as u16).wrapping_mul(16).wrapping_add(i as u16);
                    self.packet(&unit[..unit.len().min(PAYLOAD)], true, (sequence, 777_777, 0x5BF7_3F70))?;
                }
            }
            let mut units = film[n as usize % film.len()].clone();
            if faults.no_parameter_sets {
                units.retain(|unit| !matches!(unit[0] & 31, 7 | 8));
            }
            self.picture(&units, timestamp)?;
        }
        Ok(())
    }

    fn picture(&mut self, units: &[Vec<u8>], timestamp: u32) -> io::Result<()> {
        for (i, unit) in units.iter().enumerate() {
            let last = i + 1 == units.len();
            if unit.len() <= PAYLOAD {
                self.own_packet(unit, last, timestamp)?;
                continue;
            }
            // Fragmentation units (RFC 6184, section 5.8).
            let fragments = unit[1..].chunks(PAYLOAD);
            let count = fragments.len();
            for (k, fragment) in fragments.enumerate() {
                let (first, end) = (k == 0, k + 1 == count);
                let header = u8::from(first) << 7 | u8::from(end) << 6 | unit[0] & 31;
                let payload = [&[unit[0] & 0xE0 | 28, header], fragment].concat();
                self.own_packet(&payload, last && end, timestamp)?;
            }
        }
        Ok(())
    }

    fn own_packet(&mut self, payload: &[u8], last: bool, timestamp: u32) -> io::Result<()> {
        let Faults { marks, stray_every, .. } = self.viewer.faults();
        if stray_every.is_some_and(|every| self.sequence.is_multiple_of(every)) {
            self.viewer.socket.lock().unwrap().write_all(b"Q")?;
        }
        self.packet(payload, last || marks, (self.sequence, timestamp, self.ssrc))?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    /// Sends a packet with this sequence number, timestamp and SSRC.
    fn packet(&self, payload: &[u8], marker: bool, numbers: (u16, u32, u32)) -> io::Result<()> {
        let (sequence, timestamp, ssrc) = numbers;
        let mut packet = vec![0x80, u8::from(marker) << 7 | 96];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        self.send(0, &packet)
    }

    /// A sender report: `timestamp` belongs to the picture that was captured at `captured`.
    fn report(&self, captured: SystemTime, timestamp: u32) -> io::Result<()> {
        let unix = captured.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let ntp = unix + self.viewer.faults().clock_ahead + NTP_TO_UNIX;
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend((ntp as u32).to_be_bytes());
        packet.extend(((ntp.fract() * 2f64.powi(32)) as u32).to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0; 8]);
        self.send(1, &packet)
    }

    fn send(&self, channel: u8, packet: &[u8]) -> io::Result<()> {
        let mut framed = vec![b'$', channel];
        framed.extend((packet.len() as u16).to_be_bytes());
        framed.extend(packet);
        self.viewer.socket.lock().unwrap().write_all(&framed)
    }
}
