//! The sockets of the admin API, and its connections: how long they may last.
//!
//! A connection carries one request. Without the idle ones that clients like
//! to keep, the few that there may be are free for whoever has a question.

use std::{
    fmt,
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener as StdTcp},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener as StdUnix, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::net::sockopt::set_tcp_user_timeout;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    time::sleep,
};
use tracing::{debug, info};

use super::{
    guard::Entrance,
    room::{Guest, Room},
};
use crate::{cluster::LiveCluster, config::Api, net::lacks_descriptors};

/// For a request's head, from the connection's beginning.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// For a client to take what it asked for, while it takes nothing.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How much of a request's head is kept, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Connections that wait to be accepted: no more than the [`Room`] has seen
/// within a second, even if all are silent.
const BACKLOG: i32 = 1024;

/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A Unix socket's file, removed when dropped: before the socket ends, as until
/// then no other file has its inode.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: Inode,
}

/// What a file is on this machine, by whatever path: its device and number.
type Inode = (u64, u64);

impl SocketFile {
    /// The one that was bound at `path`.
    fn at(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.into(), inode: inode(path)? })
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl fmt::Display for SocketFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.path.display())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have made its own there since.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // Whoever removed it before us wanted the same.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sockets that listen, on no event loop yet.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    tcp: Option<(StdTcp, SocketAddr)>,
    unix: Option<StdUnix>,
    file: Option<SocketFile>,
}

impl Listeners {
    /// Listens where `api` says; not at the default port if that is taken.
    pub(super) fn open(api: &Api) -> Result<Listeners> {
        let tcp = match api.listen.map(open_tcp) {
            // No trouble: what was asked for works.
            Some(Err(error)) if !api.required => {
                info!("no admin API: {error:#}");
                None
            }
            opened => opened.transpose()?,
        };
        let (unix, file) = api.socket.as_deref().map(open_unix).transpose()?.unzip();
        Ok(Listeners { tcp, unix, file })
    }

    /// The address that is listened on.
    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, addr)| *addr)
    }

    /// Hands over the file of the Unix socket, to be removed at the end.
    pub(super) fn take_socket_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// Binds the sockets to the event loop of the calling thread, with so many `places`
    /// for connections.
    pub(super) fn register(self, places: usize) -> io::Result<Registered> {
        let tcp = self.tcp.map(|(listener, _)| TcpListener::from_std(listener));
        let unix = self.unix.map(UnixListener::from_std);
        let room = Room::new(places);
        Ok(Registered { tcp: tcp.transpose()?, unix: unix.transpose()?, room })
    }
}

fn open_tcp(addr: SocketAddr) -> Result<(StdTcp, SocketAddr)> {
    let what = || format!("cannot listen on {addr} for the admin API");
    let listener = match StdTcp::bind(addr) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "{}: port {} is taken; choose another with --api-port PORT (0 for any free one), or --api-port off",
            what(),
            addr.port()
        ),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            bail!("{}: this machine does not have that address; see --api-bind", what())
        }
        Err(error) => return Err(error).with_context(what),
    };
    SockRef::from(&listener).listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

fn open_unix(path: &Path) -> Result<(StdUnix, SocketFile)> {
    let what = || format!("cannot listen on {} for the admin API", path.display());
    remove_stale(path).with_context(what)?;
    bind_private(path).with_context(what)
}

/// Makes way for a new socket, if the old one is nobody's.
fn remove_stale(path: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !kind.is_socket() {
        bail!("there is a file that is no socket");
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("somebody listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Listens on a socket that is its owner's alone, from its first moment on: a
/// socket's file gets the mode that the socket has when it is bound (Linux).
fn bind_private(path: &Path) -> io::Result<(StdUnix, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let own = fs::Permissions::from_mode(0o600);
    File::from(OwnedFd::from(socket.try_clone()?)).set_permissions(own.clone())?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    fs::set_permissions(path, own)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// Sockets that listen on an event loop.
#[derive(Debug)]
pub(super) struct Registered {
    tcp: Option<TcpListener>,
    unix: Option<UnixListener>,
    room: Room,
}

impl Registered {
    /// Serves for ever. Without a descriptor it asks `cluster` for one.
    pub(super) async fn serve(self, router: Router, cluster: &LiveCluster) {
        tokio::join!(self.serve_tcp(&router, cluster), self.serve_unix(&router, cluster));
    }

    async fn serve_tcp(&self, router: &Router, cluster: &LiveCluster) {
        let Some(listener) = &self.tcp else { return };
        loop {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            match accepted.and_then(|stream| Ok((stream.local_addr()?, stream))) {
                Ok((local, stream)) => {
                    // A client that takes nothing is cut off by the kernel.
                    let limit = u32::try_from(STALL_LIMIT.as_millis()).unwrap_or(u32::MAX);
                    let _ = set_tcp_user_timeout(&stream, limit);
                    self.receive(stream, Entrance::Tcp(local), router).await;
                }
                Err(error) => pause_after(&error, cluster).await,
            }
        }
    }

    async fn serve_unix(&self, router: &Router, cluster: &LiveCluster) {
        let Some(listener) = &self.unix else { return };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.receive(stream, Entrance::Unix, router).await,
                Err(error) => pause_after(&error, cluster).await,
            }
        }
    }

    /// Runs a connection in a task of its own, as soon as there is room.
    async fn receive<S>(&self, stream: S, entrance: Entrance, router: &Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let guest = self.room.enter().await;
        tokio::spawn(converse(stream, entrance, guest, router.clone()));
    }
}

/// Answers one request.
async fn converse<S>(stream: S, entrance: Entrance, guest: Arc<Guest>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (router, guest) = (TowerToHyperService::new(router), &*guest);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(entrance);
        let answer = router.call(request);
        async {
            let answer = answer.await;
            guest.heard();
            answer
        }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // What a client asked for whole is done, even if it leaves at once.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // What has come is read before anybody is sent away.
        biased;
        ended = connection => if let Err(error) = ended {
            debug!("admin API: {error}");
        },
        () = guest.sent_away() => debug!("admin API: a silent client made room for another"),
    }
}

async fn pause_after(error: &io::Error, cluster: &LiveCluster) {
    debug!("admin API: cannot accept: {error}");
    if lacks_descriptors(error) {
        cluster.want_descriptors();
    }
    sleep(ACCEPT_PAUSE).await;
}
