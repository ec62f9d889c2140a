//! Log lines on standard error: plain on a terminal, with priority prefixes under systemd. Standard output is
//! for results. A line that cannot be written, because a disk is full or nobody reads, is lost and changes nothing.

use std::{
    env::{self, VarError},
    fmt,
    fs::File,
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
        time::ChronoLocal,
    },
    registry::LookupSpan,
};

/// The levels of libraries that log too much.
const LIBRARY_LEVELS: &str = "rumqttd=error,rumqttc=warn,tokenizers=error";

/// Starts logging. `RUST_LOG` selects what is shown (`debug`, `camscribe::capture=trace`, …). Without it the
/// level is `warn` if `quiet`, else `info`. A second call does nothing.
pub fn init(quiet: bool) {
    let level = if quiet { "warn" } else { "info" };
    let stated = match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) => text.parse().map(Some).map_err(|error: ParseError| error.to_string()),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err("it is not UTF-8".into()),
    };
    let (filter, mistake) = match stated {
        Ok(filter) => (filter, None),
        Err(mistake) => (None, Some(mistake)),
    };
    let filter = filter.unwrap_or_else(|| EnvFilter::new(format!("{level},{LIBRARY_LEVELS}")));
    // The subscriber would say on standard error that it cannot write there, and panic.
    let builder =
        tracing_subscriber::fmt().log_internal_errors(false).with_env_filter(filter).with_writer(io::stderr);
    if goes_to_journal() {
        let _ = builder
            .event_format(Journal(Format::default().without_time().with_level(false).with_ansi(false)))
            .try_init();
    } else {
        let _ = builder
            .with_timer(ChronoLocal::new("%H:%M:%S%.3f".into()))
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .try_init();
    }
    if let Some(mistake) = mistake {
        tracing::warn!("RUST_LOG is not used: {mistake}; write for instance RUST_LOG=debug");
    }
}

/// Whether systemd reads standard error into its journal: it says which file its journal reads (systemd.exec(5)).
fn goes_to_journal() -> bool {
    let Ok(stated) = env::var("JOURNAL_STREAM") else { return false };
    let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|it| it.metadata()).is_ok_and(|it| stated == format!("{}:{}", it.dev(), it.ino()))
}

/// Writes about an error that ends the command to standard error.
pub fn tell_error(text: impl fmt::Display) {
    let priority = if goes_to_journal() { "<3>" } else { "" };
    text.to_string().lines().for_each(|line| tell(format_args!("{priority}{line}")));
}

/// Writes a line to standard error for the person at the keyboard.
pub fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A format with the priority that the journal reads, `<N>`, before each line (sd-daemon(3)).
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(w, "<{priority}>")?;
        self.0.format_event(ctx, w, event)
    }
}
