//! What is made from the definition of the command line: completions for
//! shells, and the manual page.
//!
//! Owns what the manual says beyond that definition: signals, environment and
//! exit codes.

use std::io;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::cli::Cli;

/// The completions of `lb` for `shell`.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "lb", &mut text);
    text
}

/// The manual page lb(1), in roff.
///
/// # Errors
/// None: it is written to memory.
pub fn manual() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(Cli::command()).manual("User Commands").render(&mut text)?;
    text.extend_from_slice(MORE.as_bytes());
    Ok(text)
}

const MORE: &str = r#".SH SIGNALS
.TP
SIGTERM, SIGINT
Finish what is in flight, for at most \fB\-\-drain\-timeout\fR, and end. A second one ends at once.
.TP
SIGHUP
Read the configuration file again. One that is wrong changes nothing.
.TP
SIGUSR1
Open the file of \fB\-\-access\-log\fR anew, after it was renamed.
.SH ENVIRONMENT
.TP
LB_API_TOKEN
The token of the admin API, where \fB\-\-api\-token\-file\fR names no file; the commands show it, too.
.TP
RUST_LOG
What goes to standard error, in the syntax of tracing\-subscriber: \fBwarn\fR, or \fBinfo,lb::health=debug\fR. Wins over \fB\-\-log\-level\fR.
.TP
LISTEN_FDS, LISTEN_PID
Listening sockets made by a service manager, see \fBsd_listen_fds\fR(3).
.TP
NOTIFY_SOCKET
Where the service manager is told that requests are served, or no longer; see \fBsd_notify\fR(3).
.SH "EXIT STATUS"
.TP
0
It was stopped by a signal, and what was in flight is finished.
.TP
1
It cannot run; standard error says why.
.TP
2
The command line is wrong.
.TP
130, 143
It was ended by a second SIGINT or SIGTERM.
"#;
