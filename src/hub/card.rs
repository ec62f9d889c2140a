//! What a model's card, README.md, says to programs in its front matter.

use std::{fs::File, io::Read, path::Path};

use super::{builtin, id};

/// The file name of a card.
pub const FILE: &str = "README.md";

/// The key of the front matter that holds the question which the model was trained on.
const PROMPT: &str = "prompt";

/// A front matter is far shorter.
const MAX_BYTES: u64 = 64 << 10;

/// The question that the card of a model asks for: of the model inside the program, or of a directory. `None`: there
/// is no card, or it asks for none.
pub fn card_prompt(id: &str) -> Option<String> {
    if id == builtin::NAME {
        return prompt(builtin::card());
    }
    if !id::is_directory(id) {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(Path::new(id).join(FILE)).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    prompt(&String::from_utf8_lossy(&bytes))
}

/// The value of `prompt: …` in a front matter: YAML between two lines `---`, the value plain or in quotes.
fn prompt(card: &str) -> Option<String> {
    let mut lines = card.trim_start_matches('\u{feff}').lines();
    lines.next().filter(|line| line.trim_end() == "---")?;
    let mut lines = lines.take_while(|line| line.trim_end() != "---");
    let value = lines.find_map(|line| line.strip_prefix(PROMPT)?.strip_prefix(':'))?.trim();
    let prompt = if value.starts_with('"') {
        // YAML's double quotes are those of JSON, and more.
        serde_json::from_str(value).ok()?
    } else if let Some(inner) = value.strip_prefix('\'') {
        inner.strip_suffix('\'')?.replace("''", "'")
    } else {
        value.to_owned()
    };
    Some(prompt).filter(|prompt| !prompt.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_is_read_from_the_front_matter_alone() {
        let front = |line: &str| prompt(&format!("---\nlicense: mit\n{line}\n---\n\nprompt: not this one\n"));
        assert_eq!(front("prompt: What happens?").as_deref(), Some("What happens?"));
        assert_eq!(front("prompt: \"What \\\"happens\\\"?\"  ").as_deref(), Some("What \"happens\"?"));
        assert_eq!(front("prompt: 'It''s what?'").as_deref(), Some("It's what?"));
        for none in ["prompt:", "prompts: x", "  prompt: x", "prompt: \"x", "language: en"] {
            assert_eq!(front(none), None, "{none}");
        }
        assert_eq!(prompt("prompt: x\n"), None);
        assert_eq!(prompt(""), None);
    }

    #[test]
    fn a_copy_of_the_model_inside_the_program_asks_the_same() {
        let copy = concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes");
        assert!(card_prompt(copy).is_some());
        assert_eq!(card_prompt(copy), card_prompt(builtin::NAME));
        assert_eq!(card_prompt("/no/such/folder"), None);
        assert_eq!(card_prompt("HuggingFaceTB/SmolVLM2-500M-Video-Instruct"), None);
    }
}
