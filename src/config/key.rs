//! What a configuration key is: its name, type, default and meaning.

use std::{fmt, time::Duration};

use super::units;

/// One key of one section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name within the section.
    pub name: &'static str,
    /// The type and its bounds.
    pub kind: Kind,
    /// The value of an unset key, written as in an environment variable; `None`: the key must be set.
    pub default: Option<&'static str>,
    /// The meaning, in one sentence without a full stop.
    pub doc: &'static str,
}

impl Key {
    /// A key that has a default.
    pub const fn new(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Self {
        Self { name, kind, default: Some(default), doc }
    }

    /// A key that must be set.
    pub const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, default: None, doc }
    }
}

/// The type of a key, with its bounds, which are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text; its meaning is checked by the section that the key belongs to.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number from .0 to .1.
    Int(u64, u64),
    /// A number, from .0 to .1.
    Fraction(f64, f64),
    /// Text such as `8s`, from .0 to .1.
    Duration(Duration, Duration),
    /// Text such as `512MiB`, from .0 to .1, in bytes.
    Size(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts; a comma stands between them where there is nothing but text.
    List,
}

impl fmt::Display for Kind {
    /// As error messages and the reference name it: `a whole number from 1 to 64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Bool => f.write_str("true or false"),
            Self::Int(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Fraction(min, max) => write!(f, "a number from {min} to {max}"),
            Self::Duration(min, max) => {
                let (min, max) = (units::format_duration(*min), units::format_duration(*max));
                write!(f, "a duration from \"{min}\" to \"{max}\"")
            }
            Self::Size(min, max) => {
                let (min, max) = (units::format_size(*min), units::format_size(*max));
                write!(f, "a size from \"{min}\" to \"{max}\"")
            }
            Self::Choice(names) => {
                let quoted: Vec<_> = names.iter().map(|word| format!("{word:?}")).collect();
                write!(f, "one of {}", quoted.join(", "))
            }
            Self::List => f.write_str("a list of texts"),
        }
    }
}

/// The names in a table of choices, for [`Kind::Choice`].
pub const fn names<T, const N: usize>(choices: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = choices[i].0;
        i += 1;
    }
    names
}
