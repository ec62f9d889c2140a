//! `[cameras.<id>.alerts.<name>]`: what switches on and off with the answers to a question of the camera.

use std::time::Duration;

use super::{
    diagnostic::{ConfigError, Diagnostics},
    key::{Key, Kind},
    question,
    section::Section,
};
use crate::{alert::AlertRule, prompt_spec::NamedQuestion};

/// The most clips that an alert goes by.
const MAX_CLIPS: usize = 20;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Home Assistant's classes of binary sensors, as its documentation lists them, behind the empty text for none.
const DEVICE_CLASSES: [&str; 29] = [
    "",
    "battery",
    "battery_charging",
    "carbon_monoxide",
    "cold",
    "connectivity",
    "door",
    "garage_door",
    "gas",
    "heat",
    "light",
    "lock",
    "moisture",
    "motion",
    "moving",
    "occupancy",
    "opening",
    "plug",
    "power",
    "presence",
    "problem",
    "running",
    "safety",
    "smoke",
    "sound",
    "tamper",
    "update",
    "vibration",
    "window",
];

/// The key that each alert must set.
pub const QUESTION: Key =
    Key::required("question", Kind::Text, "The question that it goes by, one of the camera's");

pub const KEYS: &[Key] = &[
    QUESTION,
    Key::new(
        "answer",
        Kind::Text,
        "yes",
        "The answer that it is about: yes or no, or one of the question's answers",
    ),
    Key::new(
        "on",
        Kind::Fraction(0.0, 1.0),
        "0.8",
        "The probability of the answer from which on a clip speaks for the alert",
    ),
    Key::new(
        "off",
        Kind::Fraction(0.0, 1.0),
        "0.5",
        "The probability of the answer below which a clip speaks against the alert; at most on",
    ),
    Key::new(
        "of",
        Kind::Text,
        "2/3",
        "How many of the last how many clips must speak for the alert, or against it, to switch it",
    ),
    Key::new(
        "min_confidence",
        Kind::Fraction(0.0, 1.0),
        "0.2",
        "The least confidence of an answer that counts",
    ),
    Key::new(
        "min_duration",
        Kind::Duration(Duration::ZERO, DAY),
        "0s",
        "The time that the alert stays on for at least",
    ),
    Key::new(
        "cool_down",
        Kind::Duration(Duration::ZERO, DAY),
        "0s",
        "The time that the alert stays off for at least after it went off",
    ),
    Key::new(
        "device_class",
        Kind::Choice(&DEVICE_CLASSES),
        "",
        "Home Assistant's class of the binary sensor; empty: none",
    ),
];

/// The rule of a checked section of a camera that asks `questions`.
pub fn read(section: &Section, questions: &[NamedQuestion], diagnostics: &mut Diagnostics) -> AlertRule {
    check_answer(section, questions, diagnostics);
    let (on, off) = (section.fraction("on"), section.fraction("off"));
    if let Err(why) = check_thresholds(on, off) {
        let key = if section.is_set("off") { "off" } else { "on" };
        diagnostics.error(&section.entry(key).location, why);
    }
    let (of, last) = clips(section.text("of")).unwrap_or_else(|why| {
        diagnostics.error(&section.entry("of").location, why);
        (1, 1)
    });
    AlertRule {
        question: section.text(QUESTION.name).into(),
        answer: section.text("answer").into(),
        on,
        off,
        of,
        last,
        min_confidence: section.fraction("min_confidence"),
        min_duration: section.duration("min_duration"),
        cool_down: section.duration("cool_down"),
        device_class: section.optional("device_class").map(Into::into),
    }
}

/// What options of the command line say in place of rules, to try it. `None`: as the rule says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertTrial {
    on: Option<f64>,
    off: Option<f64>,
    clips: Option<(usize, usize)>,
    cool_down: Option<Duration>,
}

impl AlertTrial {
    /// Reads options: `("cool_down", "5m")` is `--cool-down 5m`. What may stand there are the values of the keys `on`,
    /// `off`, `of` and `cool_down`.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn from_options<'a>(
        options: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        let mut diagnostics = Diagnostics::default();
        let section = Section::of_options("alerts", KEYS, options, &mut diagnostics);
        let clips = section.is_set("of").then(|| clips(section.text("of"))).transpose();
        let clips = clips.unwrap_or_else(|why| {
            diagnostics.error(&section.entry("of").location, why);
            None
        });
        let fraction = |key| section.is_set(key).then(|| section.fraction(key));
        let trial = Self {
            on: fraction("on"),
            off: fraction("off"),
            clips,
            cool_down: section.is_set("cool_down").then(|| section.duration("cool_down")),
        };
        diagnostics.finish()?;
        Ok(trial)
    }

    /// The rule to try.
    ///
    /// # Errors
    /// When its thresholds do not go together.
    pub fn apply(&self, rule: &AlertRule) -> Result<AlertRule, String> {
        let (on, off) = (self.on.unwrap_or(rule.on), self.off.unwrap_or(rule.off));
        check_thresholds(on, off)?;
        let (of, last) = self.clips.unwrap_or((rule.of, rule.last));
        let cool_down = self.cool_down.unwrap_or(rule.cool_down);
        Ok(AlertRule { on, off, of, last, cool_down, ..rule.clone() })
    }
}

