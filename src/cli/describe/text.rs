//! Names of files in lines that people read.

/// A text without line ends and other control characters, which a file name may hold: they are escaped.
pub fn on_one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escape).collect()
}
