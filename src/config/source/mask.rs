//! Hides passwords in URIs, for logs and error messages.

/// A path segment of at least this many bytes may be a token.
const TOKEN_LENGTH: usize = 12;

/// Schemes whose URIs hold no secrets.
const PUBLIC_SCHEMES: [&str; 2] = ["file", "test"];

/// Returns `text` with everything hidden that may be a password. Works on text that does not parse.
///
/// Everything between `://` and the last `@` is hidden, because a password may itself contain `@` or `/`.
/// Some cameras take the password in the path or the query, and others use a long random path as the
/// password. So the query is hidden, and so is every path segment that contains `=`, or that is long and
/// not a lower-case word.
pub fn mask(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let (hidden, rest) = rest.rfind('@').map_or(("", rest), |at| ("***", &rest[at..]));
    if PUBLIC_SCHEMES.iter().any(|public| scheme.eq_ignore_ascii_case(public)) {
        return format!("{scheme}://{hidden}{rest}");
    }
    let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, _)| (path, "?***"));
    let is_plain = |part: &str| part.len() < TOKEN_LENGTH || part.bytes().all(|b| b.is_ascii_lowercase());
    // The first segment is the host, which is no secret.
    let shown = |(i, part)| if i > 0 && !is_plain(part) || str::contains(part, '=') { "***" } else { part };
    let path = path.split('/').enumerate().map(shown).collect::<Vec<_>>().join("/");
    format!("{scheme}://{hidden}{path}{query}")
}
