//! The bytes of a token of a byte-level vocabulary. It writes each byte as a character that can be printed: most as
//! themselves, the others as the characters from U+0100 on (GPT-2's `bytes_to_unicode`).

/// The bytes of a token as the vocabulary writes it. Characters that stand for no byte keep their own.
pub fn token_bytes(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for char in token.chars() {
        match byte(char) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Whether a byte is written as itself.
fn is_printed(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The byte that a character stands for.
fn byte(char: char) -> Option<u8> {
    let code = u32::from(char);
    match u8::try_from(code) {
        Ok(byte) => is_printed(byte).then_some(byte),
        Err(_) => (0..=u8::MAX).filter(|byte| !is_printed(*byte)).nth(code.checked_sub(0x100)? as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character() {
        assert_eq!(token_bytes("\u{120}the"), b" the");
        assert_eq!(token_bytes("\u{10a}\u{c3}\u{a9}"), "\n\u{e9}".as_bytes());
        assert_eq!(token_bytes("<end>"), b"<end>");
        assert_eq!(token_bytes("\u{143}"), [0xad]);
        assert_eq!(token_bytes("\u{4e00}"), "\u{4e00}".as_bytes());
    }
}
