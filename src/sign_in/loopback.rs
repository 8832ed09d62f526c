//! `LoopbackRedirect`: takes a browser's answer to a sign-in on a port of this machine (RFC 8252 §7.3).

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::redirect::Redirect;
use super::{SignIn, SignInError, SignInErrorKind, unsupported};
use crate::types::Secret;

/// Takes a browser's answer to a sign-in on a port of this machine, for command-line tools and desktop programs
/// (RFC 8252 §7.3): a random port, one answer, and it closes.
///
/// Make it first: its [`uri`](Self::uri) is the redirect URI of the configuration. Register `http://127.0.0.1/callback` with
/// the authorization server, which must allow any port there.
///
/// ```no_run
/// use tower_oauth2_client::{AuthConfig, AuthLayer, AuthorizationCode, ClientAuth, LoopbackRedirect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let redirect = LoopbackRedirect::bind().await?;
/// let code = AuthorizationCode::new("https://auth.example.com/authorize", redirect.uri());
/// let cfg = AuthConfig::authorization_code("https://auth.example.com/token", ClientAuth::none("my-tool"), code)
///     .origin("https://api.example.com")
///     .build()?;
/// let layer = AuthLayer::new(cfg);
///
/// let sign_in = layer.handle().sign_in()?;
/// println!("open {}", sign_in.url()); // or open the browser
/// redirect.wait(sign_in).await?;
/// # Ok(()) }
/// ```
///
/// Anybody on this machine, and any page in its browsers, can send requests here. One is an answer only if it is a `GET` of
/// the path, names this address as its host and holds the `state` of the sign-in. All others get an error, and the wait goes
/// on. At most 32 connections are open at a time, each for at most 10 s, and at most 16 KiB of a request are read.
pub struct LoopbackRedirect {
    listener: TcpListener,
    authority: String,
    path: String,
    done: String,
    failed: String,
    timeout: Duration,
}

impl LoopbackRedirect {
    const CONNECTIONS: usize = 32;
    /// To send a request in, and to take the answer in.
    const CONNECTION: Duration = Duration::from_secs(10);
    /// After an accept that failed: most often there are no file descriptors.
    const PAUSE: Duration = Duration::from_millis(100);

    /// Listens on a random port of 127.0.0.1.
    ///
    /// # Errors
    /// No port can be bound.
    ///
    /// # Panics
    /// Outside of a tokio runtime that drives I/O.
    pub async fn bind() -> io::Result<Self> {
        Self::bind_to((Ipv4Addr::LOCALHOST, 0)).await
    }

