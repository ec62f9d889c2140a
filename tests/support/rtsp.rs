//! An RTSP server on a free loopback port. It serves a gst-launch description; dropping it disconnects
//! its clients.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread::JoinHandle,
};

use gstreamer_rtsp_server::{
    RTSPAuth, RTSPFilterResult, RTSPMediaFactory, RTSPServer, RTSPToken, glib, gst, prelude::*,
};

/// The fault of a camera, which a test switches while it streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    None,
    /// It keeps the connection and sends nothing.
    Frozen,
    /// Its H.264 slices are noise.
    Garbage,
    /// Its UDP packets do not arrive.
    NoDatagrams,
}

/// A server that runs until it is dropped.
pub struct RtspServer {
    fault: Arc<AtomicU8>,
    #[allow(dead_code, reason = "not every program that has this file needs it")]
    picture: Arc<Mutex<Vec<u8>>>,
    server: RTSPServer,
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    source: Option<glib::SourceId>,
    thread: Option<JoinHandle<()>>,
    port: i32,
}

impl RtspServer {
    /// Serves `launch`, a description with payloaders named `pay0`, `pay1`…, to everyone.
    pub fn start(launch: &str) -> Self {
        Self::with(launch, 0, None)
    }

    /// Serves it at a given port, for a camera that returns.
    pub fn start_at(launch: &str, port: u16) -> Self {
        Self::with(launch, port, None)
    }

    /// Serves it only to this user.
    pub fn with_password(launch: &str, user: &str, password: &str) -> Self {
        Self::with(launch, 0, Some((user, password)))
    }

    /// Serves it at a given port, or at a free one for 0, to everyone or only to this user.
    pub fn with(launch: &str, port: u16, login: Option<(&str, &str)>) -> Self {
        gst::init().unwrap();
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let server = RTSPServer::new();
        // Clients are served by the loop below: closing one from any other thread is a race in the library.
        server.thread_pool().unwrap().set_max_threads(0);
        server.set_address("127.0.0.1");
        server.set_service(&port.to_string());
        let factory = RTSPMediaFactory::new();
        factory.set_launch(&format!("( {launch} )"));
        if let Some((user, password)) = login {
            let auth = RTSPAuth::new();
            let token = RTSPToken::builder().field("media.factory.role", "viewer").build();
            auth.add_basic(&RTSPAuth::make_basic(user, password), &token);
            server.set_auth(Some(&auth));
            let rights = gst::Structure::builder("viewer")
                .field("media.factory.access", true)
                .field("media.factory.construct", true);
            factory.add_role_from_structure(&rights.build());
        }
        let fault = Arc::new(AtomicU8::new(Fault::None as u8));
        let shared = fault.clone();
        let picture = Arc::<Mutex<Vec<u8>>>::default();
        let shown = picture.clone();
        factory.connect_media_configure(move |_, media| {
            spoil(&media.element(), shared.clone());
            paint(&media.element(), shown.clone());
        });
        server.mount_points().unwrap().add_factory("/stream", factory);
        let source = server.attach(Some(&context)).expect("the port is free");
        let port = server.bound_port();
        let (running, context_there) = (main_loop.clone(), context.clone());
        let thread = std::thread::spawn(move || {
            context_there.with_thread_default(|| running.run()).unwrap();
        });
        Self { fault, picture, server, context, main_loop, source: Some(source), thread: Some(thread), port }
    }

    pub fn port(&self) -> u16 {
        self.port.try_into().unwrap()
    }

    /// Switches the fault. [`Fault::Garbage`] needs H.264 as a byte stream.
    pub fn set_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    #[allow(dead_code, reason = "not every program that has this file needs it")]
    /// Shows this picture from now on, in the stream of [`live`](super::test_source::live).
    pub fn show(&self, rgb: Vec<u8>) {
        *self.picture.lock().unwrap() = rgb;
    }

    pub fn uri(&self) -> String {
        format!("rtsp://127.0.0.1:{}/stream", self.port)
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        if let Some(source) = self.source.take().and_then(|id| self.context.find_source_by_id(&id)) {
            source.destroy();
        }
        let server = self.server.clone();
        self.context.invoke(move || {
            server.client_filter(Some(&mut |_, _| RTSPFilterResult::Remove));
        });
        // The loop closes the clients' sockets in its next iteration.
        std::thread::sleep(std::time::Duration::from_millis(100));
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Applies the fault to the buffers before the payloader.
fn spoil(media: &gst::Element, fault: Arc<AtomicU8>) {
    let bin = media.downcast_ref::<gst::Bin>().unwrap();
    if let Some(whole) = bin.parent().and_downcast::<gst::Bin>() {
        let fault = fault.clone();
        whole.connect_deep_element_added(move |_, _, element| lose_datagrams(element, fault.clone()));
    }
    let Some(pad) = bin.by_name("pay0").and_then(|payloader| payloader.static_pad("sink")) else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        match fault.load(Ordering::SeqCst) {
            fault if fault == Fault::Frozen as u8 => return gst::PadProbeReturn::Handled,
            fault if fault == Fault::Garbage as u8 => {
                if let Some(buffer) = info.buffer_mut() {
                    scramble(&mut buffer.make_mut().map_writable().unwrap());
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Replaces the pictures that leave the element named `picture`, where there is one.
fn paint(media: &gst::Element, picture: Arc<Mutex<Vec<u8>>>) {
    let bin = media.downcast_ref::<gst::Bin>().unwrap();
    let Some(pad) = bin.by_name("picture").and_then(|it| it.static_pad("src")) else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer_mut().unwrap();
        buffer.make_mut().map_writable().unwrap().copy_from_slice(&picture.lock().unwrap());
        gst::PadProbeReturn::Ok
    });
}

/// Applies [`Fault::NoDatagrams`] to the buffers before an element that sends over UDP.
fn lose_datagrams(element: &gst::Element, fault: Arc<AtomicU8>) {
    if element.factory().is_none_or(|factory| factory.name() != "multiudpsink") {
        return;
    }
    let data = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    element.static_pad("sink").unwrap().add_probe(data, move |_, _| {
        match fault.load(Ordering::SeqCst) == Fault::NoDatagrams as u8 {
            true => gst::PadProbeReturn::Handled,
            false => gst::PadProbeReturn::Ok,
        }
    });
}

/// Overwrites the slices of an H.264 byte stream, which are NAL units of type 1 and 5 (ITU-T H.264, table 7-1),
/// and leaves its headers.
fn scramble(stream: &mut [u8]) {
    let mut noise = 0x9e37_79b9_u32;
    let mut slice = false;
    for i in 0..stream.len() {
        if i >= 3 && stream[i - 3..i] == [0, 0, 1] {
            slice = matches!(stream[i] & 0x1f, 1 | 5);
        } else if slice && !stream[i..].starts_with(&[0, 0, 1]) && !stream[i..].starts_with(&[0, 0, 0, 1]) {
            let code = i >= 1 && stream[i - 1..].starts_with(&[0, 0, 1])
                || i >= 2 && stream[i - 2..].starts_with(&[0, 0, 1]);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if !code {
                // Never zero, which could make a start code.
                stream[i] = (noise >> 24) as u8 | 1;
            }
        }
    }
}
