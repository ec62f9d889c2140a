//! Questions about what a camera shows now: the running daemon answers them over HTTP.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use ureq::{Agent, http::header::AUTHORIZATION};

use super::args::{AnswerFormat, AskArgs};
use crate::{
    camera::CameraId,
    config::{self, HttpSettings},
    logging::{self, tell},
};

/// How long the daemon may take. It answers or refuses within a minute.
const LIMIT: Duration = Duration::from_secs(90);

/// Asks the daemon about a camera, and prints the answer on standard output.
///
/// # Errors
/// [`config::ConfigError`] with every error of the configuration; when the daemon cannot be reached, or refuses.
pub fn run(args: &AskArgs, camera: &CameraId) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    let http = config::load(args.config.as_deref())?.config.http;
    let reply = post(&http, camera, &question(args))?;
    if let Some(error) = reply.get("error") {
        bail!("camscribe does not answer: {}", error["message"].as_str().unwrap_or("it does not say why"));
    }
    let mut out = io::stdout();
    match args.format {
        AnswerFormat::Json => writeln!(out, "{reply}")?,
        AnswerFormat::Text => {
            writeln!(out, "{}", reply["text"].as_str().unwrap_or_default())?;
            if let Some(likely) = probability(&reply) {
                tell(format_args!("probability {likely:.3}"));
            }
        }
    }
    Ok(())
}

/// The question as the daemon reads it.
fn question(args: &AskArgs) -> Value {
    let mut question = json!({});
    if let Some(text) = &args.question {
        question["question"] = json!(text);
    }
    if !args.answers.is_empty() {
        question["answers"] = json!(args.answers);
    }
    if let Some(last) = &args.last {
        question["last"] = json!(last);
    }
    question
}

fn post(http: &HttpSettings, camera: &CameraId, question: &Value) -> anyhow::Result<Value> {
    let Some(listen) = http.listen else {
        bail!("camscribe does not listen for questions: set http.listen, such as \"127.0.0.1:9180\"");
    };
    let path = format!("/api/cameras/{camera}/ask");
    if http.tls.is_some() {
        bail!(
            "camscribe listens with TLS, which is not asked this way: use curl with --cacert for POST \
             https://NAME:{}{path}",
            listen.port()
        );
    }
    let address = reachable(listen);
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(LIMIT))
        .build()
        .into();
    let mut request = agent.post(format!("http://{address}{path}"));
    if let Some(token) = &http.token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let mut reply = request
        .send_json(question)
        .with_context(|| format!("is camscribe running? {address} does not answer"))?;
    let status = reply.status();
    reply
        .body_mut()
        .read_json()
        .with_context(|| format!("{address} answers {status}, which camscribe would not"))
}

/// Where a daemon that listens on `listen` is reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// How likely the answer is, if it is one of those that were given.
fn probability(reply: &Value) -> Option<f64> {
    let answer = reply.get("answer")?;
    match answer["probability"].as_f64() {
        Some(yes) => Some(if answer["answer"] == "yes" { yes } else { 1.0 - yes }),
        None => {
            let mut each = answer["probabilities"].as_array()?.iter();
            each.find(|it| it["value"] == answer["choice"])?["probability"].as_f64()
        }
    }
}
