//! `history search`: events by their words, or the newest.

use std::io::{self, IsTerminal, Write};

use super::{
    args::{SearchArgs, SearchFormat},
    place::Place,
    text,
};
use crate::{history::Page, logging::tell};

/// Prints the events on standard output; on standard error, whether there are more, or none.
///
/// # Errors
/// When the history cannot be read, or the output not be written.
pub fn run(args: &SearchArgs) -> anyhow::Result<()> {
    let selection = args.selection.selection()?;
    let reader = Place::find(&args.place)?.reader()?;
    let (words, limit) = (args.words.join(" "), usize::from(args.limit));
    let Page { events, next } = match args.words.is_empty() {
        true => reader.newest(&selection, None, limit)?,
        false => reader.search(&words, &selection, None, limit)?,
    };
    let mut out = io::stdout().lock();
    let is_terminal = out.is_terminal();
    for (number, listed) in events.iter().enumerate() {
        match args.format {
            SearchFormat::Text => {
                let gap = if number > 0 { "\n" } else { "" };
                write!(out, "{gap}{}", text::block(listed, is_terminal))?;
            }
            SearchFormat::Jsonl => write!(out, "{}", text::json_line(&listed.event, is_terminal)?)?,
        }
    }
    out.flush()?;
    if events.is_empty() {
        tell("the history has no such event");
    } else if next.is_some() {
        tell(format_args!("there are more: --limit shows more than {limit}, --from and --to others"));
    }
    Ok(())
}
