//! Typed questions about a conversation: is it true, which of these, how much. They become questions with labels, and
//! the labels' probabilities become answers. Names and meanings are those of OpenAI's Decisions API.

/// A question with given labels. How likely is each of them as the answer?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked, after all that the last message of the user holds.
    pub text: String,
    /// The possible answers, as the model would write them.
    pub labels: Vec<String>,
}

/// A typed question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Is it true?
    Predicate {
        /// A question or a statement.
        instructions: String,
    },
    /// Which one of these?
    Choice {
        /// What is asked.
        instructions: String,
        /// At least two.
        options: Vec<Choice>,
    },
    /// How much?
    Score {
        /// What is asked.
        instructions: String,
        /// The lowest first; at least two. The first counts as 0, the next as 1.
        levels: Vec<Choice>,
    },
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The answer as the model would write it.
    pub label: String,
    /// What it means, if that is told.
    pub description: Option<String>,
}

/// The answer to a typed question.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// Of each possible answer, in the question's order, beside each other: together 1. Of a predicate: yes, no.
    pub probabilities: Vec<f64>,
    /// The place of the most likely one.
    pub winner: usize,
    /// The probability of that one among all that the model could say. When it is small, the model wanted to say
    /// something else.
    pub confidence: f64,
}

impl Decided {
    /// The expected place: the sum of all places by their probabilities.
    pub fn expected(&self) -> f64 {
        self.probabilities.iter().enumerate().map(|(place, probability)| place as f64 * probability).sum()
    }
}

impl Decision {
    /// A question that is answered by one of `answers`; without any, by yes or no.
    pub fn among(instructions: String, answers: &[String]) -> Self {
        if answers.is_empty() {
            return Self::Predicate { instructions };
        }
        let option = |label: &String| Choice { label: label.clone(), description: None };
        Self::Choice { instructions, options: answers.iter().map(option).collect() }
    }

    /// What is asked, without the possible answers.
    pub fn instructions(&self) -> &str {
        match self {
            Self::Predicate { instructions }
            | Self::Choice { instructions, .. }
            | Self::Score { instructions, .. } => instructions,
        }
    }

    /// What the model is asked. Models prefer what stands at a certain place, so that choices and scores are asked in two
    /// orders.
    pub fn questions(&self) -> Vec<Question> {
        match self {
            Self::Predicate { instructions } => vec![Question {
                text: format!("{instructions} Answer yes or no."),
                labels: vec!["Yes".into(), "No".into()],
            }],
            Self::Choice { instructions, options } | Self::Score { instructions, levels: options } => {
                let mut reversed: Vec<&Choice> = options.iter().collect();
                let forward = list(instructions, &reversed);
                reversed.reverse();
                let labels: Vec<String> = options.iter().map(|option| option.label.clone()).collect();
                let ask = |text| Question { text, labels: labels.clone() };
                vec![ask(forward), ask(list(instructions, &reversed))]
            }
        }
    }

    /// What can be answered.
    pub fn answers(&self) -> Vec<String> {
        match self {
            Self::Predicate { .. } => vec!["yes".into(), "no".into()],
            Self::Choice { options, .. } | Self::Score { levels: options, .. } => {
                options.iter().map(|option| option.label.clone()).collect()
            }
        }
    }

    /// The answer. `labels` has, for each of [`Decision::questions`], the logarithms of its labels' probabilities.
    pub fn decide(labels: &[Vec<f32>]) -> Decided {
        let orders = labels.len().max(1) as f64;
        let count = labels.first().map_or(0, Vec::len);
        let (mut probabilities, mut among_all) = (vec![0.0; count], vec![0.0; count]);
        for labels in labels {
            let most = labels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let power = |label: &f32| f64::from(label - most).exp();
            let sum: f64 = labels.iter().map(power).sum();
            for (place, label) in labels.iter().enumerate() {
                probabilities[place] += power(label) / sum / orders;
                among_all[place] += f64::from(*label).exp() / orders;
            }
        }
        let winner = most_likely(&probabilities);
        let confidence = among_all.get(winner).copied().unwrap_or_default();
        Decided { probabilities, winner, confidence }
    }
}

/// The place of the highest probability; of equal ones, that of the first.
pub fn most_likely(probabilities: &[f64]) -> usize {
    let better = |best: usize, place: usize| {
        if probabilities[place] > probabilities[best] { place } else { best }
    };
    (0..probabilities.len()).reduce(better).unwrap_or(0)
}

/// The instructions and the possible answers, in this order.
fn list(instructions: &str, options: &[&Choice]) -> String {
    let labels: Vec<&str> = options.iter().map(|option| option.label.as_str()).collect();
    let meanings = options
        .iter()
        .filter_map(|option| Some(format!("\n{}: {}", option.label, option.description.as_ref()?)));
    let meanings: String = meanings.collect();
    format!("{instructions}{meanings}\nAnswer with one of these: {}.", labels.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(label: &str) -> Choice {
        Choice { label: label.into(), description: None }
    }

    #[test]
    fn choices_are_asked_in_two_orders_whose_probabilities_are_averaged() {
        let open = Choice { description: Some("one can walk through".into()), ..option("open") };
        let instructions = "Is the gate open?".to_owned();
        let decision = Decision::Choice { instructions, options: vec![open, option("closed")] };
        let questions = decision.questions();
        assert_eq!(
            questions[0].text,
            "Is the gate open?\nopen: one can walk through\nAnswer with one of these: open, closed."
        );
        assert!(questions[1].text.ends_with("these: closed, open."));
        assert_eq!(questions[0].labels, ["open", "closed"]);
        assert_eq!(questions[1].labels, ["open", "closed"]);
        // 0.6 and 0.2 of all, then 0.1 and 0.3.
        let decided = Decision::decide(&[vec![0.6f32.ln(), 0.2f32.ln()], vec![0.1f32.ln(), 0.3f32.ln()]]);
        assert!(
            (decided.probabilities[0] - 0.5).abs() < 1e-6 && (decided.probabilities[1] - 0.5).abs() < 1e-6
        );
        let decided = Decision::decide(&[vec![0.6f32.ln(), 0.2f32.ln()], vec![0.3f32.ln(), 0.3f32.ln()]]);
        assert_eq!(decided.winner, 0);
        assert!((decided.probabilities[0] - 0.625).abs() < 1e-6, "{decided:?}");
        assert!((decided.confidence - 0.45).abs() < 1e-6, "{decided:?}");
    }

    #[test]
    fn a_predicate_asks_for_yes_or_no_and_a_score_is_the_expected_level() {
        let questions = Decision::Predicate { instructions: "Is the scene empty?".into() }.questions();
        assert_eq!(questions[0].text, "Is the scene empty? Answer yes or no.");
        assert_eq!(questions[0].labels, ["Yes", "No"]);
        let decided = Decision::decide(&[vec![0.1f32.ln(), 0.1f32.ln(), 0.2f32.ln()]]);
        assert_eq!(decided.winner, 2);
        assert!((decided.expected() - 1.25).abs() < 1e-6, "{decided:?}");
        // However unlikely all are, they are compared.
        let decided = Decision::decide(&[vec![-500.0, -501.0]]);
        assert!((decided.probabilities[0] - 0.731_058_6).abs() < 1e-6, "{decided:?}");
    }
}
