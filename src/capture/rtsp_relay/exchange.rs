//! Pure: the requests and responses of one RTSP connection, on their way between GStreamer's client and the camera.
//!
//! The camera sees one client that logs in, and that asks now and then so that the session does not expire. The
//! client sees a camera that wants no login.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use http_auth::PasswordClient;

use super::{
    keep_alive::{self, KeepAlive},
    login,
    message::Message,
    transport,
};
use crate::config::{Login, NetworkAddress};

/// The most redirections that are followed, one after another.
const MAX_REDIRECTIONS: u32 = 4;
/// The most requests that wait for their responses. A client waits for each before it sends the next.
const MAX_WAITING: usize = 32;

/// What to do with a message of the camera.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It was for this relay alone.
    Nothing,
    /// Send this to the client.
    ToClient(Message),
    /// Send this to the camera.
    ToCamera(Message),
    /// Connect to this address, and send [`Exchange::again`] there.
    Redirect(NetworkAddress),
}

/// What the camera wants and this program cannot give.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// A login by methods that are not known here.
    Login(String),
    /// To be looked for elsewhere, again and again, or without encryption, or nowhere.
    Redirection(String),
}

/// A request that has no response yet.
struct Waiting {
    /// The number under which it was sent to the camera.
    sequence: u32,
    /// As the client sent it, with the camera's URI.
    request: Message,
    asker: Asker,
    /// A login was sent with it.
    with_login: bool,
    /// It was sent once more, with a login.
    repeated: bool,
}

/// Who asks.
#[derive(PartialEq)]
enum Asker {
    /// The client, under this number.
    Client(Option<String>),
    /// This relay, to keep the session alive.
    KeepAlive,
}

/// A session that plays.
struct Session {
    uri: String,
    /// The header `Session`.
    id: String,
    interval: Duration,
}

/// The state of one connection.
pub(super) struct Exchange {
    /// What the client's URIs begin with in place of the camera's scheme, host and port.
    client_base: String,
    /// The first URI of the client, which stands for the camera's address.
    client_url: String,
    /// A redirection has led to another host.
    elsewhere: bool,
    address: NetworkAddress,
    /// The camera's own address.
    peer: Option<IpAddr>,
    login: Option<Login>,
    /// What the camera has asked for a login.
    challenge: Option<PasswordClient>,
    next_sequence: u32,
    waiting: VecDeque<Waiting>,
    redirections: u32,
    offers_get_parameter: bool,
    /// The header `Session` of the last SETUP, until PLAY.
    set_up: Option<String>,
    session: Option<Session>,
    keep_alive: KeepAlive,
    last_request: Instant,
    /// The camera has taken a login on this connection.
    logged_in: bool,
    /// The camera has answered a request.
    answered: bool,
    /// The method that the camera has refused, and its words, unless it plays all the same.
    refused: Option<(String, String)>,
}

/// The request of the client that a camera has left without an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Unanswered {
    pub method: String,
    /// It was sent with a login, and the camera has not taken that login yet.
    pub first_login: bool,
}

impl Exchange {
    /// A connection to the camera at `address`, for a client whose URIs begin with `client_base`.
    pub fn new(
        client_base: String,
        address: NetworkAddress,
        login: Option<Login>,
        keep_alive: KeepAlive,
    ) -> Self {
        let client_url = format!("{client_base}{}", address.split_before_path().1);
        Self {
            client_base,
            client_url,
            elsewhere: false,
            address,
            peer: None,
            login,
            challenge: None,
            next_sequence: 1,
            waiting: VecDeque::new(),
            redirections: 0,
            offers_get_parameter: true,
            set_up: None,
            session: None,
            keep_alive,
            last_request: Instant::now(),
            logged_in: false,
            answered: false,
            refused: None,
        }
    }