    /// Listens on this address: `(Ipv6Addr::LOCALHOST, 0)`, or a port of one's own where the authorization server wants the
    /// very URI that is registered.
    ///
    /// # Errors
    /// The address is not this machine's own (RFC 8252 §8.3), or cannot be bound.
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    pub async fn bind_to(address: impl Into<SocketAddr>) -> io::Result<Self> {
        let address = address.into();
        if !address.ip().is_loopback() {
            let only = "a sign-in's answer is taken on a loopback address only: 127.0.0.1 or [::1]";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, only));
        }
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            authority: listener.local_addr()?.to_string(),
            listener,
            path: "/callback".to_owned(),
            done: "You are signed in. You can close this window.".to_owned(),
            failed: "The sign-in did not work. You can close this window.".to_owned(),
            timeout: Duration::from_secs(300),
        })
    }

    /// The path of the redirect URI. Default: `/callback`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// What the browser shows when the person is signed in, and when the sign-in failed: text, not HTML. Nothing of the request
    /// is shown.
    #[must_use]
    pub fn pages(mut self, done: impl Into<String>, failed: impl Into<String>) -> Self {
        (self.done, self.failed) = (done.into(), failed.into());
        self
    }

    /// How long [`wait`](Self::wait) waits for the person. Default: 5 min.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The redirect URI: `http://127.0.0.1:PORT/callback`.
    pub fn uri(&self) -> String {
        format!("http://{}{}", self.authority, self.path)
    }

    /// Waits for the browser, closes the port, and [finishes](SignIn::finish) the sign-in; the browser sees how it ended.
    ///
    /// It returns how many answers with another `state` came before: some that are left over from an earlier sign-in, or
    /// somebody tried to sign your user in as somebody else.
    ///
    /// Dropping the future closes the port. A code that was on its way to the authorization server by then is still exchanged,
    /// as with [`finish`](SignIn::finish).
    ///
    /// # Errors
    /// As [`finish`](SignIn::finish). [`Expired`](SignInErrorKind::Expired): nobody came back in time.
    /// [`WrongState`](SignInErrorKind::WrongState): the same, and answers with another `state` came.
    /// [`Unsupported`](SignInErrorKind::Unsupported): the sign-in is for another redirect URI.
    pub async fn wait(self, sign_in: SignIn) -> Result<usize, SignInError> {
        if sign_in.grant.redirect_uri() != self.uri() {
            return Err(unsupported("its redirect URI is another than that of the `LoopbackRedirect`"));
        }
        if !self.path.starts_with('/') || self.path.contains(['?', '#']) {
            return Err(unsupported("the path of the `LoopbackRedirect` must begin with a slash and have no query"));
        }
        let mut foreign = 0;
        let Some((mut stream, answer)) = self.answer(&sign_in, &mut foreign).await else {
            let waited = self.timeout;
            return Err(match foreign {
                0 => SignInError::new(SignInErrorKind::Expired).with_detail(format!("nobody came back in {waited:?}")),
                _ => SignInError::new(SignInErrorKind::WrongState)
                    .with_detail(format!("{foreign} such answers in {waited:?}, and none of this sign-in's")),
            });
        };
        let Self { listener, done, failed, .. } = self;
        drop(listener);
        let result = sign_in.finish(answer.expose()).await;
        let (status, text) = if result.is_ok() { ("200 OK", done) } else { ("400 Bad Request", failed) };
        let _ = timeout(Self::CONNECTION, respond(&mut stream, status, &text)).await;
        result.map(|()| foreign)
    }

    /// The answer that is this sign-in's, and the connection it came on; `None` if none came in time.
    async fn answer(&self, sign_in: &SignIn, foreign: &mut usize) -> Option<(TcpStream, Secret<String>)> {
        let (mut late, mut pause) = (pin!(sleep(self.timeout)), pin!(sleep(Duration::ZERO)));
        let mut open = FuturesUnordered::new();
        poll_fn(|cx| {
            loop {
                let mut accepts = open.len() < Self::CONNECTIONS && pause.as_mut().poll(cx).is_ready();
                while accepts {
                    match self.listener.poll_accept(cx) {
                        Poll::Ready(Ok((stream, _))) => open.push(self.serve(stream, sign_in)),
                        Poll::Ready(Err(_)) => {
                            pause.set(sleep(Self::PAUSE));
                            // Wakes us when it is over.
                            let _ = pause.as_mut().poll(cx);
                            break;
                        }
                        Poll::Pending => break,
                    }
                    accepts = open.len() < Self::CONNECTIONS;
                }
                match open.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ended::Ours(stream, answer))) => return Poll::Ready(Some((stream, answer))),
                    Poll::Ready(Some(Ended::Foreign)) => *foreign = foreign.saturating_add(1),
                    Poll::Ready(Some(Ended::Other)) => {}
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            late.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// One connection, until its request has been answered or turns out to be this sign-in's.
    async fn serve(&self, mut stream: TcpStream, sign_in: &SignIn) -> Ended {
        let head = match timeout(Self::CONNECTION, read_head(&stream)).await {
            Ok(Ok(head)) => head,
            Ok(Err(_)) | Err(_) => return Ended::Other,
        };
        let (ended, status, text) = match judge(&head, &self.authority, &self.path) {
            Err(status) => (Ended::Other, status, ""),
            Ok(target) => match Redirect::parse(target.expose()) {
                Ok(redirect) if redirect.check_state(&sign_in.secrets).is_ok() => return Ended::Ours(stream, target),
                Ok(redirect) if redirect.is_empty() => (Ended::Other, "400 Bad Request", "There is nothing here."),
                Ok(_) | Err(_) => {
                    (Ended::Foreign, "400 Bad Request", "This does not belong to the sign-in that is in progress.")
                }
            },
        };
        let _ = timeout(Self::CONNECTION, respond(&mut stream, status, text)).await;
        ended
    }
}

/// Tells where it listens.
impl fmt::Debug for LoopbackRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopbackRedirect").field("uri", &self.uri()).finish_non_exhaustive()
    }
}

/// How a connection ended.
enum Ended {
    /// With the answer of this sign-in, which is to be answered yet.
    Ours(TcpStream, Secret<String>),
    /// With the answer of another sign-in.
    Foreign,
    /// With something else.
    Other,
}

/// The longest head of a request: a code and a state have hundreds of bytes, cookies of other programs on this machine
/// thousands.
const LONGEST_HEAD: usize = 16 * 1024;

