//! Events for people. What models and configurations say may be hostile to a terminal: nothing of it reaches one
//! unescaped.

use std::{fmt::Write, iter};

use super::time;
use crate::{
    event::{Event, EventKind, FinishReason},
    history::{EventDetails, Listed, Part},
    plural::plural,
};

/// What switches a terminal to bold letters and back (ECMA-48, SGR).
const BOLD: [&str; 2] = ["\u{1b}[1m", "\u{1b}[22m"];
/// How far the words of an event are set in.
const INDENT: &str = "    ";

/// Whether a character may change what a terminal shows beyond itself: control characters, and those that turn the
/// direction of text (Unicode Standard Annex 9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text without line ends, control characters and changes of direction: they are escaped.
pub fn on_one_line(text: &str) -> String {
    escaped(text, is_unsafe)
}

/// A text whose only control characters are line ends: others, and changes of direction, are escaped.
fn on_lines(text: &str) -> String {
    escaped(text, |c| c != '\n' && is_unsafe(c))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_escaped(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    })
}

/// An event as it was published, on a line.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json_line(event: &Event, is_terminal: bool) -> serde_json::Result<String> {
    let json = serde_json::to_string(event)?;
    Ok(if is_terminal { json_for_terminal(&json) } else { json } + "\n")
}

/// JSON that is fit for a terminal. Control characters and changes of direction stand in its texts only.
fn json_for_terminal(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        if is_unsafe(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    })
}

/// The type of an event, as JSON names it.
pub fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Description => "description",
        EventKind::Answers => "answers",
        EventKind::Unchanged => "unchanged",
    }
}

/// An event of a list: a line with its time, camera, id and frames, and its words below. `is_bold`: what was searched
/// for is.
pub fn block(Listed { event, frames, snippet }: &Listed, is_bold: bool) -> String {
    let unchanged = if event.kind == EventKind::Unchanged { "  unchanged" } else { "" };
    let head = format!(
        "{}  {}  {}  {}{unchanged}\n",
        time::short(event.clip.end),
        event.camera,
        event.id,
        plural(frames, "frame")
    );
    let words = match snippet {
        Some(parts) => parts.iter().map(|part| marked(part, is_bold)).collect::<String>(),
        None => words(event).join("\n"),
    };
    words.lines().fold(head, |block, line| block + INDENT + line + "\n")
}

fn marked(Part { text, hit }: &Part, is_bold: bool) -> String {
    let text = on_lines(text);
    let [on, off] = BOLD;
    if *hit && is_bold { format!("{on}{text}{off}") } else { text }
}

/// What an event says: the description, each answer, each alert that was switched.
fn words(event: &Event) -> Vec<String> {
    let description = Some(on_lines(&event.description)).filter(|text| !text.is_empty());
    let switched = event.alerts.iter().filter(|(_, info)| info.changed);
    let switched = switched
        .map(|(name, info)| format!("alert {} {}", on_one_line(name), if info.on { "on" } else { "off" }));
    description.into_iter().chain(answers(event)).chain(switched).collect()
}

fn answers(event: &Event) -> impl Iterator<Item = String> {
    event.answers.iter().map(|(name, answered)| {
        let answer = answered.answer();
        let probability = answered.probability_of(answer).map(|it| format!(" ({it:.2})")).unwrap_or_default();
        format!("{}: {}{probability}", on_one_line(name), on_one_line(answer))
    })
}

/// An event in full: a name and a value a line.
pub fn page(details: &EventDetails) -> String {
    let EventDetails { event, view, is_lossless, replay, .. } = details;
    let mut rows: Vec<(&str, String)> = vec![
        ("id", event.id.to_string()),
        ("time", format!("{} to {}", time::exact(event.clip.start), time::exact(event.clip.end))),
        ("camera", format!("{} of node {}", event.camera, on_one_line(&event.node))),
        ("type", kind(event.kind).into()),
    ];
    rows.extend(event.repeats.map(|id| ("repeats", id.to_string())));
    if !event.description.is_empty() {
        let is_cut = event.finish_reason == FinishReason::Length;
        let cut = if is_cut { " (cut at its longest length)" } else { "" };
        rows.push(("description", on_lines(&event.description) + cut));
    }
    rows.extend(answers(event).map(|answer| ("answer", answer)));
    rows.extend(event.alerts.iter().map(|(name, info)| {
        let (on, by) =
            (if info.on { "on" } else { "off" }, if info.changed { ", switched by this clip" } else { "" });
        let since = info.since.map(|it| format!(" since {}", time::exact(it))).unwrap_or_default();
        ("alert", format!("{} {on}{since}{by} ({:.2})", on_one_line(name), info.probability))
    }));
    if !event.prompt.is_empty() {
        rows.push(("prompt", on_lines(&event.prompt)));
    }
    let model = &event.model;
    let revision = if model.revision.is_empty() { String::new() } else { format!("@{}", model.revision) };
    rows.push((
        "model",
        on_one_line(&format!("{}{revision} on {}, {}", model.id, model.device, model.dtype)),
    ));
    rows.extend(view.as_deref().filter(|lines| !lines.is_empty()).map(|lines| ("view", on_lines(lines))));
    rows.push(("frames", frames(details)));
    if *is_lossless && replay.is_some() && !details.frames.is_empty() {
        rows.push(("replay", format!("camscribe replay {}", event.id)));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
    rows.iter().fold(String::new(), |page, (name, value)| {
        let margin = format!("\n{:width$}", "");
        let value = value.lines().collect::<Vec<_>>().join(&margin);
        page + &format!("{name:width$}{value}\n")
    })
}

/// What is kept of the frames.
fn frames(EventDetails { event, frames, is_lossless, .. }: &EventDetails) -> String {
    let Some(first) = frames.first() else {
        return match event.evidence {
            Some(_) => "those that were kept have been deleted",
            None => "none were kept",
        }
        .into();
    };
    let offsets: Vec<_> = frames.iter().map(|frame| format!("{:.3}", frame.offset.as_secs_f64())).collect();
    let format = if *is_lossless { "lossless" } else { "JPEG" };
    iter::once(format!("{} of {}x{}, {format}, at", frames.len(), first.width, first.height))
        .chain(offsets)
        .collect::<Vec<_>>()
        .join(" ")
        + " s"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_reaches_a_terminal() {
        let hostile = "a\u{1b}]0;x\u{7}b\r\u{9b}2J\u{202e}c\nd";
        assert_eq!(on_one_line(hostile), "a\\u{1b}]0;x\\u{7}b\\u{d}\\u{9b}2J\\u{202e}c\\u{a}d");
        assert_eq!(on_lines("a\n\u{9b}ü"), "a\n\\u{9b}ü");
        let json = serde_json::to_string(hostile).unwrap();
        let safe = json_for_terminal(&json);
        assert!(!safe.chars().any(is_unsafe), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), hostile);
    }

    #[test]
    fn what_was_searched_for_is_bold_on_a_terminal_only() {
        let hit = Part { text: "red\u{7}".into(), hit: true };
        assert_eq!(marked(&hit, true), "\u{1b}[1mred\\u{7}\u{1b}[22m");
        assert_eq!(marked(&hit, false), "red\\u{7}");
        assert_eq!(marked(&Part { hit: false, ..hit }, true), "red\\u{7}");
    }
}
