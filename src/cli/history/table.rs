//! Events as CSV (RFC 4180), for spreadsheets.

use chrono::SecondsFormat;

use super::text;
use crate::event::Event;

/// The line of names.
pub const HEADER: &str = "id,camera,start,end,type,description,answers,alerts\r\n";

/// What a spreadsheet takes for the beginning of a formula
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
const BEGINS_FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// The line of an event.
///
/// # Errors
/// When its answers cannot be written as JSON.
pub fn row(event: &Event) -> serde_json::Result<String> {
    let time = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let fields = [
        event.id.to_string(),
        event.camera.to_string(),
        time(event.clip.start),
        time(event.clip.end),
        text::kind(event.kind).into(),
        event.description.clone(),
        serde_json::to_string(&event.answers)?,
        serde_json::to_string(&event.alerts)?,
    ];
    Ok(fields.map(|text| field(&text)).join(",") + "\r\n")
}

/// A text as a field that no spreadsheet computes: an apostrophe stands before what looks like a formula.
fn field(text: &str) -> String {
    let guard = if text.starts_with(BEGINS_FORMULA) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_compute_nothing() {
        for (text, wanted) in [
            ("A red circle.", "\"A red circle.\""),
            ("", "\"\""),
            ("a, \"b\"\r\nc", "\"a, \"\"b\"\"\r\nc\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+1", "\"'+1\""),
            ("-porch", "\"'-porch\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("＝1", "\"'＝1\""),
            ("1=1", "\"1=1\""),
        ] {
            assert_eq!(field(text), wanted, "{text}");
        }
    }
}
