//! Pure: what a camera asks for a login, and the answer.

use http_auth::{
    PasswordClient, PasswordParams,
    digest::{Algorithm, DigestClient},
};

use super::message::Message;
use crate::config::Login;

/// The challenge to answer, of those that `WWW-Authenticate` headers offer.
///
/// # Errors
/// If none is known here: what they are called.
pub(super) fn challenge(offered: &[&str]) -> Result<PasswordClient, String> {
    let build = |offered: &mut dyn Iterator<Item = &str>| {
        offered.fold(PasswordClient::builder(), |builder, value| builder.challenges(value)).build()
    };
    let completed: Vec<String> = offered.iter().map(|value| completed(value)).collect();
    build(&mut offered.iter().copied())
        .or_else(|_| build(&mut completed.iter().map(String::as_str)))
        .map_err(|_| methods(offered.iter().copied()))
}

/// A challenge with what the standard asks for and some cameras leave out: a realm, commas between parameters.
fn completed(challenge: &str) -> String {
    let (scheme, parameters) = challenge.trim().split_once(' ').unwrap_or((challenge.trim(), ""));
    if parameters.trim().is_empty() {
        return format!("{scheme} realm=\"\"");
    }
    let (mut text, mut in_quotes) = (format!("{scheme} "), false);
    for (i, part) in parameters.split('"').enumerate() {
        if i > 0 {
            text.push('"');
        }
        let begins_another = !in_quotes && i > 0 && part.trim_start().starts_with(char::is_alphabetic);
        if begins_another {
            text.push(',');
        }
        text.push_str(part);
        in_quotes = !in_quotes;
    }
    text
}

/// The header `Authorization` for a request.
pub(super) fn authorization(
    challenge: &mut PasswordClient,
    login: &Login,
    request: &Message,
) -> Option<String> {
    let answered = challenge.respond(&PasswordParams {
        username: &login.username,
        password: login.password.expose(),
        uri: request.uri(),
        method: request.method(),
        // With it, a digest would be made by `auth-int`, which cameras announce and do not know.
        body: None,
    });
    let mut value = answered.ok()?;
    // Without it, a camera takes the digest for one by MD5.
    if let PasswordClient::Digest(digest) = challenge
        && digest.rfc2069_compat()
        && let Some(name) = algorithm_name(digest)
    {
        value.push_str(", algorithm=");
        value.push_str(name);
    }
    Some(value)
}

/// The name of an algorithm other than MD5 (RFC 7616, section 3.3).
fn algorithm_name(digest: &DigestClient) -> Option<&'static str> {
    match (digest.algorithm(), digest.session()) {
        (Algorithm::Sha256, false) => Some("SHA-256"),
        (Algorithm::Sha256, true) => Some("SHA-256-sess"),
        (Algorithm::Sha512Trunc256, false) => Some("SHA-512-256"),
        (Algorithm::Sha512Trunc256, true) => Some("SHA-512-256-sess"),
        _ => None,
    }
}

/// The login methods that `WWW-Authenticate` headers name, such as `NTLM` or `Digest with algorithm=SHA-512`.
fn methods<'a>(headers: impl Iterator<Item = &'a str>) -> String {
    let named = headers.flat_map(|value| {
        let Ok(challenges) = http_auth::parse_challenges(value) else {
            let scheme = value.split_whitespace().next().unwrap_or_default();
            return vec![format!("{scheme} in a form")];
        };
        let challenges = challenges.into_iter().map(|challenge| {
            let algorithm = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case("algorithm"));
            match algorithm {
                Some((_, algorithm)) => format!("{} with {}", challenge.scheme, algorithm.to_unescaped()),
                None => challenge.scheme.to_owned(),
            }
        });
        challenges.collect()
    });
    let named: Vec<String> = named.collect();
    if named.is_empty() { "a method that it does not name".into() } else { named.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn answer(offered: &[&str]) -> String {
        let login = Login { username: "viewer".into(), password: Secret::new("secret") };
        let request = Message::request("DESCRIBE", "rtsp://camera/live");
        authorization(&mut challenge(offered).unwrap(), &login, &request).unwrap()
    }

    #[test]
    fn challenges_are_answered_however_cameras_write_them() {
        let digest = "Digest username=\"viewer\", realm=\"IPC\"";
        for (offered, expected) in [
            ("Basic realm=\"IPC\"", "Basic dmlld2VyOnNlY3JldA=="),
            ("Basic", "Basic dmlld2VyOnNlY3JldA=="),
            ("Digest realm=\"IPC\", nonce=\"12\"", digest),
            ("Digest realm=\"IPC\" nonce=\"12\" stale=FALSE", digest),
        ] {
            assert!(answer(&[offered]).starts_with(expected), "{offered}: {}", answer(&[offered]));
        }
    }

    #[test]
    fn of_two_kinds_of_digest_the_one_without_the_body_is_made() {
        let answer = answer(&["Digest realm=\"IPC\",nonce=\"12\", qop=\"auth,auth-int\""]);
        assert!(answer.contains("qop=auth,"), "{answer}");
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(challenge(&["NTLM"]).err(), Some("NTLM".into()));
        assert_eq!(
            challenge(&["Digest realm=\"IPC\", nonce=\"12\", algorithm=SHA-512"]).err(),
            Some("Digest with SHA-512".into())
        );
    }
}
