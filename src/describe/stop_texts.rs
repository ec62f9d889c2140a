//! Texts that end an answer.

/// Looks for texts in one that comes piece by piece.
pub struct StopTexts {
    stops: Vec<String>,
    /// What may be the beginning of one of them.
    held: String,
    /// One of them has come.
    found: bool,
}

impl StopTexts {
    /// Looks for these texts.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), found: false }
    }

    /// What is known to come before any of them, with one more piece, and whether one of them has come.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.found {
            return (String::new(), true);
        }
        self.held += text;
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop)).min();
        if let Some(end) = found {
            let before = self.held[..end].to_owned();
            self.held.clear();
            self.found = true;
            return (before, true);
        }
        let may_begin = |rest: &str| self.stops.iter().any(|stop| stop.starts_with(rest));
        let mut starts = self.held.char_indices().map(|(i, _)| i);
        let end = starts.find(|i| may_begin(&self.held[*i..])).unwrap_or(self.held.len());
        let held = self.held.split_off(end);
        (std::mem::replace(&mut self.held, held), false)
    }

    /// What was held back and the last piece, up to one of the texts.
    pub fn finish(&mut self, text: &str) -> String {
        let (before, _) = self.push(text);
        before + &std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_is_found_across_pieces_and_what_might_begin_one_is_held_back() {
        let mut stops = StopTexts::new(vec!["\n\n".into(), "END".into(), String::new()]);
        assert_eq!(stops.push("a\n"), ("a".into(), false));
        assert_eq!(stops.push("b E"), ("\nb ".into(), false));
        assert_eq!(stops.push("N"), (String::new(), false));
        assert_eq!(stops.push("N é"), ("ENN é".into(), false));
        assert_eq!(stops.push("c END\n\n"), ("c ".into(), true));
        assert_eq!(stops.finish("d"), "");
        let mut stops = StopTexts::new(vec!["END".into()]);
        assert_eq!(stops.push("x E"), ("x ".into(), false));
        assert_eq!(stops.finish("N"), "EN");
    }
}
