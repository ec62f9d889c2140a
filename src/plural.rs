//! Numbers of things in lines that people read.

use std::fmt::Display;

/// `1 clip`, `2 clips`: the noun takes an s at its end.
pub fn plural(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    let ending = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::plural;

    #[test]
    fn only_one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| plural(n, "clip")), ["0 clips", "1 clip", "2 clips"]);
    }
}
