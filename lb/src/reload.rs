//! Reads the configuration file again: on SIGHUP, or when it has changed.
//!
//! Owns when that is. What a file says is [`config`](crate::config)'s to tell,
//! and what follows from it [`control`](crate::control)'s to do; a file that is
//! wrong changes nothing.

use std::{
    fs::{self, File},
    future::pending,
    hash::{DefaultHasher, Hasher},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    config::{Config, MAX_BYTES},
    control::Control,
    service,
};

/// For how long nothing may happen to the file before it is read: editors
/// write in pieces, or write another and rename it. Who reads half a file finds
/// it wrong, and reads it again.
const QUIET: Duration = Duration::from_millis(20);

/// How long that is waited for in a folder in which something always happens.
const BUSY_LIMIT: Duration = Duration::from_secs(1);

/// How often the file is looked at besides: what a link in its path leads to may change,
/// its folder be replaced, and a network's file system tell nothing of what others do.
const LOOK: Duration = Duration::from_secs(1);

/// The file that the configuration came from.
pub struct Source {
    /// Reads it, with what the command line says laid over it.
    pub load: Box<dyn Fn() -> anyhow::Result<Config>>,
    /// Where it is, and what happens to it.
    pub watch: Watch,
}

/// What happens to a file from now on.
pub struct Watch {
    path: PathBuf,
    /// [`mark`] of what it said when it was last looked at; `None` if it was not
    /// there.
    seen: Option<u64>,
    /// What it looked like then.
    look: Option<Look>,
    /// Something may have changed.
    stirs: UnboundedReceiver<()>,
    /// Watches for as long as it lives, where this machine lets it.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch the file at `path`. Whoever reads it after that misses
    /// no change.
    pub fn start(path: &Path) -> Watch {
        let (stirred, stirs) = mpsc::unbounded_channel();
        let _watcher = watch(path, stirred).ok();
        let look = Look::at(path);
        Watch { path: path.into(), seen: mark(path).ok(), look, stirs, _watcher }
    }

    /// Resolves when something may have changed.
    async fn stirred(&mut self) {
        let stirred = async {
            if self.stirs.recv().await.is_none() {
                pending().await
            }
        };
        let looks = async {
            loop {
                sleep(LOOK).await;
                if Look::at(&self.path) != self.look {
                    return;
                }
            }
        };
        tokio::select! {
            () = stirred => {}
            () = looks => {}
        }
    }
}

/// What a file looks like from outside; never the same again once it was written to or
/// replaced, unless within the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Look {
    /// The file's at `path`, or of what that leads to; `None` if there is none.
    fn at(path: &Path) -> Option<Look> {
        let metadata = fs::metadata(path).ok()?;
        Some(Look {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Reloads `source` at each SIGHUP, which comes through `hangups`, and when the
/// file has changed; for ever.
pub async fn run(control: &Control, source: Option<Source>, mut hangups: UnboundedReceiver<()>) {
    let Some(Source { load, mut watch }) = source else {
        while hangups.recv().await.is_some() {
            info!("SIGHUP changes nothing: there is no configuration file to read again");
        }
        return;
    };
    loop {
        let asked = tokio::select! {
            Some(()) = hangups.recv() => true,
            () = watch.stirred() => false,
        };
        if !asked {
            let busy =
                async { while let Ok(Some(())) = timeout(QUIET, watch.stirs.recv()).await {} };
            let _ = timeout(BUSY_LIMIT, busy).await;
        }
        watch.look = Look::at(&watch.path);
        let marked = match mark(&watch.path) {
            Ok(marked) => marked,
            // Gone for a moment while it is replaced, or for good; or there, and looked
            // at again until it can be read.
            Err(error) => {
                watch.look = None;
                if asked || watch.seen.take().is_some() {
                    refuse(control, &watch.path, &format!("it cannot be read: {error}"));
                }
                continue;
            }
        };
        if asked || watch.seen != Some(marked) {
            watch.seen = Some(marked);
            reload(control, &watch.path, &load);
        }
    }
}

fn reload(control: &Control, path: &Path, load: &dyn Fn() -> anyhow::Result<Config>) {
    service::reloading();
    match load() {
        Ok(config) => {
            control.replace(config, "reload");
            info!("reload of {} applied", path.display());
        }
        Err(problems) => refuse(control, path, &format!("{problems:#}")),
    }
    service::ready();
}

fn refuse(control: &Control, path: &Path, why: &str) {
    control.reloads.failed();
    warn!("reload of {} refused, everything stays as it was: {why}", path.display());
}

/// A number for what the file says, as far as a configuration may go. Its text is not
/// kept: it may be large.
///
/// # Errors
/// It cannot be read, or only once, as a pipe: whoever looks would take it away.
fn mark(path: &Path) -> io::Result<u64> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = BufReader::new(File::open(path)?.take(MAX_BYTES as u64 + 1));
    let mut hasher = DefaultHasher::new();
    loop {
        let piece = text.fill_buf()?;
        if piece.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.write(piece);
        let length = piece.len();
        text.consume(length);
    }
}

/// Watches the file's folder, as the file itself may be replaced by another.
fn watch(path: &Path, stirred: mpsc::UnboundedSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is no news.
        if !matches!(&event, Ok(event) if event.kind.is_access()) {
            // Nobody listens any more only when the process ends.
            let _ = stirred.send(());
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    watcher.watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_of_a_file_is_read_than_a_configuration_may_have() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.yaml");
        let marked = |change: usize| {
            let mut text = vec![b'#'; MAX_BYTES + 1000];
            text[change] = b'!';
            fs::write(&path, text).unwrap();
            mark(&path).unwrap()
        };
        let first = marked(0);
        assert!([1, 4096, MAX_BYTES].into_iter().all(|change| marked(change) != first));
        assert_eq!(marked(MAX_BYTES + 1), marked(MAX_BYTES + 999));
        assert!(mark(folder.path()).is_err());
    }
}
