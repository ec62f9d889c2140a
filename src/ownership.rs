//! Whose files camscribe makes: what root makes in a folder of the service, the service must be able to use.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::process::geteuid;

/// Gives an open file the owner of the folder that it is in, if this is root.
///
/// # Errors
/// When the owner cannot be read or changed.
pub fn give_to_owner_of(folder: &Path, file: &File) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(folder)?;
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// The name of the user that this process runs as, or the number of one without a name.
pub fn user() -> String {
    let uid = geteuid().as_raw();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::lchown;

    use super::*;

    #[test]
    fn what_root_makes_in_a_folder_of_another_user_is_that_users() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("file")).unwrap();
        let is_root = geteuid().is_root();
        assert_eq!(user() == "root", is_root);
        if is_root {
            lchown(folder.path(), Some(12345), Some(12346)).unwrap();
        }
        give_to_owner_of(folder.path(), &file).unwrap();
        let (folder, file) = (fs::metadata(folder.path()).unwrap(), file.metadata().unwrap());
        assert_eq!((file.uid(), file.gid()), (folder.uid(), folder.gid()));
    }
}
