//! `history forget`: events and their frames, deleted for good.

use std::io::{self, IsTerminal, Write};

use super::{super::usage::UsageError, args::ForgetEventsArgs, place::Place, time};
use crate::{
    history::{Forgotten, Selection},
    logging::tell,
    plural::plural,
};

/// Tells what would be forgotten, asks, and forgets it.
///
/// # Errors
/// [`UsageError`] where nobody can be asked; when the history cannot be read or written.
pub fn run(args: &ForgetEventsArgs) -> anyhow::Result<()> {
    let selection = args.selection()?;
    let place = Place::find(&args.place)?;
    let found = place.reader()?.count(&selection)?;
    let which = which(&selection);
    if found == Forgotten::default() {
        tell(format_args!("the history has no event {which}: nothing is forgotten"));
        return Ok(());
    }
    let what = what(found);
    if !args.yes && !agrees(&format!("forget {what} {which}, for good?"))? {
        tell("nothing is forgotten");
        return Ok(());
    }
    let mut writer = place.writer()?;
    let forgotten = writer.forget(&selection)?;
    let is_erased = writer.erase()?;
    tell(format_args!(
        "forgotten: {}. Events that wait for the broker are still sent, and what it and its subscribers have stays \
         there",
        self::what(forgotten)
    ));
    if !is_erased {
        tell(
            "somebody reads the history now: until that ends, its log (history.db-wal) still holds what is forgotten; a \
             camscribe that runs overwrites it then, or run this again",
        );
    }
    Ok(())
}

/// Asks the person at the keyboard.
///
/// # Errors
/// [`UsageError`] if there is none.
fn agrees(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(UsageError(format!("{question} Nobody can be asked here: --yes says so")).into());
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn what(Forgotten { events, frames }: Forgotten) -> String {
    format!("{} and {}", plural(events, "event"), plural(frames, "frame"))
}

fn which(Selection { camera, from, to, .. }: &Selection) -> String {
    let camera = camera.as_ref().map_or("of all cameras".into(), |name| format!("of camera {name}"));
    let from = from.map(|time| format!("that ended {} or later", time::exact(time)));
    let to = to.map(|time| format!("that ended {} or earlier", time::exact(time)));
    [Some(camera), from, to].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
