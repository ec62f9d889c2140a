//! camscribe: what cameras see, in words, over MQTT.
//!
//! Data flows one way, **Frame → Clip → Request → Answer → Event**, and the table reads in that order.
//! `docs/architecture.md` has the picture, the threads and queues, and which files a change touches;
//! `docs/glossary.md` has the words.
//!
//! | module | what it is for |
//! |---|---|
#![cfg_attr(
    feature = "daemon",
    doc = "| [`config`] | defaults, file and environment in, a checked configuration out |
| [`capture`] | a source in, clips out; the only module that imports GStreamer |"
)]
//! | [`camera`], [`frame`], [`clip`], [`interval`] | what cameras give, and how it is cut into clips |
//! | [`decision`] | typed questions, answered by probabilities |
//! | [`calibration`] | what makes these probabilities honest, from answers whose truth is known |
//! | [`prompt_spec`], [`request`], [`answer`] | what the model is asked: about a clip, and in general; its answer |
//! | [`alert`] | when answers switch an alert on and off, as configured |
//! | [`look_back`], [`camera_ask`] | frames of the last seconds; what is asked about them, and the answer |
//! | [`view`] | what of a camera's picture is seen: crop and masks |
//! | [`queue`] | clips of all cameras in, fair batches out; bounded |
//! | [`gate`] | whether a clip shows anything new |
//! | [`describe`] | batches in, descriptions out: the worker, the trait of describers, the model families |
//! | [`resize`] | images made smaller, bit for bit as the reference does it |
//! | [`nn`], [`device`] | the inference engine: device, weights, kernels, decoder |
//! | [`events`], [`event`] | descriptions in, events out; the event is the public contract |
#![cfg_attr(
    feature = "daemon",
    doc = "| [`publish`] | events and states in, MQTT messages out: the outbox, the session, the topics |
| [`history`] | events and the frames that the model saw, to be searched |
| [`runtime_settings`] | the settings of a camera that commands can change |
| [`metrics`], [`http`] | what Prometheus and health checks read |
| [`hub`] | model files: found on this machine, or downloaded |
| [`app`] | the wiring of the daemon, and the order in which it stops |
| [`lifecycle`], [`shutdown`], [`retry`] | the daemon's phase and health, signals, the one backoff |
| [`chat_format`], [`image_file`] | conversations as JSON; still images: files in, pixels out, and frames as JPEG |
| [`json_input`] | JSON of clients and files: what is wrong with it, and where |
| [`ownership`], [`sqlite`] | whose files camscribe makes; databases in the state directory |
| [`cli`] | the commands |"
)]
//! | [`heartbeat`], [`logging`], [`plural`] | the sign of progress of the model's thread; log lines |
//! | [`mod@bench`] | how fast the model is on this machine |

#![cfg_attr(
    not(test),
    warn(
        clippy::print_stderr,
        clippy::print_stdout,
        reason = "they panic where nobody reads: use logging::tell, or write results to io::stdout"
    )
)]

/// What this is: version, commit if it is known, and whether it was built with CUDA.
pub const VERSION: &str = env!("CAMSCRIBE_VERSION");

// For what unit tests share with integration tests.
#[cfg(test)]
extern crate self as camscribe;

pub mod alert;
pub mod answer;
pub mod bench;
pub mod calibration;
pub mod camera;
#[cfg(feature = "daemon")]
pub mod camera_ask;
#[cfg(feature = "daemon")]
pub mod capture;
pub mod clip;
pub mod decision;
pub mod describe;
pub mod device;
pub mod event;
pub mod events;
pub mod frame;
pub mod gate;
pub mod heartbeat;
pub mod interval;
pub mod logging;
pub mod look_back;
pub mod memory;
pub mod nn;
pub mod plural;
pub mod prompt_spec;
pub mod queue;
pub mod request;
pub mod resize;
pub mod view;

#[cfg(feature = "daemon")]
pub mod app;
#[cfg(feature = "daemon")]
pub mod chat_format;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod history;
#[cfg(feature = "daemon")]
pub mod http;
#[cfg(feature = "daemon")]
pub mod hub;
#[cfg(feature = "daemon")]
pub mod image_file;
#[cfg(feature = "daemon")]
pub mod json_input;
#[cfg(feature = "daemon")]
pub mod lifecycle;
#[cfg(feature = "daemon")]
pub mod metrics;
#[cfg(feature = "daemon")]
pub mod ownership;
#[cfg(feature = "daemon")]
pub mod publish;
#[cfg(feature = "daemon")]
pub mod retry;
#[cfg(feature = "daemon")]
pub mod runtime_settings;
#[cfg(feature = "daemon")]
pub mod shutdown;
#[cfg(feature = "daemon")]
pub mod sqlite;
#[cfg(feature = "daemon")]
pub mod tls;
