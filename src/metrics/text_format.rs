//! The text formats of the page with all metrics: OpenMetrics for who accepts it, Prometheus' own for all others.

use std::collections::BTreeSet;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// The format for a client with these `Accept` headers.
    pub fn accepted<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let mut types = accept.into_iter().flat_map(|header| header.split(','));
        if types.any(is_open_metrics) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Whether one type of an `Accept` header is OpenMetrics. A quality of 0 means that it is not accepted (RFC 9110,
/// section 12.4.2).
fn is_open_metrics(accepted: &str) -> bool {
    let mut parts = accepted.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
    name.eq_ignore_ascii_case("application/openmetrics-text") && quality != Some(0.0)
}

/// Rewrites a page of OpenMetrics as [`TextFormat::Prometheus`]: there the name of a counter has its ending
/// `_total` in HELP and TYPE, too, and nothing marks the end of the page.
pub(super) fn to_prometheus(page: &str) -> String {
    let counters: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(page.len());
    for line in page.lines().filter(|line| *line != "# EOF") {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", keyword, name, rest] if counters.contains(name) => {
                text.extend(["# ", keyword, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_accepts_openmetrics_gets_it() {
        for (accept, format) in [
            (&[][..], TextFormat::Prometheus),
            (&["*/*"], TextFormat::Prometheus),
            (&["text/plain"], TextFormat::Prometheus),
            (&["text/plain;version=0.0.4;q=0.5, application/openmetrics-text;q=0"], TextFormat::Prometheus),
            (&["application/openmetrics-text"], TextFormat::OpenMetrics),
            (&["text/html", "text/plain;q=0.1, Application/OpenMetrics-Text"], TextFormat::OpenMetrics),
            // What Prometheus 2 sends.
            (
                &[
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                ],
                TextFormat::OpenMetrics,
            ),
        ] {
            assert_eq!(TextFormat::accepted(accept.iter().copied()), format, "{accept:?}");
        }
    }

    #[test]
    fn a_counter_of_prometheus_has_its_whole_name_everywhere() {
        let page = "# HELP a_clips Clips of # a camera.\n# TYPE a_clips counter\na_clips_total{c=\"x y\"} 1\n\
                    # HELP a_queue Clips.\n# TYPE a_queue gauge\na_queue 2\n# EOF\n";
        let wanted = "# HELP a_clips_total Clips of # a camera.\n# TYPE a_clips_total counter\n\
                      a_clips_total{c=\"x y\"} 1\n# HELP a_queue Clips.\n# TYPE a_queue gauge\na_queue 2\n";
        assert_eq!(to_prometheus(page), wanted);
    }
}
