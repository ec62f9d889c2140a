//! `camscribe man`: the manual page, generated from the command line's definition so that the two cannot
//! differ. Hidden: it is for packaging.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::Cli;

/// The sections after the commands, in roff: a line that begins with a dot is an instruction.
const REST: &str = r#".SH SIGNALS
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
Clips that wait are described and delivered before camscribe ends; a second signal ends it at once.
.TP
\fBSIGHUP\fR
\fBcamscribe run\fR reads its configuration again. Cameras that did not change continue.
.SH FILES
.TP
\fI/etc/camscribe/camscribe.toml\fR
The configuration; every key is explained there. \fBCAMSCRIBE__SECTION__KEY\fR in the environment takes precedence.
.TP
\fI/etc/camscribe/conf.d/*.toml\fR
Read after it, in the order of their names.
.TP
\fI/etc/camscribe/pipelines/\fR
Your own GStreamer pipelines.
.TP
\fI/etc/default/camscribe\fR
Variables for the service, one a line.
.TP
\fI/var/lib/camscribe/\fR, \fI/var/cache/camscribe/\fR
What the service keeps: the outbox, the history and settings made over MQTT; models.
.SH ENVIRONMENT
.TP
\fBRUST_LOG\fR
What is logged, such as \fBdebug\fR.
.TP
\fBSTATE_DIRECTORY\fR, \fBCACHE_DIRECTORY\fR, \fBCREDENTIALS_DIRECTORY\fR
Where state, models and passwords are; systemd sets them.
.TP
\fBHF_TOKEN\fR, \fBHF_ENDPOINT\fR, \fBHF_HOME\fR
The hub that models are pulled from, and its cache.
.SH EXIT STATUS
0 success, 1 failure at run time, 2 wrong usage, 78 wrong configuration or a model that was not pulled, 130 or 143 stopped
by a signal.
.SH SEE ALSO
.BR systemctl (1),
.BR gst-inspect-1.0 (1),
.BR mosquitto_sub (1)
"#;

/// Writes a section for each command below `command`, and for those below these. `name` is what the titles begin with.
fn sections(command: &Command, name: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for command in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        let man = Man::new(command.clone());
        let name = format!("{name} {}", command.get_name().to_uppercase());
        writeln!(page, ".SH {name}")?;
        let mut parts = Vec::new();
        man.render_synopsis_section(&mut parts)?;
        man.render_description_section(&mut parts)?;
        man.render_options_section(&mut parts)?;
        // They become subsections of the command's section.
        page.extend(String::from_utf8_lossy(&parts).replace("\n.SH ", "\n.SS ").bytes());
        sections(command, &name, page)?;
    }
    Ok(())
}

/// Prints one page for all commands.
///
/// # Errors
/// When it cannot be written.
pub fn run() -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).manual("camscribe manual");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    sections(&command, "CAMSCRIBE", &mut page)?;
    page.extend_from_slice(REST.as_bytes());
    io::stdout().write_all(&page)?;
    Ok(())
}
