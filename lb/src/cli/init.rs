//! `lb init`: a configuration file to start from.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Args;

/// What is written.
const STARTING_FILE: &str = include_str!("starting.yaml");

/// Where to write.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The file, which must not exist yet; - is standard output.
    #[arg(default_value = "lb.yaml")]
    file: PathBuf,
}

impl InitArgs {
    /// Writes the file, and says so on standard output.
    ///
    /// # Errors
    /// There is such a file already, which stays as it is, or it cannot be
    /// written.
    pub fn run(self) -> Result<ExitCode> {
        if self.file.as_os_str() == "-" {
            io::stdout().write_all(STARTING_FILE.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        let name = self.file.display();
        let file = match File::create_new(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{name} exists already and stays as it is; name another file");
            }
            Err(error) => return Err(error).with_context(|| format!("cannot create {name}")),
        };
        fill(file, &self.file).with_context(|| format!("cannot write {name}"))?;
        writeln!(
            io::stdout(),
            "wrote {name}: name your servers there, then run lb --config {name}"
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes all of it, or leaves nothing behind.
fn fill(mut file: File, path: &Path) -> io::Result<()> {
    let written = file.write_all(STARTING_FILE.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{read_from, schema};

    #[track_caller]
    fn check(text: &str) {
        if let Err(problems) = read_from(Ok(text.as_bytes()), "lb.yaml") {
            panic!("{problems}\n{text}");
        }
    }

    /// The file with these lines taken as they would be without their `#`.
    fn uncommented(wanted: impl Fn(usize) -> bool) -> String {
        let line = |(number, line): (usize, &str)| {
            if wanted(number) { line.replacen('#', "", 1) } else { line.into() }
        };
        STARTING_FILE.lines().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The lines that are options: `#` and a key without a space between.
    fn options() -> Vec<usize> {
        let is_option = |line: &str| {
            let rest = line.trim_start().strip_prefix('#');
            let key = rest.and_then(|rest| rest.split_once(':')).map(|(key, _)| key.trim_start());
            let begins = rest.is_some_and(|rest| rest.starts_with("  ") || !rest.starts_with(' '));
            begins && key.is_some_and(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        };
        let lines = STARTING_FILE.lines().enumerate();
        lines.filter(|(_, line)| is_option(line)).map(|(number, _)| number).collect()
    }

    #[test]
    fn it_is_good_as_it_is_and_with_each_option_taken() {
        check(STARTING_FILE);
        let options = options();
        check(&uncommented(|number| options.contains(&number)));
        let lines: Vec<_> = STARTING_FILE.lines().collect();
        for option in &options {
            // What is in a mapping needs its head.
            let inner = lines[*option].starts_with("#  ");
            let head = options
                .iter()
                .rev()
                .find(|head| *head < option && !lines[**head].starts_with("#  "));
            let with_head = |number| number == *option || inner && Some(&number) == head;
            check(&uncommented(with_head));
        }
    }

    #[test]
    fn it_has_every_key() {
        let all = uncommented(|number| options().contains(&number));
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        // Other ways to say the same.
        let older = ["Servers", "server_list", "host", "port", "id"];
        for (name, mapping) in schema["definitions"].as_object().unwrap() {
            let keys = mapping["properties"].as_object().unwrap().keys();
            for key in keys.filter(|key| !older.contains(&key.as_str())) {
                let has = |line: &str| {
                    line.trim_start_matches([' ', '-']).starts_with(&format!("{key}:"))
                };
                assert!(all.lines().any(has), "{name} has {key}");
            }
        }
    }
}
