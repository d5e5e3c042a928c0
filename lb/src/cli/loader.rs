//! Where the configuration comes from: flags, laid over a file.
//!
//! Owns which file is read, at the start and at each reload.

use std::{
    fs,
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::config::{self, Api, Config, File, Problems};

/// The files that are looked for in the current folder, in this order.
const NAMES: [&str; 10] = [
    "lb.yaml",
    "lb.yml",
    "lb.json",
    "servers.yaml",
    "servers.yml",
    "servers.json",
    "config.yaml",
    "config.yml",
    "config.json",
    "server_db.json",
];

/// Loads the configuration, as often as wanted.
#[derive(Debug)]
pub struct Loader {
    flags: File,
    inherited: Inherited,
    no_api: bool,
    /// Once it is known it stays: a reload reads no other file.
    source: OnceLock<PathBuf>,
}

/// Listening sockets that others have made, by number.
#[derive(Debug)]
pub(super) enum Inherited {
    /// Somebody named these.
    Named(Vec<RawFd>),
    /// They are here; what the file says goes first.
    Unasked(Vec<RawFd>),
}

impl Default for Inherited {
    fn default() -> Self {
        Inherited::Named(Vec::new())
    }
}

impl Loader {
    /// Flags, and the file that they name.
    pub(super) fn new(flags: File, named: Option<PathBuf>) -> Loader {
        let source = named.map(OnceLock::from).unwrap_or_default();
        Loader { flags, inherited: Inherited::default(), no_api: false, source }
    }

    /// The same, listening on these.
    pub(super) fn inheriting(self, inherited: Inherited) -> Loader {
        Loader { inherited, ..self }
    }

    /// The same, without an admin API whatever the file says.
    pub(super) fn without_api(self, no_api: bool) -> Loader {
        Loader { no_api, ..self }
    }

    /// The file that is read. Without a name and servers on the command line
    /// it is the first of those that this folder has; `None` if there is none,
    /// which may be different the next time.
    pub fn source(&self) -> Option<&Path> {
        if self.source.get().is_none()
            && self.flags.servers.is_none()
            && let Some(found) = found()
        {
            // Who looks at the same time finds the same.
            let _ = self.source.set(found);
        }
        self.source.get().map(PathBuf::as_path)
    }

    /// The configuration: flags, over what the file says now.
    ///
    /// # Errors
    /// The file cannot be read, or there are mistakes in it.
    pub fn load(&self) -> Result<Config, Problems> {
        let file = self.source().map(config::read).transpose()?;
        Ok(self.laid_over(file.unwrap_or_default()))
    }

    /// The same, of the file that is `open` already.
    ///
    /// # Errors
    /// There are mistakes in it.
    pub fn load_open(&self, open: fs::File) -> Result<Config, Problems> {
        let name = self.source().map(|path| path.display().to_string()).unwrap_or_default();
        Ok(self.laid_over(config::read_from(Ok(open), &name)?))
    }

    fn laid_over(&self, file: File) -> Config {
        let source = self.source();
        let said = file.listen.is_some();
        let mut config = self.flags.clone().over(file).into_config(source.map(Path::to_path_buf));
        match &self.inherited {
            Inherited::Unasked(_) if said => {}
            Inherited::Named(sockets) | Inherited::Unasked(sockets) => {
                config.inherited.clone_from(sockets);
            }
        }
        if self.no_api {
            config.api = Api::default();
        }
        config
    }
}

/// The first file of the usual names that this folder has.
pub(super) fn found() -> Option<PathBuf> {
    NAMES.iter().map(PathBuf::from).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Task};

    #[track_caller]
    fn loader(flags: &[&str]) -> Loader {
        let cli = Cli::try_parse_from([&["lb"], flags].concat()).unwrap();
        let Ok(Task::Listen(loader)) = cli.into_task() else { panic!("{flags:?}") };
        *loader
    }

    /// These flags say the same as a file with `text`, and win over one that
    /// says `other`.
    #[track_caller]
    fn same(flags: &[&str], text: &str, other: &str) {
        let folder = tempfile::tempdir().unwrap();
        let [path, other_path] = ["lb.yaml", "other.yaml"].map(|name| folder.path().join(name));
        let servers = if text.contains("servers") { "" } else { "servers: [a:1]\n" };
        fs::write(&path, format!("{servers}{text}")).unwrap();
        fs::write(&other_path, format!("{servers}{other}")).unwrap();
        let load = |path: &Path, flags: &[&str]| {
            let config = ["--config", path.to_str().unwrap()];
            let config = loader(&[&config, flags].concat()).load().unwrap();
            format!("{:?}", Config { source: None, ..config })
        };
        let said = load(&path, &[]);
        assert_eq!(load(&other_path, flags), said, "{flags:?}");
        assert_ne!(load(&other_path, &[]), said, "{other:?} is no other than {text:?}");
    }

    #[test]
    fn each_flag_has_a_key_and_wins_over_it() {
        same(&["--port", "81"], "listen: 81", "listen: 82");
        same(&["81"], "listen: 81", "listen: 82");
        same(&["--port", "81"], "listen: '[::1]:81'", "listen: '[::1]:82'");
        same(&["--bind", "::1"], "listen: '[::1]:81'", "listen: 0.0.0.0:81");
        same(&["--bind", "::1"], "listen: '[::1]:81'", "listen: 81");
        same(&["--algorithm", "hash"], "algorithm: hash", "algorithm: random");
        same(&["--when-all-down", "refuse"], "when_all_down: refuse", "when_all_down: try_anyway");
        same(&["--retry-status", "502-504"], "retry_status: 502-504", "retry_status: 500");
        same(&["--fresh-posts"], "fresh_posts: true", "fresh_posts: false");
        same(&["--max-body", "1k"], "max_body: 1024", "max_body: 2k");
        same(&["--max-connections", "9"], "max_connections: 9", "max_connections: 8");
        same(
            &["--trusted-proxy", "::1", "--trusted-proxy", "10.0.0.0/8"],
            "trusted_proxies: ['::1', 10.0.0.0/8]",
            "trusted_proxies: ['::2']",
        );
        same(&["--workers", "3"], "workers: 3", "workers: 5");
        same(&["--debug"], "debug: true", "debug: false");
        same(
            &["--backend", "b:1,weight=2", "--backend", "c:1"],
            "servers: [{url: b:1, weight: 2}, c:1]",
            "servers: [d:1]",
        );
    }

    #[test]
    fn each_flag_of_the_api_and_the_logs_has_a_key() {
        same(&["--api-port", "81"], "api: {port: 81}", "api: {port: 82}");
        same(&["--api-port", "off"], "api: {port: off}", "api: {port: 82}");
        same(&["--api-bind", "::1"], "api: {bind: '::1'}", "api: {bind: 127.0.0.1}");
        same(&["--api-socket", "a"], "api: {socket: a}", "api: {socket: b}");
        same(&["--api-host", "a"], "api: {hosts: [a]}", "api: {hosts: [b]}");
        same(&["--api-token-file", "a"], "api: {token_file: a}", "api: {token_file: b}");
        same(&["--access-log", "off"], "logs: {access: off}", "logs: {access: '-'}");
        same(&["--log-format", "json"], "logs: {format: json}", "logs: {format: text}");
        same(&["--log-level", "off"], "logs: {level: off}", "logs: {level: info}");
    }

    #[test]
    fn each_flag_of_health_and_timeouts_has_a_key() {
        for (flag, key, value, other) in [
            ("--health-path", "path", "/a", "/b"),
            ("--health-period", "period", "3", "4"),
            ("--health-timeout", "timeout", "500ms", "1"),
            ("--health-expect", "expect", "200-399", "201"),
            ("--rise", "rise", "2", "3"),
            ("--fall", "fall", "2", "3"),
        ] {
            let [text, other] = [value, other].map(|value| format!("health: {{{key}: {value}}}"));
            same(&[flag, value], &text, &other);
        }
        for (flag, key) in [
            ("--connect-timeout", "connect"),
            ("--head-timeout", "head"),
            ("--idle-timeout", "idle"),
            ("--response-timeout", "response"),
            ("--body-timeout", "body"),
            ("--deadline", "deadline"),
            ("--drain-timeout", "drain"),
        ] {
            let [text, other] = ["7s", "8s"].map(|value| format!("timeouts: {{{key}: {value}}}"));
            same(&[flag, "7s"], &text, &other);
        }
    }

    #[test]
    fn each_load_reads_the_same_file_anew_and_keeps_the_flags() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.yaml");
        let loader = loader(&["--config", path.to_str().unwrap(), "--workers", "3"]);
        assert!(loader.load().unwrap_err().to_string().ends_with(": there is no such file"));
        for port in [81, 82] {
            fs::write(&path, format!("listen: {port}\nworkers: 5\nservers: []\n")).unwrap();
            let config = loader.load().unwrap();
            assert_eq!((config.port, config.workers), (port, 3));
            assert_eq!(config.source.as_deref(), Some(&*path));
        }
        fs::write(&path, "listen: [").unwrap();
        assert!(loader.load().is_err());
        fs::remove_file(&path).unwrap();
        assert!(loader.load().is_err());
    }
}
