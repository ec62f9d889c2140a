//! The keys `tls_ca_file`, `tls_verify` and `tls_fingerprint` of a camera: whom to trust at `rtsps://` addresses.

use std::{
    fmt::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{diagnostic::Diagnostics, pem, section::Section};

/// The choices of `tls_verify`.
pub const VERIFY_CHOICES: [(&str, VerifyChoice); 3] =
    [("full", VerifyChoice::Full), ("fingerprint", VerifyChoice::Fingerprint), ("off", VerifyChoice::Off)];

/// A choice of `tls_verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyChoice {
    /// See [`TlsVerify::Full`].
    Full,
    /// See [`TlsVerify::Fingerprint`].
    Fingerprint,
    /// See [`TlsVerify::Off`].
    Off,
}

/// How a camera has to show that it is the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsVerify {
    /// By a certificate for its name, signed by an authority: those in this PEM file, else the system's.
    Full(Option<PathBuf>),
    /// By the one certificate with this fingerprint, whoever signed it.
    Fingerprint(Fingerprint),
    /// Not at all: whoever is in between can read and change everything.
    Off,
}

/// The SHA-256 of a certificate in DER form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// 64 hexadecimal digits, with or without colons.
impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} is no SHA-256 fingerprint: write 64 hexadecimal digits, with or without colons")
        };
        let digits: Vec<char> = text.chars().filter(|c| *c != ':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(bad());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |c: char| c.to_digit(16).ok_or_else(bad);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

/// Pairs of digits with colons between, as openssl prints them.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_char(':')?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

/// Reads the keys of a checked section; relative files are taken from `folder`.
pub fn read(section: &Section, folder: &Path, diagnostics: &mut Diagnostics) -> TlsVerify {
    let ca_file = section.optional("tls_ca_file").map(|file| folder.join(file));
    if let Some(Err(why)) = ca_file.as_deref().map(|file| pem::check(file, "CERTIFICATE-----")) {
        let location = &section.entry("tls_ca_file").location;
        diagnostics.error(location, format!("{} {why}", folder.join(section.text("tls_ca_file")).display()));
    }
    let choice = section.choice("tls_verify", &VERIFY_CHOICES);
    let fingerprint = section.optional("tls_fingerprint").map(str::parse::<Fingerprint>);
    let mut wrong = |key, why: &str| diagnostics.error(&section.entry(key).location, why.to_owned());
    match (choice, fingerprint) {
        (_, Some(Err(why))) => wrong("tls_fingerprint", &why),
        (VerifyChoice::Fingerprint, None) => {
            wrong(
                "tls_verify",
                "needs tls_fingerprint beside it: `camscribe check --probe` tells the camera's",
            );
        }
        (VerifyChoice::Full | VerifyChoice::Off, Some(Ok(_))) => {
            wrong("tls_fingerprint", "is not looked at: set tls_verify = \"fingerprint\", or remove it");
        }
        (VerifyChoice::Fingerprint, Some(Ok(fingerprint))) => return TlsVerify::Fingerprint(fingerprint),
        (VerifyChoice::Off, None) => return TlsVerify::Off,
        (VerifyChoice::Full, None) => {}
    }
    TlsVerify::Full(ca_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it_and_without_colons() {
        let text = "0F:".repeat(31) + "f0";
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.0, [[0x0f; 31].as_slice(), &[0xf0]].concat().as_slice());
        assert_eq!(fingerprint.to_string(), text.to_uppercase());
        assert_eq!(text.replace(':', "").parse(), Ok(fingerprint));
        for text in ["", "0F", &"0G".repeat(32), &"ä".repeat(64)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
