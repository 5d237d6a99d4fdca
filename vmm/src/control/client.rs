//! A client of the control socket, for `pincushion ctl`, `pincushion top` and tests. It blocks; each call is a connection of
//! its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::Refusal;

/// Longest wait for an answer: an order to a machine may take this long.
const LIMIT: Duration = Duration::from_secs(75);

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nothing at the path.
    #[error(
        "{}: there is no such socket; start the machine with `pincushion run --api-sock PATH ...`", path.display()
    )]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// The machine is gone.
    #[error("{}: nobody listens there: the machine that made it is gone", path.display())]
    NobodyListens {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be connected to.
    #[error("{}: cannot connect: {source}", path.display())]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What listens there is no control socket, or it ended within an answer.
    #[error("{}: no answer that makes sense: {reason}", path.display())]
    Garbled {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No answer in time.
    #[error("{}: no answer within {} s", path.display(), LIMIT.as_secs())]
    NoAnswer {
        /// Where.
        path: PathBuf,
    },
    /// The machine refuses.
    #[error("{reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reason.
        reason: String,
    },
}

/// An answer of any status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type, or nothing.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Talks to one socket.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// GET, as the type that the address gives.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, address: &str) -> Result<T, ClientError> {
        self.json(&Method::GET, address, None::<&()>)
    }

    /// POST without a body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, address: &str) -> Result<T, ClientError> {
        self.json(&Method::POST, address, None::<&()>)
    }

    /// Any method with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn send<T: DeserializeOwned>(
        &self,
        method: &Method,
        address: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.json(method, address, Some(body))
    }

    /// An answer as text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn text(&self, address: &str) -> Result<String, ClientError> {
        let answer = self.ask(&Method::GET, address, "", Vec::new())?;
        let answer = self.accepted(answer)?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Anything at all; every status is an answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn ask(
        &self,
        method: &Method,
        address: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer, ClientError> {
        let answered = async {
            let response = self.request(method, address, content_type, body).await?;
            let status = response.status().as_u16();
            let content_type = response.headers().get("content-type");
            let content_type = content_type.and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| self.garbled(&error))?.to_bytes();
            let body = body.to_vec();
            Ok(Answer {
                status,
                content_type,
                body,
            })
        };
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(LIMIT, answered).await;
            answered.unwrap_or_else(|_| {
                Err(ClientError::NoAnswer {
                    path: self.path.clone(),
                })
            })
        })
    }

    /// Calls `line` for each line of a stream until it answers `false` or the stream ends.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn lines(
        &self,
        address: &str,
        mut line: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let response = self.request(&Method::GET, address, "", Vec::new()).await?;
            let status = response.status();
            let mut body = response.into_body();
            let mut rest: Vec<u8> = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.garbled(&error))?;
                rest.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
                if status != StatusCode::OK {
                    continue;
                }
                let complete = rest
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1);
                for text in rest[..complete].split(|byte| *byte == b'\n') {
                    if !text.is_empty() && !line(text) {
                        return Ok(());
                    }
                }
                rest.drain(..complete);
            }
            match status {
                StatusCode::OK => Ok(()),
                status => Err(refused(status.as_u16(), &rest)),
            }
        })
    }

    fn json<T: DeserializeOwned>(
        &self,
        method: &Method,
        address: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let (content_type, body) = match body.map(serde_json::to_vec) {
            Some(Ok(body)) => ("application/json", body),
            Some(Err(error)) => return Err(self.garbled(&error)),
            None => ("", Vec::new()),
        };
        let answer = self.ask(method, address, content_type, body)?;
        let answer = self.accepted(answer)?;
        serde_json::from_slice(&answer.body).map_err(|error| self.garbled(&error))
    }

    fn accepted(&self, answer: Answer) -> Result<Answer, ClientError> {
        match answer.status {
            200..=299 => Ok(answer),
            status => Err(refused(status, &answer.body)),
        }
    }

    async fn request(
        &self,
        method: &Method,
        address: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|source| self.cannot_connect(source))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.garbled(&error))?;
        tokio::spawn(async move {
            // What goes wrong on the connection is told to the one who waits for the answer.
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(method)
            .uri(address)
            .header("host", "localhost");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.garbled(&error))?;
        let response = sender.send_request(request).await;
        response.map_err(|error| self.garbled(&error))
    }

    fn cannot_connect(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::NotFound => ClientError::NoSocket { path },
            io::ErrorKind::ConnectionRefused => ClientError::NobodyListens { path },
            _ => ClientError::Connect { path, source },
        }
    }

    fn garbled(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Garbled {
            path: self.path.clone(),
            reason: crate::causes::with_causes(error),
        }
    }
}

fn refused(status: u16, body: &[u8]) -> ClientError {
    let reason = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.error,
        Err(_) => format!("status {status}: {}", String::from_utf8_lossy(body)),
    };
    ClientError::Refused { status, reason }
}
