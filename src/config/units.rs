//! Durations and sizes as people write them: a number with a unit, never a bare number.

use std::time::Duration;

/// Reads `8s`, `500ms`, `1m30s`.
///
/// # Errors
/// A sentence that says what was found and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(format!("{text:?} has no unit: write \"{text}s\" if seconds are meant"));
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration: write one such as \"8s\", \"500ms\" or \"1m30s\""))
}

/// Reads a time in a recording: what [`parse_duration`] reads, `01:30` or `00:01:30.5`.
///
/// # Errors
/// A sentence that says what was found and how to write it.
pub fn parse_offset(text: &str) -> Result<Duration, String> {
    if text.contains(':') { clock(text) } else { parse_duration(text).ok() }.ok_or_else(|| {
        format!("{text:?} is not a time: write one such as \"90s\", \"1m30s\" or \"00:01:30\"")
    })
}

/// Reads `MM:SS` or `HH:MM:SS`, with or without a fraction of a second.
fn clock(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let number = |digits: &str| {
        let valid = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        valid.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let parts = whole.split(':').map(number).collect::<Option<Vec<_>>>()?;
    let [leading, rest @ ..] = parts.as_slice() else { return None };
    if !(1..=2).contains(&rest.len()) || rest.iter().any(|part| *part > 59) {
        return None;
    }
    let seconds = rest.iter().fold(*leading, |sum, part| sum * 60 + part);
    number(fraction)?;
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

/// Units of durations, largest first, and their nanoseconds.
const DURATIONS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Writes what [`parse_duration`] reads: `1m30s`.
pub fn format_duration(duration: Duration) -> String {
    let (mut rest, mut text) = (duration.as_nanos(), String::new());
    for (unit, length) in DURATIONS {
        if rest >= length {
            text += &format!("{}{unit}", rest / length);
            rest %= length;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Units of sizes, largest first within a base, and their bytes.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads `512MiB`, `1GB`, `4096B`: bytes.
///
/// # Errors
/// A sentence that says what was found and how to write it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if digits > 0 && unit.is_empty() {
        return Err(format!("{text:?} has no unit: write \"{text}MiB\" or \"{text}B\""));
    }
    let not_a_size = || format!("{text:?} is not a size: write one such as \"512MiB\" or \"1GB\"");
    let unit = unit.trim_start();
    let (_, factor) =
        SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(not_a_size)?;
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)).ok_or_else(not_a_size)
}

/// Writes what [`parse_size`] reads.
pub fn format_size(bytes: u64) -> String {
    let whole = SIZES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    whole.map_or_else(|| format!("{bytes}B"), |(name, factor)| format!("{}{name}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_sizes_need_a_unit() {
        assert!(parse_duration("8").unwrap_err().contains("\"8s\""));
        assert!(parse_duration("1.5").is_err());
        assert!(parse_duration("").is_err());
        assert!(parse_duration("-1s").is_err());
        assert!(parse_size("512").unwrap_err().contains("has no unit"));
        assert!(parse_size("").is_err());
        assert!(parse_size("MiB").is_err());
        assert!(parse_size("1.5GB").is_err());
        assert!(parse_size("99999999999TiB").is_err());
    }

    #[test]
    fn times_in_a_recording_are_read_as_durations_or_as_on_a_clock() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("01:30", 90_000),
            ("90:00", 5_400_000),
            ("00:01:30", 90_000),
            ("100:00:00.5", 360_000_500),
            ("0:00.040", 40),
        ] {
            assert_eq!(parse_offset(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in
            ["90", "", ":", "1:", ":30", "00:60", "1:60:00", "1:2:3:4", "00:01.", "-1:00", "1:+3", "a:b"]
        {
            let why = parse_offset(wrong).unwrap_err();
            assert!(why.contains("\"00:01:30\""), "{why}");
        }
    }

    #[test]
    fn binary_and_decimal_sizes_differ() {
        assert_eq!(parse_size("1MiB"), Ok(1_048_576));
        assert_eq!(parse_size("1MB"), Ok(1_000_000));
        assert_eq!(parse_size("1 gb"), Ok(1_000_000_000));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in 0_u64.., millis in 0_u64..10_000_000_000) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
            let time = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(time)), Ok(time));
        }

        #[test]
        fn no_text_makes_them_panic(text in "\\PC{0,20}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_offset(&text));
        }
    }
}
