//! A real RTSP server on loopback. It is given what it serves as a gst-launch text and picks a free
//! port; dropping it disconnects its clients and stops it.

use std::thread::JoinHandle;

use gstreamer_rtsp_server::{
    RTSPAuth, RTSPFilterResult, RTSPMediaFactory, RTSPServer, RTSPToken, glib, gst, prelude::*,
};

pub struct RtspServer {
    server: RTSPServer,
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    source: Option<glib::SourceId>,
    thread: Option<JoinHandle<()>>,
    port: i32,
}

impl RtspServer {
    /// Serves `launch`, a text with payloaders named `pay0`, `pay1`…, to everyone.
    pub fn start(launch: &str) -> Self {
        Self::with(launch, 0, None)
    }

    /// Serves it at a given port, for a camera that comes back.
    pub fn start_at(launch: &str, port: u16) -> Self {
        Self::with(launch, port, None)
    }

    /// Serves it only to this user.
    pub fn with_password(launch: &str, user: &str, password: &str) -> Self {
        Self::with(launch, 0, Some((user, password)))
    }

    fn with(launch: &str, port: u16, login: Option<(&str, &str)>) -> Self {
        gst::init().unwrap();
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let server = RTSPServer::new();
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
        server.mount_points().unwrap().add_factory("/stream", factory);
        let source = server.attach(Some(&context)).expect("the port is free");
        let port = server.bound_port();
        let (running, context_there) = (main_loop.clone(), context.clone());
        let thread = std::thread::spawn(move || {
            context_there.with_thread_default(|| running.run()).unwrap();
        });
        Self { server, context, main_loop, source: Some(source), thread: Some(thread), port }
    }

    pub fn port(&self) -> u16 {
        self.port.try_into().unwrap()
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
        self.server.client_filter(Some(&mut |_, _| RTSPFilterResult::Remove));
        // The loop must come round once more for the clients' sockets to be closed.
        std::thread::sleep(std::time::Duration::from_millis(100));
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
