//! Answers that follow a JSON schema: at each token, those that lead to a valid document.

use std::{sync::Arc, thread};

use llguidance::{
    JsonCompileOptions, Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};

use crate::{nn::sampler::TokenMask, request::AnswerFormat};

/// The stack for compiling a schema, bytes.
const STACK: usize = 64 << 20;

/// Compiles formats for one vocabulary.
pub struct FormatCompiler {
    factory: ParserFactory,
    end: u32,
}

/// Follows one answer.
pub struct FormatMatcher {
    matcher: Matcher,
    /// Allows the end of the answer alone.
    end: TokenMask,
    /// Why the answer cannot be followed any further.
    error: Option<String>,
}

impl FormatCompiler {
    /// For a vocabulary: the bytes of each token by its id; those of a control token begin with
    /// [`TokTrie::SPECIAL_TOKEN_MARKER`]. `end` is the token that ends an answer.
    ///
    /// # Errors
    /// When the vocabulary cannot be used.
    pub fn new(vocabulary: &[Vec<u8>], end: u32) -> Result<Self, String> {
        let info = TokRxInfo::new(vocabulary.len() as u32, end);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, vocabulary)));
        let mut factory = ParserFactory::new_simple(&tokens).map_err(|error| error.to_string())?;
        factory.quiet();
        Ok(Self { factory, end })
    }

    /// A matcher for an answer in this format. `None`: any text is.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub fn compile(&self, format: &AnswerFormat) -> Result<Option<FormatMatcher>, String> {
        let mut schema = match format {
            AnswerFormat::Text => return Ok(None),
            AnswerFormat::Json => json!({"type": "object"}),
            AnswerFormat::Schema(schema) => Value::clone(schema),
        };
        if !schema.is_object() {
            return Err("the JSON schema is not an object".into());
        }
        // White space that a model may repeat for ever leads to no document.
        JsonCompileOptions { whitespace_flexible: false, ..JsonCompileOptions::default() }
            .apply_to(&mut schema);
        let grammar = TopLevelGrammar::from_json_schema(schema);
        // It recurses along the schema's references.
        let parser = thread::scope(|scope| {
            let compiling = thread::Builder::new().name("schema".into()).stack_size(STACK);
            let compiling = compiling.spawn_scoped(scope, || self.factory.create_parser(grammar));
            compiling.map_err(|error| error.to_string())?.join().map_err(|_| "it is too complex".to_owned())
        });
        let parser = parser.and_then(|parser| parser.map_err(|error| error.to_string()));
        let matcher =
            Matcher::new(Ok(parser.map_err(|why| format!("the JSON schema cannot be used: {why}"))?));
        let mut end = vec![0; self.end as usize / 32 + 1];
        end[self.end as usize / 32] |= 1 << (self.end % 32);
        Ok(Some(FormatMatcher { matcher, end, error: None }))
    }
}

impl FormatMatcher {
    /// The tokens that may follow. When the document is complete, or nothing leads to one, it is the end alone.
    pub fn mask(&mut self) -> TokenMask {
        match self.matcher.compute_mask_or_eos() {
            Ok(mask) if mask.as_slice().iter().any(|word| *word != 0) => return mask.as_slice().to_vec(),
            Ok(_) => self.error = Some("no token leads to a document".into()),
            Err(error) => self.error = Some(error.to_string()),
        }
        self.end.clone()
    }

    /// Why the answer is no such document, if it came to that.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Takes the token that follows.
    pub fn push(&mut self, id: u32) {
        if let Err(error) = self.matcher.consume_token(id) {
            self.error = Some(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 256;

    fn compiler() -> FormatCompiler {
        let mut vocabulary: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
        vocabulary.push(b"\xff<end>".to_vec());
        FormatCompiler::new(&vocabulary, END).unwrap()
    }

    /// Takes the first token that is allowed from a list of wishes, and returns the text.
    fn follow(format: &AnswerFormat, wishes: &[u8]) -> String {
        let mut matcher = compiler().compile(format).unwrap().unwrap();
        let mut text = Vec::new();
        for _ in 0..100 {
            let mask = matcher.mask();
            let allowed = |id: u32| mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
            if allowed(END) {
                return String::from_utf8(text).unwrap();
            }
            let byte = wishes.iter().copied().find(|byte| allowed(u32::from(*byte))).unwrap();
            text.push(byte);
            matcher.push(u32::from(byte));
        }
        panic!("the document does not end: {}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn only_what_the_schema_allows_can_be_answered() {
        let schema = json!({
            "type": "object",
            "properties": {"person": {"type": "boolean"}, "place": {"enum": ["door", "yard"]}},
            "required": ["person", "place"],
            "additionalProperties": false,
        });
        let format = AnswerFormat::Schema(Arc::new(schema));
        let text = follow(&format, b"fy abcdeghijklmnopqrstuvwxz{}\":,");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"person": false, "place": "yard"}));
        assert_eq!(follow(&AnswerFormat::Json, b" x{}"), "{}");
        assert!(compiler().compile(&AnswerFormat::Text).unwrap().is_none());
    }

    #[test]
    fn a_long_chain_of_references_does_not_use_up_the_stack() {
        let link = |i: usize| (format!("a{i}"), json!({"$ref": format!("#/$defs/a{}", i + 1)}));
        let mut chain: serde_json::Map<String, Value> = (0..2500).map(link).collect();
        chain.insert("a2500".into(), json!({"type": "boolean"}));
        let schema = json!({"$ref": "#/$defs/a0", "$defs": chain});
        // Whether it is taken or refused: the process goes on.
        let _ = compiler().compile(&AnswerFormat::Schema(Arc::new(schema)));
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused() {
        for schema in
            [json!(true), json!({"type": "nonsense"}), json!({"$ref": "https://example.com/schema"})]
        {
            assert!(compiler().compile(&AnswerFormat::Schema(Arc::new(schema.clone()))).is_err(), "{schema}");
        }
    }
}
