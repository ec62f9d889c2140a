//! `camscribe check` by root is run again as the service: as its user and with its limits and credentials. What root may
//! read, the service may not, and what root writes, the service cannot replace.

use std::{
    env, io,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use rustix::process::geteuid;

use crate::logging::tell;

/// The unit of the service.
const UNIT: &str = "camscribe.service";

/// There is a systemd to ask if this exists (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// What a unit may have that matters to a check, and that systemd-run takes as `systemctl show` writes it.
const PROPERTIES: [&str; 18] = [
    "User",
    "Group",
    "SupplementaryGroups",
    "StateDirectory",
    "CacheDirectory",
    "ConfigurationDirectory",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "Environment",
    "EnvironmentFiles",
    "UMask",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "ReadWritePaths",
    "InaccessiblePaths",
    "DevicePolicy",
    "DeviceAllow",
];

/// Runs this program with these arguments as the service, if root runs it where the service is installed. `None`: nothing
/// was run.
///
/// # Errors
/// When systemd cannot be asked.
pub fn run_as_service(arguments: impl Iterator<Item = String>) -> io::Result<Option<ExitStatus>> {
    if !geteuid().is_root() || !Path::new(BOOTED).exists() {
        return Ok(None);
    }
    let shown = Command::new("systemctl")
        .args(["show", UNIT, "--property=LoadState"])
        .arg(format!("--property={}", PROPERTIES.join(",")))
        .stderr(Stdio::null())
        .output()?;
    let shown = String::from_utf8_lossy(&shown.stdout);
    let Some((user, properties)) = properties(&shown) else { return Ok(None) };
    tell(format_args!("checking as the service does: as user {user}, with the limits of {UNIT}"));
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"]);
    command.args(properties.iter().map(|property| format!("--property={property}")));
    command.arg("--").arg(env::current_exe()?).args(arguments).status().map(Some)
}

/// The user of a unit and its properties as systemd-run takes them, from what `systemctl show` writes. `None`: there is
/// no such unit, or it is root's.
fn properties(shown: &str) -> Option<(String, Vec<String>)> {
    let lines: Vec<_> = shown.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| lines.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let user = value("User").filter(|user| !user.is_empty() && *user != "root")?;
    if value("LoadState") != Some("loaded") {
        return None;
    }
    let set = lines.iter().filter(|(key, value)| PROPERTIES.contains(key) && !value.is_empty());
    let property = |(key, value): &(&str, &str)| match *key {
        // Shown as `/path (ignore_errors=yes)`.
        "EnvironmentFiles" => {
            let (path, rest) = value.split_once(" (").unwrap_or((value, ""));
            let optional = if rest.contains("ignore_errors=yes") { "-" } else { "" };
            format!("EnvironmentFile={optional}{path}")
        }
        _ => format!("{key}={value}"),
    };
    Some((user.into(), set.map(property).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_shown_as_systemd_run_takes_it() {
        let shown = "LoadState=loaded\nUser=camscribe\nGroup=camscribe\nSupplementaryGroups=video render\n\
                     EnvironmentFiles=/etc/default/camscribe (ignore_errors=yes)\nLoadCredential=\n\
                     LoadCredential=mqtt:/etc/camscribe/mqtt\nProtectHome=yes\nDeviceAllow=char-drm rw\n\
                     DeviceAllow=char-nvidia rw\nUMask=0077\n";
        let (user, properties) = properties(shown).unwrap();
        assert_eq!(user, "camscribe");
        assert_eq!(
            properties,
            [
                "User=camscribe",
                "Group=camscribe",
                "SupplementaryGroups=video render",
                "EnvironmentFile=-/etc/default/camscribe",
                "LoadCredential=mqtt:/etc/camscribe/mqtt",
                "ProtectHome=yes",
                "DeviceAllow=char-drm rw",
                "DeviceAllow=char-nvidia rw",
                "UMask=0077"
            ]
        );
    }

    #[test]
    fn a_unit_that_is_missing_or_roots_is_not_used() {
        assert_eq!(properties("LoadState=not-found\nUser=\n"), None);
        assert_eq!(properties("LoadState=loaded\nUser=root\n"), None);
    }
}