fn check_thresholds(on: f64, off: f64) -> Result<(), String> {
    if off > on { Err(format!("off = {off} is more than on = {on}: lower off, or raise on")) } else { Ok(()) }
}

/// Checks that the camera asks the question, and that the question has the answer.
fn check_answer(section: &Section, questions: &[NamedQuestion], diagnostics: &mut Diagnostics) {
    if !section.is_set(QUESTION.name) {
        return;
    }
    let name = section.text(QUESTION.name);
    let Some(question) = questions.iter().find(|question| question.name == name) else {
        let asked: Vec<_> = questions.iter().map(|question| question.name.as_str()).collect();
        let other =
            if asked.is_empty() { String::new() } else { format!(", or write one of {}", asked.join(", ")) };
        let why = format!("the camera does not ask {name:?}: add it to the camera's questions{other}");
        diagnostics.error(&section.entry(QUESTION.name).location, why);
        return;
    };
    let (answer, answers) = (section.text("answer"), question::answers(&question.decision));
    if !answers.contains(&answer) {
        let quoted: Vec<_> = answers.iter().map(|answer| format!("{answer:?}")).collect();
        let why = format!("question {name:?} has no answer {answer:?}: write one of {}", quoted.join(", "));
        diagnostics.error(&section.entry("answer").location, why);
    }
}

/// The numbers of clips in a text such as `2/3`.
fn clips(text: &str) -> Result<(usize, usize), String> {
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let numbers = text.split_once('/').and_then(|(of, last)| Some((number(of)?, number(last)?)));
    numbers.filter(|(of, last)| (1..=*last).contains(of) && *last <= MAX_CLIPS).ok_or_else(|| {
        format!(
            "{text:?} is not how many of the last how many clips: write such as \"2/3\", from \"1/1\" to \
             \"{MAX_CLIPS}/{MAX_CLIPS}\""
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_changes_what_its_options_say_and_keeps_the_thresholds_in_order() {
        let rule = AlertRule {
            question: "gate".into(),
            answer: "open".into(),
            on: 0.8,
            off: 0.5,
            of: 2,
            last: 3,
            min_confidence: 0.2,
            min_duration: Duration::from_secs(1),
            cool_down: Duration::ZERO,
            device_class: None,
        };
        assert_eq!(AlertTrial::from_options([]).unwrap().apply(&rule), Ok(rule.clone()));
        let trial = AlertTrial::from_options([("on", "0.6"), ("of", "1/4"), ("cool_down", "5m")]).unwrap();
        let wanted =
            AlertRule { on: 0.6, of: 1, last: 4, cool_down: Duration::from_secs(300), ..rule.clone() };
        assert_eq!(trial.apply(&rule), Ok(wanted));
        let low = AlertTrial::from_options([("on", "0.4")]).unwrap();
        assert_eq!(low.apply(&rule).unwrap_err(), "off = 0.5 is more than on = 0.4: lower off, or raise on");
        for (option, value, wanted) in [
            ("on", "1.5", "--on"),
            ("off", "much", "--off"),
            ("of", "4/3", "--of"),
            ("cool_down", "5", "--cool-down"),
        ] {
            let why = AlertTrial::from_options([(option, value)]).unwrap_err().to_string();
            assert!(why.contains(wanted) && why.contains(value), "{why}");
        }
    }

    #[test]
    fn some_of_the_last_clips_are_never_more_than_these() {
        assert_eq!(clips("2/3"), Ok((2, 3)));
        assert_eq!(clips("1/1"), Ok((1, 1)));
        assert_eq!(clips("20/20"), Ok((20, 20)));
        for wrong in ["", "2", "/", "2/", "/3", "0/3", "0/0", "4/3", "1/21", "+2/3", "2/+3", "2 / 3", "2/3/4"]
        {
            assert!(clips(wrong).unwrap_err().contains("write such as \"2/3\""), "{wrong}");
        }
        assert!(clips("1/99999999999999999999999").is_err());
    }
}
