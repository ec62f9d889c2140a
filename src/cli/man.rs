//! `camscribe man`: the manual page, made from the command line's own definitions so that it
//! cannot fall behind them. Hidden: it is for those who package camscribe.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;

use super::Cli;

/// What stands behind the commands. roff: a line that begins with a dot is an instruction.
const REST: &str = r#".SH SIGNALS
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
What is under way is finished and delivered; a second one ends at once.
.TP
\fBSIGHUP\fR
\fBcamscribe run\fR reads its configuration again. Cameras that did not change go on.
.SH FILES
.TP
\fI/etc/camscribe/camscribe.toml\fR
The configuration; every key is explained there. \fBCAMSCRIBE__SECTION__KEY\fR in the environment goes before it.
.TP
\fI/etc/camscribe/pipelines/\fR
GStreamer pipelines of your own.
.SH EXIT STATUS
0 done, 1 failed while running, 2 wrong usage, 78 wrong configuration.
.SH SEE ALSO
.BR systemctl (1),
.BR gst-inspect-1.0 (1),
.BR mosquitto_sub (1)
"#;

/// Prints one page for all commands.
///
/// # Errors
/// When nothing can be written.
pub fn print() -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).manual("camscribe manual");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        let man = Man::new(command.clone());
        writeln!(page, ".SH CAMSCRIBE {}", command.get_name().to_uppercase())?;
        let mut sections = Vec::new();
        man.render_synopsis_section(&mut sections)?;
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        // Parts of the command's own section, not sections of the page.
        page.extend(String::from_utf8_lossy(&sections).replace("\n.SH ", "\n.SS ").bytes());
    }
    page.extend_from_slice(REST.as_bytes());
    io::stdout().write_all(&page)?;
    Ok(())
}
