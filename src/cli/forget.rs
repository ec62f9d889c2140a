//! `camscribe forget`: makes the broker forget a node that is retired.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;

use super::runtime::runtime;
use crate::{
    app, config,
    logging::{self, tell},
    plural::plural,
    publish::{self, ForgetError, topics::BadTopic},
};

/// Arguments of `forget`.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The node, by its node.id
    #[arg(long, value_name = "NAME", value_parser = node)]
    pub node: String,
    /// The configuration file, which names the broker [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Forget it even if its status says online
    #[arg(long)]
    pub force: bool,
}

fn node(name: &str) -> Result<String, BadTopic> {
    publish::topics::check_node(name).map(|()| name.into())
}

/// Removes what the broker of the configuration retains of the node, and prints the topics on standard output.
///
/// # Errors
/// [`config::ConfigError`] with every error of the configuration; [`publish::SettingsError`] for the broker's settings;
/// when the node is online, the broker cannot be used, or it keeps topics.
pub fn run(args: &ForgetArgs) -> anyhow::Result<()> {
    let loaded = config::load_for_broker(args.config.as_deref())?;
    logging::init("warn", logging::Format::Auto);
    let mut settings = app::publish_settings(&loaded.config, None);
    settings.node.clone_from(&args.node);
    let node = &args.node;
    let removed = match runtime()?.block_on(publish::forget(&settings, args.force)) {
        Ok(removed) => removed,
        Err(ForgetError::Settings(error)) => return Err(error.into()),
        Err(error) => {
            let broker = &settings.broker;
            return Err(error)
                .with_context(|| format!("node {node} is not forgotten at the broker {broker}"));
        }
    };
    for topic in &removed {
        writeln!(io::stdout(), "{topic}")?;
    }
    match removed.len() {
        0 => tell(format_args!(
            "the broker {} retains nothing of a node {node}, neither below {}/{node} nor for Home Assistant",
            settings.broker, settings.topic_prefix
        )),
        count => tell(format_args!(
            "removed from the broker {}: {} of node {node}",
            settings.broker,
            plural(count, "retained topic")
        )),
    }
    Ok(())
}
