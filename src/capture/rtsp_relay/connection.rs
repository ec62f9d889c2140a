//! One connection of the client, from its first request to its end.

use std::{io, ops::ControlFlow, sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use super::{
    super::{error::CaptureError, inspect::lock, network},
    camera::Camera,
    exchange::{Exchange, Refusal, Step, Unanswered},
    message::{Message, NotRtsp, Piece, first_piece, stray_length},
    tls,
};
use crate::config::NetworkAddress;

/// How long the client may take to send its first request. One that has connected anew while datagrams come has
/// none before it keeps its session alive.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// How long connecting may take: shorter than any camera's first frame, so that the cause of a failure is known.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// How long either side may take to accept what it is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the camera may take to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How much is read at a time.
const READ_SIZE: usize = 64 << 10;

/// A connection to a camera.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a connection ends before the client closes it.
enum End {
    /// The camera has closed it.
    Closed,
    /// It cannot go on.
    Failed(CaptureError),
}

/// The camera closes a connection in more than one way.
impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Connects the client to the camera until one of them closes the connection. Notes why the camera cannot be reached, or
/// cannot be spoken to.
pub(super) async fn serve(camera: &Camera, mut client: TcpStream) {
    let _ = client.set_nodelay(true);
    let mut from_client = Vec::new();
    let first = timeout(FIRST_REQUEST_TIMEOUT, first_request(&mut client, &mut from_client)).await;
    // Any program of this machine may connect. Only our client knows the base.
    let Ok(Some(request)) = first else { return };
    if !request.uri().starts_with(&camera.client_base) {
        return;
    }
    let run = camera.run.load(Ordering::SeqCst);
    // What stopped an earlier connection did not stop the client.
    *lock(&camera.failure) = None;
    let keep_alive = *lock(&camera.keep_alive);
    let exchange =
        Exchange::new(camera.client_base.clone(), camera.address.clone(), camera.login.clone(), keep_alive);
    let stream: Box<dyn Stream> = Box::new(tokio::io::empty());
    let mut connection = Connection {
        camera,
        exchange,
        client,
        from_client,
        stream,
        from_camera: Vec::new(),
        encrypted: false,
    };
    let end = match connection.connect(&camera.address).await {
        Ok(()) => connection.run(request).await,
        Err(error) => Err(End::Failed(error)),
    };
    if connection.exchange.logged_in() {
        camera.login_taken.store(true, Ordering::Relaxed);
    }
    match end {
        Ok(()) => {
            // Unread data would make the camera miss a TEARDOWN.
            let _ = timeout(CLOSE_TIMEOUT, connection.drain()).await;
        }
        // The next run has begun: this is not about it.
        Err(_) if camera.run.load(Ordering::SeqCst) != run => {}
        Err(End::Closed) => {
            *lock(&camera.keep_alive) = connection.exchange.keep_alive_after_close();
            let on_request = connection.exchange.unanswered_keep_alive().is_some();
            camera.closed_on_keep_alive.store(on_request, Ordering::Relaxed);
            if let Some(Unanswered { method, first_login }) = connection.exchange.unanswered() {
                let what = camera.what.clone();
                // Once more after a login that was good: the password may have been changed.
                let on_login = first_login && !camera.login_taken.swap(false, Ordering::Relaxed);
                *lock(&camera.failure) = Some(CaptureError::HungUp { what, method, on_login });
            }
        }
        Err(End::Failed(error)) => *lock(&camera.failure) = Some(error),
    }
}

/// Reads the client's first message. `None`: there is none.
async fn first_request(client: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Message> {
    loop {
        if client.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
        if let Some((piece, length)) = first_piece(bytes).ok()? {
            let Piece::Message(message) = piece else { return None };
            bytes.drain(..length);
            return Some(message);
        }
    }
}

struct Connection<'a> {
    camera: &'a Camera,
    exchange: Exchange,
    client: TcpStream,
    /// What has arrived and is not yet a whole piece.
    from_client: Vec<u8>,
    stream: Box<dyn Stream>,
    from_camera: Vec<u8>,
    encrypted: bool,
}

impl Connection<'_> {
    async fn connect(&mut self, address: &NetworkAddress) -> Result<(), CaptureError> {
        let stream = network::connect(&self.camera.what, address, CONNECT_TIMEOUT).await?;
        let _ = stream.set_nodelay(true);
        self.exchange.set_peer(stream.peer_addr().ok().map(|peer| peer.ip().to_canonical()));
        self.encrypted = address.is_encrypted();
        self.stream = match self.encrypted {
            false => Box::new(stream),
            true => {
                let connecting = tls::connect(&self.camera.what, address, &self.camera.tls, stream);
                match timeout(CONNECT_TIMEOUT, connecting).await {
                    Ok(connected) => Box::new(connected?),
                    Err(_) => return Err(self.other("the camera does not answer over TLS: check the port")),
                }
            }
        };
        Ok(())
    }

    /// Passes on what either side sends, until the client closes the connection.
    async fn run(&mut self, request: Message) -> Result<(), End> {
        let mut to_camera = Vec::new();
        self.exchange.on_client(request, Instant::now().into_std()).write(&mut to_camera);
        self.pass_client_pieces(&mut to_camera)?;
        write(&mut self.stream, &to_camera).await?;
        loop {
            let keep_alive_at = self.exchange.keep_alive_at();
            let keep_alive = async {
                match keep_alive_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            self.from_client.reserve(READ_SIZE);
            self.from_camera.reserve(READ_SIZE);
            to_camera.clear();
            tokio::select! {
                read = self.client.read_buf(&mut self.from_client) => {
                    if read.unwrap_or(0) == 0 {
                        return Ok(());
                    }
                    self.pass_client_pieces(&mut to_camera)?;
                }
                read = self.stream.read_buf(&mut self.from_camera) => {
                    if read? == 0 {
                        return Err(End::Closed);
                    }
                    if self.pass_camera_pieces(&mut to_camera).await?.is_break() {
                        return Ok(());
                    }
                }
                () = keep_alive => {
                    if let Some(request) = self.exchange.keep_alive(Instant::now().into_std()) {
                        request.write(&mut to_camera);
                    }
                }
            }
            write(&mut self.stream, &to_camera).await?;
        }
    }

    /// Appends to `to_camera` what the client has sent.
    fn pass_client_pieces(&mut self, to_camera: &mut Vec<u8>) -> Result<(), End> {
        let mut taken = 0;
        while let Some((piece, length)) = first_piece(&self.from_client[taken..])
            .map_err(|NotRtsp| End::Failed(self.other("GStreamer's client does not speak RTSP")))?
        {
            match piece {
                Piece::Data(data) => to_camera.extend_from_slice(data),
                Piece::Message(message) => {
                    self.exchange.on_client(message, Instant::now().into_std()).write(to_camera);
                }
            }
            taken += length;
        }
        self.from_client.drain(..taken);
        Ok(())
    }

    /// Passes on what the camera has sent; appends to `to_camera` what it is answered. Breaks if the client has closed
    /// the connection.
    async fn pass_camera_pieces(&mut self, to_camera: &mut Vec<u8>) -> Result<ControlFlow<()>, End> {
        let mut to_client = Vec::new();
        let mut taken = 0;
        loop {
            let (piece, length) = match first_piece(&self.from_camera[taken..]) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(NotRtsp) if self.exchange.plays() => {
                    // Some cameras count wrong now and then.
                    taken += stray_length(&self.from_camera[taken..]);
                    continue;
                }
                Err(NotRtsp) => return Err(End::Failed(self.no_rtsp(taken))),
            };
            taken += length;
            let message = match piece {
                Piece::Data(data) => {
                    to_client.extend_from_slice(data);
                    continue;
                }
                Piece::Message(message) => message,
            };
            if message.status().is_some() {
                let server = message.header("Server").unwrap_or_default();
                tracing::debug!(source = %self.camera.what, server, "the camera answers {}", message.status_text());
            }
            let step = self.exchange.on_camera(message, Instant::now().into_std());
            match step.map_err(|refusal| End::Failed(self.refused(refusal)))? {
                Step::Nothing => {}
                Step::ToClient(message) => {
                    *lock(&self.camera.failure) = self.exchange.refused().map(|(method, words)| {
                        self.other(&format!("the camera answers {method} with {words:?}"))
                    });
                    message.write(&mut to_client);
                }
                Step::ToCamera(message) => message.write(to_camera),
                Step::Redirect(address) => {
                    self.connect(&address).await.map_err(End::Failed)?;
                    self.from_camera.clear();
                    taken = 0;
                    to_camera.clear();
                    if let Some(request) = self.exchange.again(Instant::now().into_std()) {
                        request.write(to_camera);
                    }
                }
            }
        }
        self.from_camera.drain(..taken);
        let written = write(&mut self.client, &to_client).await;
        Ok(if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// Reads and forgets what the camera still sends.
    async fn drain(&mut self) {
        let _ = self.stream.shutdown().await;
        loop {
            self.from_camera.clear();
            self.from_camera.reserve(READ_SIZE);
            if self.stream.read_buf(&mut self.from_camera).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    fn other(&self, why: &str) -> CaptureError {
        CaptureError::Other { what: self.camera.what.clone(), why: why.into() }
    }

    /// The error for what has arrived from the camera, from `at` on.
    fn no_rtsp(&self, at: usize) -> CaptureError {
        /// The first byte of a TLS alert.
        const TLS_ALERT: u8 = 0x15;
        match self.from_camera[at] {
            TLS_ALERT if !self.encrypted => {
                self.other("what answers there wants TLS: write rtsps:// in the uri")
            }
            _ if self.exchange.was_answered() => self.other(
                "the camera's answers are broken: the Content-Length of one is wrong; update the camera",
            ),
            _ => self.other("what answers there does not speak RTSP: check address and port"),
        }
    }

    fn refused(&self, refusal: Refusal) -> CaptureError {
        match refusal {
            Refusal::Login(methods) => CaptureError::UnknownLogin { what: self.camera.what.clone(), methods },
            Refusal::Redirection(how) => self.other(&format!("the camera redirects {how}: check the uri")),
        }
    }
}

/// Writes all of it.
async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let writing = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    timeout(WRITE_TIMEOUT, writing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
