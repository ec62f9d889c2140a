//! The keys of a section that name files of secrets: `username` with `password_file`, and others.

use super::{
    diagnostic::Diagnostics,
    secret::{self, Login, Secret},
    section::Section,
};

/// The login of a checked section: `username` and the content of `password_file`. `None`: neither is
/// set, or only one, which is an error.
pub fn read(section: &Section, diagnostics: &mut Diagnostics) -> Option<Login> {
    let username = match (section.optional("username"), section.optional("password_file")) {
        (None, None) => return None,
        (Some(username), Some(_)) => username,
        (Some(_), None) => {
            diagnostics.error(&section.entry("username").location, "needs password_file beside it");
            return None;
        }
        (None, Some(_)) => {
            diagnostics.error(&section.entry("password_file").location, "needs username beside it");
            return None;
        }
    };
    let password = secret(section, "password_file", diagnostics)?;
    Some(Login { username: username.into(), password })
}

/// The secret that the key `name` of a checked section names a file of; empty if that cannot be read, which is an
/// error. `None`: the key is not set.
pub fn secret(section: &Section, name: &str, diagnostics: &mut Diagnostics) -> Option<Secret> {
    let file = section.optional(name)?;
    let location = &section.entry(name).location;
    match secret::find(file) {
        Ok((secret, warnings)) => {
            warnings.into_iter().for_each(|warning| diagnostics.warning(location, warning));
            return Some(secret);
        }
        Err(why) if secret::is_credential(file) => {
            diagnostics.credential_error(section.path(), location, why)
        }
        Err(why) => diagnostics.error(location, why),
    }
    Some(Secret::new(""))
}
