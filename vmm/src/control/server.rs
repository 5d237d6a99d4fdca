//! Serves the socket on a thread of its own, with a runtime of one thread: no other part of the machine is asynchronous.
//!
//! Promises: a client that says nothing, or that does not read, costs a descriptor and nothing else; beyond a number of
//! clients the next ones wait. When the server is dropped, streams get what is left of the log, then the file is gone.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tower::Service;

use super::api::Controlled;
use super::observer::Observer;
use super::routes::router;
use super::socket::{Socket, SocketError};

/// Clients that are connected at the same time.
const MAX_CLIENTS: u32 = 64;
/// A client that has not said what it wants after this is sent away.
const HEADER_LIMIT: Duration = Duration::from_secs(30);
/// How long clients may take to read the end of a stream when the machine has ended.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a refused accept (no descriptor left) is waited before the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A server at work.
pub struct Server {
    observer: Observer,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: Socket,
}

impl Server {
    /// Serves `controlled` at `path`. When it returns, clients may connect.
    ///
    /// # Errors
    /// The path is not usable, or the host refuses a thread or a descriptor.
    pub fn start(path: &Path, controlled: Controlled) -> Result<Self, SocketError> {
        let host = |attempt| {
            move |source: io::Error| SocketError::Host {
                path: path.to_owned(),
                attempt,
                source,
            }
        };
        let (socket, listener) = Socket::listen(path)?;
        let observer = controlled.observer.clone();
        let router = router(controlled);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .thread_name("control-order")
            .build()
            .map_err(host("make a runtime"))?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::from_std(listener).map_err(host("wait for clients"))?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                runtime.block_on(serve(listener, router, stopped));
                // An order that the machine does not carry out any more is not waited for.
                runtime.shutdown_background();
            })
            .map_err(host("start a thread"))?;
        Ok(Self {
            observer,
            stop: Some(stop),
            thread: Some(thread),
            socket,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.observer.end();
        // Without a receiver the thread has ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("control: its thread panicked");
        }
    }
}

async fn serve(listener: UnixListener, router: Router, stopped: oneshot::Receiver<()>) {
    let room = Arc::new(Semaphore::new(MAX_CLIENTS as usize));
    let accepting = tokio::spawn(accept(listener, router, room.clone()));
    // An error means that the sender is gone, which is as good as a word.
    let _ = stopped.await;
    accepting.abort();
    // When it has ended, the listener is closed.
    let _ = accepting.await;
    // All places are free again when the last client has gone.
    let all_gone = room.acquire_many(MAX_CLIENTS);
    if tokio::time::timeout(FAREWELL, all_gone).await.is_err() {
        log::debug!("control: clients did not leave within {FAREWELL:?}");
    }
}

async fn accept(listener: UnixListener, router: Router, room: Arc<Semaphore>) {
    loop {
        let place = room.clone().acquire_owned().await;
        let (Ok(place), Ok((stream, _))) = (place, listener.accept().await) else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            serve_client(stream, router).await;
            drop(place);
        });
    }
}

async fn serve_client(stream: UnixStream, router: Router) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // A router is always ready.
        router.clone().call(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        log::debug!("control: a client went away: {error}");
    }
}