/// Reads a request's head, or as much of it as is taken.
async fn read_head(stream: &TcpStream) -> io::Result<Zeroizing<Vec<u8>>> {
    // It holds a code. Growing would leave copies behind.
    let mut head = Zeroizing::new(Vec::with_capacity(LONGEST_HEAD));
    let mut chunk = Zeroizing::new([0; 1024]);
    let mut seen: usize = 0;
    while !is_complete(head.get(seen.saturating_sub(3)..).unwrap_or_default()) && head.len() < LONGEST_HEAD {
        seen = head.len();
        stream.readable().await?;
        match stream.try_read(&mut *chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                let taken = LONGEST_HEAD.saturating_sub(head.len()).min(read);
                head.extend_from_slice(chunk.get(..taken).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

/// Whether an empty line is in it: what follows is a body, and of no use.
fn is_complete(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

/// The target of a request that may be an answer.
///
/// # Errors
/// The status that it is answered with.
fn judge(head: &[u8], authority: &str, path: &str) -> Result<Secret<String>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err("431 Request Header Fields Too Large");
        }
        Err(_) => return Err("400 Bad Request"),
    }
    // A page elsewhere whose name leads here (DNS rebinding) names its own host.
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let is_here = hosts.next().is_some_and(|host| host.value == authority.as_bytes()) && hosts.next().is_none();
    if !is_here {
        return Err("421 Misdirected Request");
    }
    let target = request.path.unwrap_or_default();
    if target.split('?').next() != Some(path) {
        return Err("404 Not Found");
    }
    if request.method != Some("GET") {
        return Err("405 Method Not Allowed");
    }
    Ok(Secret::from(target))
}

/// Sends a page and closes. `text` is the caller's or ours.
async fn respond(stream: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    let page = match text {
        "" => String::new(),
        text => format!("<!doctype html><meta charset=utf-8><title>Sign-in</title><p>{}</p>\n", escaped(text)),
    };
    let allow = if status.starts_with("405") { "allow: GET\r\n" } else { "" };
    let response = format!(
        "HTTP/1.1 {status}\r\n{allow}content-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: \
         no-store\r\ncontent-security-policy: default-src 'none'\r\nreferrer-policy: no-referrer\r\nconnection: \
         close\r\n\r\n{page}",
        page.len()
    );
    let mut rest = response.as_bytes();
    while !rest.is_empty() {
        let sent = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, rest)).await?;
        rest = rest.get(sent.max(1)..).unwrap_or_default();
    }
    poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await?;
    // What is left unread resets the connection, and the page with it.
    let mut scrap = Zeroizing::new([0; 1024]);
    let mut left = LONGEST_HEAD;
    while left > 0 {
        stream.readable().await?;
        match stream.try_read(&mut *scrap) {
            Ok(0) => break,
            Ok(read) => left = left.saturating_sub(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(head: &str) -> Result<String, &'static str> {
        judge(head.as_bytes(), "127.0.0.1:4000", "/callback").map(|target| target.expose().clone())
    }

    #[test]
    fn only_a_get_of_the_path_at_this_address_is_an_answer() {
        let host = "Host: 127.0.0.1:4000\r\n\r\n";
        let rows = [
            (format!("GET /callback?code=a&state=b HTTP/1.1\r\n{host}"), Ok("/callback?code=a&state=b")),
            (format!("GET /callback HTTP/1.0\r\n{host}"), Ok("/callback")),
            (format!("GET /favicon.ico HTTP/1.1\r\n{host}"), Err("404")),
            (format!("GET /callback/ HTTP/1.1\r\n{host}"), Err("404")),
            (format!("GET http://127.0.0.1:4000/callback HTTP/1.1\r\n{host}"), Err("404")),
            (format!("HEAD /callback?code=a HTTP/1.1\r\n{host}"), Err("405")),
            (format!("POST /callback?code=a HTTP/1.1\r\n{host}"), Err("405")),
            (format!("OPTIONS /callback HTTP/1.1\r\n{host}"), Err("405")),
            ("GET /callback HTTP/1.1\r\n\r\n".into(), Err("421")),
            ("GET /callback HTTP/1.1\r\nHost: localhost:4000\r\n\r\n".into(), Err("421")),
            ("GET /callback HTTP/1.1\r\nHost: 127.0.0.1:4001\r\n\r\n".into(), Err("421")),
            ("GET /callback HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1:4000\r\n\r\n".into(), Err("421")),
            (format!("GET /callback HTTP/1.1\r\nHost: 127.0.0.1:4000\r\n{host}"), Err("421")),
            ("\u{16}\u{3}\u{1} a TLS handshake\r\n\r\n".into(), Err("400")),
            ("GET /callback\r\n\r\n".into(), Err("400")),
            (format!("GET /callback HTTP/1.1\r\n{}{host}", "a: b\r\n".repeat(64)), Err("431")),
            (format!("GET /callback?{}", "a".repeat(LONGEST_HEAD)), Err("431")),
        ];
        for (head, expected) in rows {
            let found = judged(&head);
            match expected {
                Ok(target) => assert_eq!(found.as_deref(), Ok(target), "{head}"),
                Err(status) => assert!(found.unwrap_err().starts_with(status), "{head}"),
            }
        }
    }

    /// A head may come in pieces.
    #[test]
    fn a_head_ends_with_an_empty_line() {
        for (head, is_whole) in [
            ("", false),
            ("GET /callback HTTP/1.1\r\n", false),
            ("GET /callback HTTP/1.1\r\nHost: a\r\n\r", false),
            ("GET /callback HTTP/1.1\nHost: a\n", false),
            ("Host: a\r\n\r\n", true),
            ("Host: a\n\na body", true),
        ] {
            assert_eq!(is_complete(head.as_bytes()), is_whole, "{head:?}");
        }
    }

    #[test]
    fn a_text_is_no_markup() {
        assert_eq!(escaped("<b a=\"c\">&"), "&lt;b a=&quot;c&quot;&gt;&amp;");
    }
}
