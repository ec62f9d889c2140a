//! The journal's own protocol: an entry a log line, with `MESSAGE`, `PRIORITY` and the line's fields, such as `CAMERA`
//! and `CLIP` (systemd.journal-fields(7)).

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

use libsystemd::logging::{Priority, journal_send};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Sends events to the journal. Where it cannot be reached, they are written to standard error with their priority,
/// which the journal reads from there (sd-daemon(3)).
pub struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let priority = match *event.metadata().level() {
            Level::ERROR => Priority::Error,
            Level::WARN => Priority::Warning,
            Level::INFO => Priority::Info,
            Level::DEBUG | Level::TRACE => Priority::Debug,
        };
        let mut entry = Entry::default();
        event.record(&mut entry);
        let Entry { text, mut fields } = entry;
        fields.push(("SYSLOG_IDENTIFIER".into(), "camscribe".into()));
        fields.push(("TARGET".into(), event.metadata().target().into()));
        if journal_send(priority, &text, fields.into_iter()).is_err() {
            let mut stderr = io::stderr().lock();
            for line in text.lines() {
                let _ = writeln!(stderr, "<{}>{line}", u8::from(priority));
            }
        }
    }
}

/// The text of an event, with its fields behind it as on a terminal, and the fields once more by their names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    text: String,
    fields: Vec<(String, String)>,
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        if field.name() == "message" {
            let behind = std::mem::take(&mut self.text);
            let _ = write!(self.text, "{value:?}{behind}");
        } else {
            let _ = write!(self.text, " {}={value:?}", field.name());
            self.fields.push((field.name().to_uppercase(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Keeps the entries that [`Journal`] would send.
    struct Kept(Arc<Mutex<Vec<Entry>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut entry = Entry::default();
            event.record(&mut entry);
            self.0.lock().unwrap().push(entry);
        }
    }

    #[test]
    fn an_entry_has_its_fields_in_the_text_and_by_name() {
        let entries = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Kept(Arc::clone(&entries)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(camera = %"porch", clip = 3, why = "it is \"dark\"", "not {}", "described");
        });
        let fields = [("CAMERA", "porch"), ("CLIP", "3"), ("WHY", "it is \"dark\"")];
        let fields = fields.map(|(name, value)| (name.into(), value.into())).into();
        let text = "not described camera=porch clip=3 why=it is \"dark\"".into();
        assert_eq!(*entries.lock().unwrap(), [Entry { text, fields }]);
    }
}
