//! Builds the workspace's programs and says where they are.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The programs that scenarios start.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The balancer.
    pub(crate) lb: PathBuf,
    /// The sample backend.
    pub(crate) be: PathBuf,
}

/// Builds `lb` and `be`, so that what is tested is what the sources say.
///
/// # Errors
/// They do not compile, or cargo cannot be run.
pub(crate) fn build(release: bool) -> Result<Programs> {
    let mut command = cargo(&workspace());
    command.args(["build", "--quiet"]).args(match release {
        true => ["--release", "--package=lb", "--package=testbed", "--bins"].as_slice(),
        // Of the whole workspace, for the features that xtask was built with:
        // for those of two packages, each library would compile once more.
        false => &["--bin=lb", "--bin=be"],
    });
    let status = command.stdin(Stdio::null()).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the programs do not compile");
    }
    Ok(places(release))
}

/// Where `lb` and `be` are, once they are built.
pub(crate) fn places(release: bool) -> Programs {
    let profile = if release { "release" } else { "debug" };
    let folder = target_folder().join(profile);
    Programs { lb: folder.join("lb"), be: folder.join("be") }
}

/// Cargo, in `folder`.
pub(crate) fn cargo(folder: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(folder);
    command
}

/// The file of a program: a path as it is, a name on the path or where
/// administrators' programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let servers = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    folders.chain(servers).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The version that `program` tells when it is called with `arguments`; none if
/// it cannot be run, or says none.
pub(crate) fn version(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    // nginx says it on standard error.
    let said = [output.stdout, output.stderr].concat();
    number(&String::from_utf8_lossy(&said))
}

/// The first word that begins with a digit, as programs say more than that.
fn number(said: &str) -> Option<String> {
    let mut words = said.split([' ', '/', '\n']).map(|word| word.trim_start_matches('v'));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

/// A command for `program`. Where there is `setpriv` (util-linux), it ends even
/// if this process is killed with no time to end it.
pub(crate) fn command(program: &Path) -> Command {
    match find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where this very program was built to: `target/PROFILE/xtask` lies in it, and
/// tests in `target/PROFILE/deps`.
pub(crate) fn target_folder() -> PathBuf {
    let own = std::env::current_exe().ok();
    let own = own.as_deref().and_then(Path::parent);
    let profile = own.map(|folder| if folder.ends_with("deps") { folder.parent() } else { own });
    let folder = profile.flatten().and_then(Path::parent);
    folder.map_or_else(|| workspace().join("target"), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(number("nginx version: nginx/1.22.1\n").unwrap(), "1.22.1");
        assert_eq!(number("HAProxy version 2.6.12-1 2026/10/17 - x\n").unwrap(), "2.6.12-1");
        assert_eq!(number("v2.6.2 h1:abc\n").unwrap(), "2.6.2");
        assert_eq!(number("lb 0.1.0\n").unwrap(), "0.1.0");
        assert_eq!(number("?"), None);
    }
}
