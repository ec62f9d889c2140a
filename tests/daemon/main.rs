//! The program as a whole, as a user or a service manager runs it.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]
#![allow(clippy::too_many_lines, reason = "a test tells one story, or is a table of cases")]

#[path = "../support"]
mod support {
    pub mod api;
    pub mod broker;
    pub mod browser;
    pub mod check;
    pub mod daemon;
    #[expect(dead_code, reason = "the other test binary uses the rest")]
    pub mod hostile_camera;
    pub mod http;
    pub mod live_camera;
    pub mod page_client;
    pub mod proxy;
    pub mod rtsp;
    pub mod test_source;
    pub mod tls;
    pub mod video;
}

mod alerts_replay;
mod api;
mod ask;
mod asks;
mod browser;
mod calibrate;
mod chaos;
mod clock;
mod commands;
mod config;
mod config_errors;
mod config_questions;
mod describe;
mod describe_questions;
mod end_to_end;
mod forget;
mod history_cli;
mod load;
mod log;
mod masks;
mod page;
mod probe;
mod pull;
mod questions;
mod red_circle;
mod reference_docs;
mod reload;
mod secrets;
mod service;
mod state_directory;
mod stopping;
mod tls;
mod unit;
