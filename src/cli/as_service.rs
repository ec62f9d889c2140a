//! `camscribe check` by root is run again as the service: with its user, credentials, folders and devices. What root may
//! read, the service may not, and what root writes, the service cannot replace.

use std::{
    env,
    io::{self, BufRead, BufReader},
    ops::RangeInclusive,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use rustix::process::geteuid;

use crate::logging::{tell, tell_error};

/// The unit of the service.
const UNIT: &str = "camscribe.service";

/// There is a systemd to ask if this exists (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// The exit codes that systemd itself gives where it cannot start a program (systemd.exec(5)).
const START_FAILURES: RangeInclusive<i32> = 200..=245;

/// What matters to a check of what a unit's `[Service]` may set. systemd-run takes each as a unit file has it.
const PROPERTIES: [&str; 31] = [
    "User",
    "Group",
    "SupplementaryGroups",
    "StateDirectory",
    "StateDirectoryMode",
    "CacheDirectory",
    "CacheDirectoryMode",
    "ConfigurationDirectory",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "Environment",
    "EnvironmentFile",
    "UMask",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateNetwork",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "InaccessiblePaths",
    "BindPaths",
    "BindReadOnlyPaths",
    "TemporaryFileSystem",
    "DevicePolicy",
    "DeviceAllow",
    "RestrictAddressFamilies",
    "IPAddressAllow",
    "IPAddressDeny",
    "SystemCallArchitectures",
];

/// Specifiers of unit files in a service of the system (systemd.unit(5)), which systemd-run does not expand.
const SPECIFIERS: [(&str, &str); 5] =
    [("%C", "/var/cache"), ("%S", "/var/lib"), ("%E", "/etc"), ("%t", "/run"), ("%%", "%")];

/// Whether a variable of the caller is passed on: it changes what is checked or told.
fn is_passed_on(variable: &str) -> bool {
    matches!(variable, "RUST_LOG" | "GST_DEBUG") || variable.starts_with("CAMSCRIBE__")
}

/// Runs this program with these arguments as the service, if root runs it where the service is installed. `None`: nothing
/// was run.
///
/// # Errors
/// When systemd cannot be asked.
pub fn run_as_service(arguments: impl Iterator<Item = String>) -> io::Result<Option<ExitStatus>> {
    if !geteuid().is_root() || !Path::new(BOOTED).exists() {
        return Ok(None);
    }
    let unit = Command::new("systemctl").args(["cat", UNIT]).stderr(Stdio::null()).output()?;
    let Some((user, properties)) = properties(&String::from_utf8_lossy(&unit.stdout)) else {
        return Ok(None);
    };
    tell(format_args!(
        "checking as the service: user {user}, with the credentials, folders and devices of {UNIT}"
    ));
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"]);
    command.args(properties.iter().map(|property| format!("--property={property}")));
    let variables = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    // Without the value: systemd-run takes it from its own environment, so that no process list shows it.
    command.args(variables.filter(|name| is_passed_on(name)).map(|name| format!("--setenv={name}")));
    command.arg("--").arg(env::current_exe()?).args(arguments).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Passed on from here, so that the journal has the words of a reload's check under the service's name.
    let words = child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines());
    words.map_while(Result::ok).for_each(|line| match line.starts_with("warning: ") {
        true => tell(line),
        false => tell_error(line),
    });
    let status = child.wait()?;
    if let Some(code) = status.code().filter(|code| START_FAILURES.contains(code)) {
        let advice = match code {
            243 => "does the file of each LoadCredential= exist?",
            216 | 217 => "do the user and the groups of the unit exist?",
            _ => "systemd.exec(5) says what the number means",
        };
        tell_error(format_args!("error: systemd cannot start {UNIT} (exit status {code}): {advice}"));
    }
    Ok(Some(status))
}

/// The user of a unit and its properties as systemd-run takes them, of a unit file and its drop-ins as `systemctl cat`
/// writes them. `None`: there is no such unit, or it is root's.
fn properties(unit: &str) -> Option<(String, Vec<String>)> {
    let mut in_service = false;
    let (mut user, mut properties) = (None, Vec::new());
    for line in unit.lines().map(str::trim) {
        if line.starts_with('[') {
            in_service = line == "[Service]";
        }
        let Some((name, value)) = line.split_once('=').filter(|_| in_service) else { continue };
        let name = name.trim_end();
        if PROPERTIES.contains(&name) {
            let value = expand(value.trim_start());
            if name == "User" {
                user = Some(value.clone()).filter(|user| !user.is_empty() && user != "root");
            }
            properties.push(format!("{name}={value}"));
        }
    }
    Some((user?, properties))
}

/// Replaces the specifiers.
fn expand(value: &str) -> String {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        expanded += &rest[..at];
        let known = SPECIFIERS.iter().find(|(specifier, _)| rest[at..].starts_with(specifier));
        let (written, meaning) = known.unwrap_or(&("%", "%"));
        expanded += meaning;
        rest = &rest[at + written.len()..];
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_and_its_drop_ins_are_passed_as_they_are_written() {
        let unit = "# /usr/lib/systemd/system/camscribe.service\n[Unit]\nDescription=User=nobody\n\n[Service]\n\
                    Type=notify\nExecStart=/usr/bin/camscribe run\nUser=camscribe\nStateDirectory=camscribe\n\
                    StateDirectoryMode=0750\nEnvironment=XDG_CACHE_HOME=%C/camscribe\n#LoadCredential=no:/no\n\
                    DeviceAllow=char-drm rw\nWatchdogSec=5min\n\n\
                    # /etc/systemd/system/camscribe.service.d/override.conf\n[Service]\n\
                    LoadCredential=mqtt:/etc/camscribe/100%%\n[Install]\nUser=root\n";
        let (user, properties) = properties(unit).unwrap();
        assert_eq!(user, "camscribe");
        assert_eq!(
            properties,
            [
                "User=camscribe",
                "StateDirectory=camscribe",
                "StateDirectoryMode=0750",
                "Environment=XDG_CACHE_HOME=/var/cache/camscribe",
                "DeviceAllow=char-drm rw",
                "LoadCredential=mqtt:/etc/camscribe/100%"
            ]
        );
    }

    #[test]
    fn a_unit_that_is_missing_or_roots_is_not_used() {
        assert_eq!(properties(""), None);
        assert_eq!(properties("[Service]\nUser=root\n"), None);
    }

    #[test]
    fn every_property_of_our_unit_that_matters_is_known() {
        let unit = include_str!("../../systemd/camscribe.service");
        let (user, properties) = properties(unit).unwrap();
        assert_eq!(user, "camscribe");
        assert!(properties.iter().any(|property| property == "CacheDirectoryMode=0750"), "{properties:?}");
        assert!(properties.iter().all(|property| !property.contains('%')), "{properties:?}");
    }
}