    /// The camera is connected, from this address.
    pub fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.peer = peer;
    }

    /// A message of the client. Returns what to send to the camera.
    pub fn on_client(&mut self, mut message: Message, now: Instant) -> Message {
        if message.status().is_some() {
            return message;
        }
        if message.uri() == self.client_url {
            message.set_uri(self.address.as_str());
        } else if let Some(rest) = message.uri().strip_prefix(&self.client_base) {
            let uri = format!("{}{rest}", self.address.split_before_path().0);
            message.set_uri(&uri);
        }
        let asker = Asker::Client(message.header("CSeq").map(Into::into));
        self.send(message, asker, false, now)
    }

    /// A message of the camera.
    ///
    /// # Errors
    /// If the camera wants what is not to be had here.
    pub fn on_camera(&mut self, mut message: Message, now: Instant) -> Result<Step, Refusal> {
        let Some(status) = message.status() else { return Ok(Step::ToClient(message)) };
        if matches!(status, 100..=199) {
            // The response is still to come.
            return Ok(Step::Nothing);
        }
        let Some(waiting) = self.take_waiting(message.sequence()) else { return Ok(Step::Nothing) };
        self.answered = true;
        if status == 401 && self.take_challenge(&message, &waiting)? {
            let Waiting { request, asker, .. } = waiting;
            return Ok(Step::ToCamera(self.send(request, asker, true, now)));
        }
        self.logged_in |= waiting.with_login && status != 401;
        let method = waiting.request.method();
        let Asker::Client(sequence) = waiting.asker else {
            if status == 401 {
                // The password has been changed: to send it again and again would lock the account.
                self.session = None;
            } else if status >= 400 {
                self.keep_alive = self.keep_alive.after_refusal(method);
            }
            return Ok(Step::Nothing);
        };
        if matches!(status, 301..=308) && matches!(method, "OPTIONS" | "DESCRIBE") {
            let to = self.follow(&message)?;
            let again = Waiting { asker: Asker::Client(sequence), ..waiting };
            self.waiting = [again].into();
            return Ok(Step::Redirect(to));
        }
        if method == "PLAY" && matches!(status, 451 | 457) && waiting.request.header("Range").is_some() {
            // The camera plays from now on and nothing else.
            let mut request = waiting.request.clone();
            request.remove_header("Range");
            return Ok(Step::ToCamera(self.send(request, Asker::Client(sequence), false, now)));
        }
        // GStreamer tells these two from other answers.
        if status >= 400 && !matches!(status, 401 | 404) && matches!(method, "DESCRIBE" | "SETUP" | "PLAY") {
            self.refused = Some((method.into(), message.status_text()));
        } else if method == "PLAY" {
            self.refused = None;
        }
        if method == "OPTIONS" && status >= 400 && status != 401 {
            // What it does not offer it refuses anyway.
            message = Message::response(200, "OK");
        } else if matches!(status, 200..=299) {
            self.on_success(&waiting.request, &mut message);
        }
        if status == 401 {
            // One that the client knows: otherwise it does not tell this from other errors.
            message.set_header("WWW-Authenticate", "Basic realm=\"camera\"");
        }
        if let Some(sequence) = sequence {
            message.set_header("CSeq", sequence);
        }
        Ok(Step::ToClient(message))
    }

    /// The request that was redirected, for the new camera.
    pub fn again(&mut self, now: Instant) -> Option<Message> {
        let Waiting { mut request, asker, .. } = self.waiting.pop_front()?;
        request.set_uri(self.address.as_str());
        Some(self.send(request, asker, false, now))
    }

    /// The method that the camera has refused, and its words.
    pub fn refused(&self) -> Option<(&str, &str)> {
        self.refused.as_ref().map(|(method, words)| (&**method, &**words))
    }

    /// Whether the camera has answered a request on this connection.
    pub fn was_answered(&self) -> bool {
        self.answered
    }

    /// Whether the camera has taken a login on this connection.
    pub fn logged_in(&self) -> bool {
        self.logged_in
    }

    /// Whether the camera has been made to play.
    pub fn plays(&self) -> bool {
        self.session.is_some()
    }

    /// When the session has to be kept alive.
    pub fn keep_alive_at(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        self.keep_alive.method(self.offers_get_parameter)?;
        Some(self.last_request + session.interval)
    }

    /// The request that keeps the session alive.
    pub fn keep_alive(&mut self, now: Instant) -> Option<Message> {
        let session = self.session.as_ref()?;
        let mut request = Message::request(self.keep_alive.method(self.offers_get_parameter)?, &session.uri);
        request.set_header("Session", session.id.clone());
        // Some cameras answer none of them.
        self.waiting.retain(|waiting| waiting.asker != Asker::KeepAlive);
        Some(self.send(request, Asker::KeepAlive, false, now))
    }

    /// How to keep the camera's next session alive, now that the camera has closed this connection.
    pub fn keep_alive_after_close(&self) -> KeepAlive {
        match &self.session {
            Some(_) => self.keep_alive.after_close(self.unanswered_keep_alive()),
            None => self.keep_alive,
        }
    }

    /// The method of the request to keep the session alive that the camera has not answered.
    pub fn unanswered_keep_alive(&self) -> Option<&str> {
        let unanswered = self.waiting.iter().find(|waiting| waiting.asker == Asker::KeepAlive)?;
        Some(unanswered.request.method())
    }

    /// The request of the client that the camera has not answered, while nothing plays yet.
    pub fn unanswered(&self) -> Option<Unanswered> {
        // The client keeps sessions alive with OPTIONS, too.
        let counts = |it: &&Waiting| match it.request.method() {
            "OPTIONS" => it.asker != Asker::KeepAlive && it.request.header("Session").is_none(),
            method => matches!(method, "DESCRIBE" | "SETUP" | "PLAY"),
        };
        let waiting = self.waiting.iter().find(counts).filter(|_| self.session.is_none())?;
        let first_login = waiting.with_login && !self.logged_in;
        Some(Unanswered { method: waiting.request.method().into(), first_login })
    }

    /// Notes a request, and returns it as the camera is to see it.
    fn send(&mut self, request: Message, asker: Asker, repeated: bool, now: Instant) -> Message {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mut sent = request.clone();
        sent.set_header("CSeq", sequence.to_string());
        let authorization = self.authorization(&sent);
        let with_login = authorization.is_some();
        if let Some(value) = authorization {
            sent.set_header("Authorization", value);
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { sequence, request, asker, with_login, repeated });
        self.last_request = now;
        sent
    }

    fn authorization(&mut self, request: &Message) -> Option<String> {
        let (login, challenge) = (self.login.as_ref()?, self.challenge.as_mut()?);
        if self.elsewhere && matches!(challenge, PasswordClient::Basic(_)) {
            return None;
        }
        login::authorization(challenge, login, request)
    }

    /// The request that a response belongs to. A response without its number belongs to the oldest one.
    fn take_waiting(&mut self, sequence: Option<u32>) -> Option<Waiting> {
        let known = self.waiting.iter().position(|waiting| Some(waiting.sequence) == sequence);
        match sequence {
            // An answer to keeping the session alive that nobody waits for any more.
            Some(sequence) if known.is_none() && sequence < self.next_sequence && self.session.is_some() => {
                None
            }
            _ => self.waiting.remove(known.unwrap_or(0)),
        }
    }

    /// Takes what a refused request is asked for. Returns whether to send it again: not if that cannot help.
    fn take_challenge(&mut self, response: &Message, waiting: &Waiting) -> Result<bool, Refusal> {
        if self.login.is_none() || waiting.repeated {
            return Ok(false);
        }
        let offered: Vec<&str> = response.headers("WWW-Authenticate").collect();
        let challenge = login::challenge(&offered).map_err(Refusal::Login)?;
        // A login that has just been refused is refused again, unless the camera's nonce had expired.
        let expired = matches!(&challenge, PasswordClient::Digest(new)
            if !matches!(&self.challenge, Some(PasswordClient::Digest(old)) if old.nonce() == new.nonce()));
        self.challenge = Some(challenge);
        Ok(!waiting.with_login || expired)
    }

    /// Where a response sends the client.
    fn follow(&mut self, response: &Message) -> Result<NetworkAddress, Refusal> {
        self.redirections += 1;
        let text = response.header("Location").unwrap_or_default();
        let refusal = |why: &str| Refusal::Redirection(why.into());
        if self.redirections > MAX_REDIRECTIONS {
            return Err(refusal("again and again"));
        }
        let (to, _) = NetworkAddress::parse(text).map_err(|_| refusal("to no RTSP address"))?;
        if self.address.is_encrypted() && !to.is_encrypted() {
            return Err(refusal("to an address without encryption"));
        }
        self.elsewhere |= to.host_port().0 != self.address.host_port().0;
        self.address = to.clone();
        (self.challenge, self.logged_in, self.answered) = (None, false, false);
        Ok(to)
    }

    /// Has the client ask by URIs of its own where the camera states its address, or has moved: a client that connects
    /// anew is known by them.
    fn set_base(&self, response: &mut Message) {
        let stated = response.header("Content-Base").map(NetworkAddress::parse);
        let base = match &stated {
            Some(Ok((base, _))) if base.host_port() == self.address.host_port() => base,
            None if self.redirections > 0 => &self.address,
            _ => return,
        };
        let base = format!("{}{}", self.client_base, base.split_before_path().1);
        response.set_header("Content-Base", base);
    }

    /// Notes what a response says about the session, and completes what the client needs.
    fn on_success(&mut self, request: &Message, response: &mut Message) {
        match request.method() {
            "OPTIONS" => {
                if let Some(public) = response.header("Public") {
                    self.offers_get_parameter = public.to_ascii_uppercase().contains("GET_PARAMETER");
                }
            }
            "DESCRIBE" => {
                self.set_base(response);
                if response.body().starts_with(b"v=") {
                    response.set_header("Content-Type", "application/sdp");
                }
            }
            "SETUP" => {
                transport::complete(request, response, self.peer);
                self.set_up = response.header("Session").map(Into::into);
            }
            "PLAY" => {
                let stated = response.header("Session").filter(|session| session.contains(';'));
                if let Some(session) = stated.map(Into::into).or_else(|| self.set_up.clone()) {
                    let id = session.split(';').next().unwrap_or_default().trim().into();
                    let interval = keep_alive::interval(&session);
                    self.session = Some(Session { uri: request.uri().into(), id, interval });
                }
            }
            "TEARDOWN" => self.session = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::message::{Piece, first_piece},
        *,
    };
    use crate::config::Secret;

    const BASE: &str = "rtsp://127.0.0.1:40000/secret";
    const CAMERA: &str = "rtsp://camera:5540";
    const BASIC: &str = "Basic realm=\"porch\"";
    const SHA_256: &str = "Digest realm=\"porch\", nonce=\"1234\", algorithm=SHA-256";

    fn exchange(login: bool) -> Exchange {
        let address = NetworkAddress::parse(&format!("{CAMERA}/live")).unwrap().0;
        let login = login.then(|| Login { username: "viewer".into(), password: Secret::new("secret") });
        Exchange::new(BASE.into(), address, login, KeepAlive::default())
    }

    /// A request of the client, under the number 7.
    fn ask(exchange: &mut Exchange, method: &str, path: &str) -> Message {
        let mut request = Message::request(method, &format!("{BASE}{path}"));
        request.set_header("CSeq", "7");
        exchange.on_client(request, Instant::now())
    }

    /// What becomes of the camera's response to `request`.
    fn answer(
        exchange: &mut Exchange,
        request: &Message,
        status: u16,
        headers: &[(&str, &str)],
    ) -> Result<Step, Refusal> {
        let sequence = request.header("CSeq").unwrap();
        let mut text = format!("RTSP/1.0 {status} X\r\nCSeq: {sequence}\r\n");
        headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        text += "\r\n";
        let Ok(Some((Piece::Message(response), _))) = first_piece(text.as_bytes()) else {
            panic!("no message: {text}")
        };
        exchange.on_camera(response, Instant::now())
    }

    fn to_client(step: Result<Step, Refusal>) -> Message {
        match step {
            Ok(Step::ToClient(message)) => message,
            other => panic!("not for the client: {other:?}"),
        }
    }

    fn to_camera(step: Result<Step, Refusal>) -> Message {
        match step {
            Ok(Step::ToCamera(message)) => message,
            other => panic!("not for the camera: {other:?}"),
        }
    }

    /// An exchange whose session plays.
    fn playing() -> Exchange {
        let mut exchange = exchange(false);
        let play = ask(&mut exchange, "PLAY", "/live");
        to_client(answer(&mut exchange, &play, 200, &[("Session", "ab12;timeout=20")]));
        exchange
    }

    #[test]
    fn the_camera_sees_its_own_uris_and_the_client_its_own_numbers() {
        let mut exchange = exchange(false);
        let sent = ask(&mut exchange, "DESCRIBE", "/live");
        assert_eq!(sent.uri(), format!("{CAMERA}/live"));
        assert_eq!(sent.header("CSeq"), Some("1"));
        let base = format!("{CAMERA}/live/");
        let response = to_client(answer(&mut exchange, &sent, 200, &[("Content-Base", &base)]));
        assert_eq!(response.header("CSeq"), Some("7"));
        assert_eq!(response.header("Content-Base"), Some(&*format!("{BASE}/live/")));
        let sent = ask(&mut exchange, "SETUP", "/live/trackID=1");
        assert_eq!(sent.uri(), format!("{CAMERA}/live/trackID=1"));
    }

    #[test]
    fn a_login_is_sent_once_and_a_refused_one_is_told() {
        for challenge in [BASIC, SHA_256] {
            let mut exchange = exchange(true);
            let first = ask(&mut exchange, "DESCRIBE", "/live");
            assert_eq!(first.header("Authorization"), None);
            let challenge = [("WWW-Authenticate", challenge)];
            let second = to_camera(answer(&mut exchange, &first, 401, &challenge));
            let expected = challenge[0].1.split(' ').next().unwrap();
            assert!(second.header("Authorization").unwrap().starts_with(expected), "{second:?}");
            let refused = to_client(answer(&mut exchange, &second, 401, &challenge));
            assert_eq!(refused.status(), Some(401));
        }
    }

    #[test]
    fn a_login_of_an_unknown_kind_is_told_by_name() {
        let mut exchange = exchange(true);
        let request = ask(&mut exchange, "DESCRIBE", "/live");
        let step = answer(&mut exchange, &request, 401, &[("WWW-Authenticate", "NTLM")]);
        assert_eq!(step, Err(Refusal::Login("NTLM".into())));
    }

    #[test]
    fn a_camera_that_hangs_up_on_a_login_is_told_from_one_that_hangs_up_before() {
        let mut exchange = exchange(true);
        let first = ask(&mut exchange, "DESCRIBE", "/live");
        let unanswered = |method: &str, first_login| Some(Unanswered { method: method.into(), first_login });
        assert_eq!(exchange.unanswered(), unanswered("DESCRIBE", false));
        let second = to_camera(answer(&mut exchange, &first, 401, &[("WWW-Authenticate", SHA_256)]));
        assert_eq!(exchange.unanswered(), unanswered("DESCRIBE", true));
        to_client(answer(&mut exchange, &second, 200, &[]));
        assert_eq!(exchange.unanswered(), None);
        ask(&mut exchange, "SETUP", "/live");
        assert_eq!(exchange.unanswered(), unanswered("SETUP", false), "the login was taken");
        let mut exchange = playing();
        ask(&mut exchange, "TEARDOWN", "/live");
        assert_eq!(exchange.unanswered(), None);
    }

    #[test]
    fn a_session_is_kept_alive_by_what_the_camera_takes() {
        let mut exchange = playing();
        let due = exchange.keep_alive_at().unwrap();
        assert!(
            due > Instant::now() + Duration::from_secs(9) && due < Instant::now() + Duration::from_secs(11)
        );
        let request = exchange.keep_alive(Instant::now()).unwrap();
        assert_eq!((request.method(), request.header("Session")), ("GET_PARAMETER", Some("ab12")));
        assert_eq!(exchange.unanswered_keep_alive(), Some("GET_PARAMETER"));
        assert_eq!(answer(&mut exchange, &request, 454, &[]), Ok(Step::Nothing), "the client has not asked");
        assert_eq!(exchange.keep_alive(Instant::now()).unwrap().method(), "OPTIONS");
    }

    #[test]
    fn a_camera_that_plays_no_range_is_asked_without() {
        let mut exchange = exchange(false);
        let mut play = Message::request("PLAY", &format!("{BASE}/live"));
        play.set_header("Range", "npt=0.000-");
        let sent = exchange.on_client(play, Instant::now());
        let again = to_camera(answer(&mut exchange, &sent, 457, &[]));
        assert_eq!((again.method(), again.header("Range")), ("PLAY", None));
        assert_eq!(to_client(answer(&mut exchange, &again, 457, &[])).status(), Some(457), "once");
        assert_eq!(exchange.refused(), Some(("PLAY", "457 X")));
    }

    #[test]
    fn what_is_not_the_response_itself_is_not_passed_on() {
        let mut exchange = exchange(false);
        let sent = ask(&mut exchange, "OPTIONS", "/live");
        assert_eq!(answer(&mut exchange, &sent, 100, &[]), Ok(Step::Nothing));
        // The camera knows no OPTIONS: it may know the rest.
        assert_eq!(to_client(answer(&mut exchange, &sent, 400, &[])).status(), Some(200));
    }

    #[test]
    fn redirections_are_followed_but_not_for_ever_and_not_to_less_safety() {
        let mut exchange = exchange(false);
        let mut sent = ask(&mut exchange, "DESCRIBE", "/live");
        for i in 0..MAX_REDIRECTIONS {
            let to = format!("rtsp://other:{}/moved", 5541 + i);
            let step = answer(&mut exchange, &sent, 302, &[("Location", &to)]);
            assert_eq!(step, Ok(Step::Redirect(NetworkAddress::parse(&to).unwrap().0)));
            sent = exchange.again(Instant::now()).unwrap();
            assert_eq!(sent.uri(), to);
        }
        let step = answer(&mut exchange, &sent, 302, &[("Location", "rtsp://other/moved")]);
        assert_eq!(step, Err(Refusal::Redirection("again and again".into())));

        let address = NetworkAddress::parse("rtsps://camera/live").unwrap().0;
        let mut exchange = Exchange::new(BASE.into(), address, None, KeepAlive::default());
        let sent = ask(&mut exchange, "DESCRIBE", "/live");
        let step = answer(&mut exchange, &sent, 302, &[("Location", "rtsp://camera/live")]);
        assert_eq!(step, Err(Refusal::Redirection("to an address without encryption".into())));
    }
}
