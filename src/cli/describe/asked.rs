//! `--question` and `--answers`: what is answered by probabilities, beside the description or in place of it.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::super::usage::UsageError;
use crate::{config, decision::Decision, prompt_spec::NamedQuestion};

const QUESTION: &str = "question";
const ANSWERS: &str = "answers";

/// The options as they were given. clap's derive would lose which `--answers` follows which `--question`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedArgs {
    /// In the order of the command line.
    given: Vec<Given>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Question(String),
    Answers(String),
}

impl AskedArgs {
    /// The questions. A single one is named `question`; several are named `question_1` and so on. The rules are those of
    /// the configuration.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn questions(&self) -> Result<Vec<NamedQuestion>, UsageError> {
        let mut asked: Vec<(&str, Vec<String>)> = Vec::new();
        for given in &self.given {
            match (given, asked.last_mut()) {
                (Given::Question(text), _) => asked.push((text.trim(), Vec::new())),
                (Given::Answers(text), Some((_, answers))) if answers.is_empty() => {
                    *answers = text.split(',').map(|answer| answer.trim().to_owned()).collect();
                }
                (Given::Answers(text), _) => {
                    return Err(UsageError(format!(
                        "--answers {text:?} has no question of its own: write it behind the --question that it belongs to"
                    )));
                }
            }
        }
        let most = config::MAX_QUESTIONS;
        if asked.len() > most {
            return Err(UsageError(format!(
                "there are {} questions; {most} are allowed: ask the others in another run",
                asked.len()
            )));
        }
        let single = asked.len() == 1;
        let question = |(number, (text, answers)): (usize, (&str, Vec<String>))| {
            let wrong = |option: &str, why: String| UsageError(format!("--{option} of {text:?} {why}"));
            config::check_prompt(text).map_err(|why| UsageError(format!("--{QUESTION} {why}")))?;
            if !answers.is_empty() {
                config::check_answers(&answers).map_err(|why| wrong(ANSWERS, why))?;
            }
            let name = if single { QUESTION.into() } else { format!("{QUESTION}_{number}") };
            Ok(NamedQuestion { name, decision: Decision::among(text.into(), &answers), calibration: None })
        };
        (1..).zip(asked).map(question).collect()
    }
}

impl Args for AskedArgs {
    fn augment_args(command: Command) -> Command {
        let option =
            |name: &'static str, value| Arg::new(name).long(name).value_name(value).action(ArgAction::Append);
        let question = option(QUESTION, "Q").help(
            "Another question about each clip, answered with its probability: by yes or no, or by one of --answers; may be \
             given several times",
        );
        let answers = option(ANSWERS, "ANSWER,…")
            .requires(QUESTION)
            .help("The possible answers to the --question before it, 2 to 20 [default: yes and no]");
        command.args([question, answers])
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for AskedArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name, variant: fn(String) -> Given| {
            let places = matches.indices_of(name).into_iter().flatten();
            places.zip(matches.get_many::<String>(name).into_iter().flatten().cloned().map(variant))
        };
        let mut all: Vec<(usize, Given)> =
            given(QUESTION, Given::Question).chain(given(ANSWERS, Given::Answers)).collect();
        all.sort_by_key(|(place, _)| *place);
        Ok(Self { given: all.into_iter().map(|(_, given)| given).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        asked: AskedArgs,
    }

    fn questions(arguments: &[&str]) -> Result<Vec<NamedQuestion>, String> {
        let line = Line::try_parse_from([&["x"], arguments].concat()).map_err(|error| error.to_string())?;
        line.asked.questions().map_err(|error| error.to_string())
    }

    #[test]
    fn answers_belong_to_the_question_before_them() {
        let asked = questions(&[
            "--question",
            "Is it day?",
            "--question=Which colour?",
            "--answers",
            "red, dark green",
            "--question",
            "Is it wet?",
        ]);
        let asked = asked.unwrap();
        assert_eq!(
            asked.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
            ["question_1", "question_2", "question_3"]
        );
        let answers: Vec<_> = asked.iter().map(|it| it.decision.answers()).collect();
        assert_eq!(answers, [["yes", "no"], ["red", "dark green"], ["yes", "no"]]);
        assert_eq!(asked[1].decision.instructions(), "Which colour?");
        assert_eq!(questions(&["--question", "Is it day?"]).unwrap()[0].name, "question");
        assert_eq!(questions(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for (arguments, text) in [
            (&["--answers", "a,b"][..], "--question"),
            (&["--answers", "a,b", "--question", "Which?"], "\"a,b\" has no question of its own"),
            (&["--question", "Which?", "--answers", "a,b", "--answers", "c,d"], "\"c,d\" has no question"),
            (&["--question", "Which?", "--answers", "a"], "--answers of \"Which?\" has 1 of 2 to 20 answers"),
            (&["--question", "Which?", "--answers", "a,A"], "differs in case only"),
            (&["--question", " "], "--question is empty"),
            (&["--question", "a <image> b"], "special token"),
            (&["--question", "Which?"].repeat(33), "there are 33 questions; 32 are allowed"),
        ] {
            let why = questions(arguments).unwrap_err();
            assert!(why.contains(text), "{arguments:?}: {why}");
        }
        assert_eq!(questions(&["--question", "Which?"].repeat(32)).unwrap().len(), 32);
    }
}
