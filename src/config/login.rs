//! The keys `username` and `password_file` of a section.

use super::{
    diagnostic::Diagnostics,
    secret::{self, Login, Secret},
    section::Section,
};

/// The login of a checked section: `username` and the content of `password_file`. `None`: neither is
/// set, or only one, which is an error.
pub fn read(section: &Section, diagnostics: &mut Diagnostics) -> Option<Login> {
    let (username, file) = match (section.optional("username"), section.optional("password_file")) {
        (None, None) => return None,
        (Some(username), Some(file)) => (username, file),
        (Some(_), None) => {
            diagnostics.error(&section.entry("username").location, "needs password_file beside it");
            return None;
        }
        (None, Some(_)) => {
            diagnostics.error(&section.entry("password_file").location, "needs username beside it");
            return None;
        }
    };
    let location = &section.entry("password_file").location;
    let password = match secret::find(file) {
        Ok((password, warnings)) => {
            warnings.into_iter().for_each(|warning| diagnostics.warning(location, warning));
            password
        }
        Err(why) => {
            if secret::is_credential(file) {
                diagnostics.credential_error(section.path(), location, why);
            } else {
                diagnostics.error(location, why);
            }
            Secret::new("")
        }
    };
    Some(Login { username: username.into(), password })
}
