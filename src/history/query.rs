//! What people search for, as a query of SQLite's full text search, and how good a match is. Pure.

/// What SQLite puts before and after each match.
pub(super) const MARKS: [char; 2] = ['\u{1}', '\u{2}'];
/// The longest snippet, characters.
const SNIPPET: usize = 240;
/// How much of a snippet stands before the first match, characters.
const BEFORE: usize = 60;
/// The most words of a query: more find nothing more.
const MAX_WORDS: usize = 32;

/// A part of a snippet.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    /// Its text.
    pub text: String,
    /// Whether it is what was searched for.
    pub hit: bool,
}

/// The query of FTS5 (<https://www.sqlite.org/fts5.html#full_text_query_syntax>) for what a person has written: all words
/// must occur, `"words in quotes"` beside each other; `tri*` is every word that begins so. `None`: there is no word.
pub(super) fn fts_query(text: &str) -> Option<String> {
    let mut phrases = Vec::new();
    // Every other piece stood in quotes. Nothing of what is left can be taken for syntax: all of it is quoted anew.
    for (number, piece) in text.split('"').enumerate() {
        let is_quoted = number % 2 == 1;
        let words: Vec<&str> = if is_quoted { vec![piece] } else { piece.split_whitespace().collect() };
        for word in words.into_iter().filter(|word| word.contains(char::is_alphanumeric)) {
            let is_prefix = !is_quoted && word.ends_with('*');
            phrases.push(format!("\"{}\"{}", word.replace('\0', " "), if is_prefix { "*" } else { "" }));
        }
    }
    phrases.truncate(MAX_WORDS);
    (!phrases.is_empty()).then(|| phrases.join(" AND "))
}

/// How well a text matches, by its marked matches: BM25 with all words weighing the same, since each occurs in every match.
/// More matches in fewer words are better.
pub(super) fn score(marked: &str) -> f64 {
    const K1: f64 = 1.2;
    const B: f64 = 0.75;
    /// A usual description, characters.
    const USUAL: f64 = 200.0;
    let hits = marked.matches(MARKS[0]).count() as f64;
    let length = marked.chars().count() as f64;
    hits * (K1 + 1.0) / (hits + K1 * (1.0 - B + B * length / USUAL))
}

/// The part of a text around its first marked match.
pub(super) fn snippet(marked: &str) -> Vec<Part> {
    let first = marked.chars().position(|it| it == MARKS[0]).unwrap_or_default();
    let skipped = first.saturating_sub(BEFORE);
    let mut parts: Vec<Part> = Vec::new();
    let (mut hit, mut shown) = (false, 0);
    let mut push = |it: char, hit: bool| match parts.last_mut() {
        Some(part) if part.hit == hit => part.text.push(it),
        _ => parts.push(Part { text: it.into(), hit }),
    };
    if skipped > 0 {
        push('…', false);
    }
    for (place, it) in marked.chars().enumerate() {
        if MARKS.contains(&it) {
            hit = it == MARKS[0];
        } else if shown == SNIPPET {
            push('…', false);
            break;
        } else if place >= skipped {
            push(it, hit);
            shown += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_writes_becomes_a_query_without_syntax_of_its_own() {
        let query = |text: &str| fts_query(text).unwrap_or_default();
        assert_eq!(query("red  triangle"), r#""red" AND "triangle""#);
        assert_eq!(
            query("tri* \"a red\" box"),
            r#""tri"* AND "a red" AND "box""#.replace("\"tri\"*", "\"tri*\"*")
        );
        assert_eq!(
            query("words:x OR NEAR(a b) -c ^d"),
            r#""words:x" AND "OR" AND "NEAR(a" AND "b)" AND "-c" AND "^d""#
        );
        assert_eq!(query("\"open end"), "\"open end\"");
        assert_eq!(fts_query(" * \" \" -- "), None);
        assert_eq!(query(&"a ".repeat(100)).matches("AND").count(), MAX_WORDS - 1);
    }

    #[test]
    fn more_matches_in_fewer_words_are_better() {
        let one = format!("a {}red{} triangle", MARKS[0], MARKS[1]);
        let two = format!("{one} and a {}red{} square", MARKS[0], MARKS[1]);
        let long = format!("{one}{}", " and more".repeat(100));
        assert!(score(&two) > score(&one) && score(&one) > score(&long));
    }

    #[test]
    fn a_snippet_is_short_and_begins_before_the_first_match() {
        let text = |parts: &[Part]| parts.iter().map(|part| part.text.as_str()).collect::<String>();
        let marked = format!("a {}red{} box", MARKS[0], MARKS[1]);
        let part = |text: &str, hit| Part { text: text.into(), hit };
        assert_eq!(snippet(&marked), [part("a ", false), part("red", true), part(" box", false)]);
        let long = format!("{}{marked}{}", "ä ".repeat(500), " ü".repeat(500));
        let parts = snippet(&long);
        assert!(parts.iter().any(|part| part.hit && part.text == "red"));
        assert_eq!(text(&parts).chars().count(), SNIPPET + 2);
        assert!(snippet("").is_empty());
    }
}
