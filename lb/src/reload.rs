//! Reads the configuration file again: on SIGHUP, or when it has changed.
//!
//! Owns when that is. What a file says is [`config`](crate::config)'s to tell,
//! and what follows from it [`control`](crate::control)'s to do; a file that is
//! wrong changes nothing.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    io::{self, BufRead, BufReader, Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{self as std_mpsc, RecvTimeoutError},
    thread,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    config::{Config, MAX_BYTES},
    control::Control,
    net::lacks_descriptors,
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

/// Understands an open file.
type Load = dyn Fn(File) -> anyhow::Result<Config>;

/// The file that the configuration came from.
pub struct Source {
    /// Reads it, once open, with what the command line says laid over it.
    pub load: Box<Load>,
    /// Where it is, and what happens to it.
    pub watch: Watch,
}

/// What happens to a file from now on.
pub struct Watch {
    path: PathBuf,
    /// [`mark`] of what it said when it was last read; `None` if it was not there.
    seen: Option<u64>,
    /// Something may have changed.
    stirs: UnboundedReceiver<()>,
    /// Looks for as long as it lives.
    _looker: std_mpsc::Sender<()>,
    /// Watches for as long as it lives, where this machine lets it.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch the file at `path`. Whoever reads it after that misses
    /// no change.
    pub fn start(path: &Path) -> Watch {
        let (stirred, stirs) = mpsc::unbounded_channel();
        let (_looker, ended) = std_mpsc::channel();
        let _watcher = watch(path, stirred.clone()).ok();
        let (looked_at, look) = (path.to_path_buf(), Look::at(path));
        // Where this machine has no thread for it, events and SIGHUP remain.
        let looks = move || look_on((&looked_at, look), &stirred, &ended);
        let _ = thread::Builder::new().name("lb-watch".into()).spawn(looks);
        let seen = open(path).and_then(|mut file| mark(&mut file)).ok();
        Watch { path: path.into(), seen, stirs, _looker, _watcher }
    }
}

/// Looks at the file now and then, until `ended` is; blocks its thread, as a file system
/// in a network may take for ever to tell.
fn look_on(
    (path, mut seen): (&Path, Option<Look>),
    stirred: &UnboundedSender<()>,
    ended: &std_mpsc::Receiver<()>,
) {
    let is_over = |limit| ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout);
    while !is_over(LOOK) {
        let mut look = Look::at(path);
        if look == seen {
            continue;
        }
        // Until it is at rest.
        for _ in 0..BUSY_LIMIT.as_millis() / QUIET.as_millis() {
            if is_over(QUIET) {
                return;
            }
            let before = std::mem::replace(&mut look, Look::at(path));
            if look == before {
                break;
            }
        }
        seen = look;
        // Nobody listens any more only when the process ends.
        let _ = stirred.send(());
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
    let mut lacking = false;
    loop {
        let asked = tokio::select! {
            Some(()) = hangups.recv() => true,
            Some(()) = watch.stirs.recv() => false,
            () = sleep(LOOK), if lacking => false,
            else => return,
        };
        if !asked {
            let busy =
                async { while let Ok(Some(())) = timeout(QUIET, watch.stirs.recv()).await {} };
            let _ = timeout(BUSY_LIMIT, busy).await;
        }
        lacking = false;
        let opened = open(&watch.path).and_then(|mut file| Ok((mark(&mut file)?, file)));
        let (marked, file) = match opened {
            Ok(opened) => opened,
            // Gone for a moment while it is replaced, or for good.
            Err(error) => {
                lacking = lacks_descriptors(&error);
                if lacking {
                    control.cluster.want_descriptors();
                }
                if asked || watch.seen.take().is_some() {
                    refuse(control, &watch.path, &format!("it cannot be read: {error}"));
                }
                continue;
            }
        };
        if asked || watch.seen != Some(marked) {
            watch.seen = Some(marked);
            reload(control, (&watch.path, file), &load);
        }
    }
}

fn reload(control: &Control, (path, file): (&Path, File), load: &Load) {
    service::reloading();
    match load(file) {
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

/// Opens the file at `path`.
///
/// # Errors
/// It cannot be read, or only once, as a pipe: whoever looks would take it away.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)
}

/// A number for what the file says, as far as a configuration may go; it can be read
/// from the beginning again. Its text is not kept: it may be large.
///
/// # Errors
/// It cannot be read.
fn mark(file: &mut File) -> io::Result<u64> {
    let mut text = BufReader::new((&*file).take(MAX_BYTES as u64 + 1));
    let mut hasher = DefaultHasher::new();
    loop {
        let piece = text.fill_buf()?;
        if piece.is_empty() {
            file.rewind()?;
            return Ok(hasher.finish());
        }
        hasher.write(piece);
        let length = piece.len();
        text.consume(length);
    }
}

/// Watches the file's folder, as the file itself may be replaced by another.
fn watch(path: &Path, stirred: UnboundedSender<()>) -> notify::Result<RecommendedWatcher> {
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
            mark(&mut open(&path).unwrap()).unwrap()
        };
        let first = marked(0);
        assert!([1, 4096, MAX_BYTES].into_iter().all(|change| marked(change) != first));
        assert_eq!(marked(MAX_BYTES + 1), marked(MAX_BYTES + 999));
        assert!(open(folder.path()).is_err());
    }
}
