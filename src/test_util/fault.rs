//! `Fault`: how a server misbehaves, and the script that says when.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;
use std::{future, io};

use bytes::Bytes;
use http::Response;
use http::header::{LOCATION, RETRY_AFTER};

use super::body::{self, Answer, Body};
use crate::types::BoxError;

/// One way to misbehave, for one request. See [`AuthServer::script`](super::AuthServer::script) and
/// [`Api::script`](super::Api::script).
///
/// "The usual answer" is what the server would have said without the fault, a refusal included.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// No fault: the usual answer. A placeholder in a script.
    Pass,
    /// This status, with a short text for a body. Neither challenge nor OAuth error.
    Status(u16),
    /// This status, with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// An OAuth error by its code, in the provider's shape: at the token endpoint (RFC 6749 §5.2) 401 for
    /// `invalid_client` and 400 for all others; at the API 401 with the code in a Bearer challenge (RFC 6750 §3.1).
    Error(Cow<'static, str>),
    /// This very response.
    Respond(Response<Bytes>),
    /// 200, `application/json`, with these bytes.
    Body(Bytes),
    /// 200, `application/json`, with bytes that are neither JSON nor UTF-8.
    Garbage,
    /// 200 with an HTML page, as from a proxy or a login wall.
    Html,
    /// 200 with 16 MiB that begin like a token answer.
    Huge,
    /// 307 to this location, which asks for the same request and its credentials once more.
    Redirect(Cow<'static, str>),
    /// The usual answer, later.
    Slow(Duration),
    /// The usual answer, one byte of its body every so often.
    Drip(Duration),
    /// No answer, for ever.
    Hang,
    /// Head and half the body of the usual answer, and no more, for ever.
    HangInBody,
    /// The connection breaks before the request does anything.
    Drop,
    /// The connection breaks in the middle of the usual answer's body.
    DropInBody,
    /// The request is carried out, a refresh token spent, a new token issued; then the connection breaks.
    LoseAnswer,
    /// The token endpoint hands out its last token for the same client, scopes and tenant once more, dead or alive.
    /// At the API: the usual answer.
    SameToken,
}

impl Fault {
    /// [`Fault::Error`] with this code.
    ///
    /// ```
    /// use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock};
    ///
    /// let auth = AuthServer::new(TestClock::new());
    /// auth.script([Fault::error("invalid_grant"), Fault::Status(503)]);
    /// ```
    pub fn error(code: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(code.into())
    }

    /// Answers a request by this fault.
    pub(super) async fn play(
        self,
        usual: impl FnOnce() -> Answer,
        oauth_error: impl FnOnce(&str) -> Answer,
    ) -> Result<Response<Body>, BoxError> {
        let answer = match self {
            Fault::Pass | Fault::SameToken => usual(),
            Fault::Status(status) => plain(status),
            Fault::RetryAfter(status, seconds) => plain(status).header(RETRY_AFTER, &seconds.to_string()),
            Fault::Error(code) => oauth_error(&code),
            Fault::Respond(response) => Answer { response, trailers: None },
            Fault::Body(body) => Answer::new(200, "application/json", body),
            Fault::Garbage => Answer::new(200, "application/json", &b"{\"access_token\": \xff\xfe\x00}}"[..]),
            Fault::Html => Answer::new(200, "text/html", "<!doctype html><title>Sign in</title>"),
            Fault::Huge => return Ok(body::huge()),
            Fault::Redirect(location) => plain(307).header(LOCATION, &location),
            Fault::Slow(delay) => {
                tokio::time::sleep(delay).await;
                usual()
            }
            Fault::Drip(pause) => return Ok(usual().drip(pause)),
            Fault::Hang => future::pending().await,
            Fault::HangInBody => return Ok(usual().stall()),
            Fault::Drop => return Err(broken()),
            Fault::DropInBody => return Ok(usual().break_off(broken())),
            Fault::LoseAnswer => {
                usual();
                return Err(broken());
            }
        };
        Ok(answer.into_response())
    }
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct Script {
    queue: VecDeque<Fault>,
    always: Option<Fault>,
}

impl Script {
    pub(super) fn push(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.queue.extend(faults);
    }

    pub(super) fn always(&mut self, fault: Fault) {
        self.always = Some(fault);
    }

    pub(super) fn heal(&mut self) {
        *self = Self::default();
    }

    /// What the next request meets.
    pub(super) fn next(&mut self) -> Fault {
        self.queue.pop_front().or_else(|| self.always.clone()).unwrap_or(Fault::Pass)
    }
}

fn plain(status: u16) -> Answer {
    Answer::new(status, "text/plain", format!("status {status}"))
}

fn broken() -> BoxError {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection broke, as scripted").into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::time::{Instant, timeout};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    async fn play(fault: Fault) -> Result<Response<Body>, BoxError> {
        fault.play(|| Answer::json(200, "usual".into()), |code| Answer::json(400, code.into())).await
    }

    async fn text(response: Response<Body>) -> Result<String, BoxError> {
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn the_script_is_played_in_order_then_for_ever_until_healed() {
        let mut script = Script::default();
        script.push([Fault::Status(500), Fault::Pass]);
        script.always(Fault::Status(503));
        for expected in [500, 200, 503, 503] {
            assert_eq!(play(script.next()).await.unwrap().status(), expected);
        }
        script.push([Fault::Status(500)]);
        script.heal();
        assert_eq!(play(script.next()).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn statuses_and_their_headers() {
        let busy = play(Fault::RetryAfter(429, 30)).await.unwrap();
        assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (429, &"30".parse().unwrap()));
        let moved = play(Fault::Redirect("https://elsewhere.example/".into())).await.unwrap();
        assert_eq!(
            (moved.status().as_u16(), moved.headers()["location"].as_bytes()),
            (307, &b"https://elsewhere.example/"[..])
        );
        let odd = play(Fault::Status(7)).await.unwrap();
        assert_eq!(odd.status(), 500);
        let own = http::Response::builder().status(418).body(Bytes::from_static(b"tea")).unwrap();
        assert_eq!(play(Fault::Respond(own)).await.unwrap().status(), 418);
        assert_eq!(text(play(Fault::error("invalid_grant")).await.unwrap()).await.unwrap(), "invalid_grant");
    }

    #[tokio::test]
    async fn bodies_that_are_no_token_answer() {
        for fault in [Fault::Garbage, Fault::Html, Fault::Body(Bytes::from_static(b"{}"))] {
            let response = play(fault).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(!text(response).await.unwrap().contains("usual"));
        }
        let huge = play(Fault::Huge).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert!(huge.len() > 16 * 1024 * 1024 && huge.starts_with(b"{\"access_token\":\"aaa"));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_drip_take_their_time() {
        let start = Instant::now();
        assert_eq!(text(play(Fault::Slow(HOUR)).await.unwrap()).await.unwrap(), "usual");
        assert_eq!(start.elapsed(), HOUR);
        let start = Instant::now();
        assert_eq!(text(play(Fault::Drip(HOUR)).await.unwrap()).await.unwrap(), "usual");
        assert_eq!(start.elapsed(), 5 * HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_hangs() {
        assert!(timeout(HOUR, play(Fault::Hang)).await.is_err());
        let stalled = play(Fault::HangInBody).await.unwrap();
        assert_eq!(stalled.status(), 200);
        assert!(timeout(HOUR, text(stalled)).await.is_err());
    }

    #[tokio::test]
    async fn what_breaks_is_a_connection_error() {
        let is_reset = |error: &BoxError| {
            error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
        };
        assert!(is_reset(&play(Fault::Drop).await.unwrap_err()));
        assert!(is_reset(&text(play(Fault::DropInBody).await.unwrap()).await.unwrap_err()));
        let mut carried_out = false;
        let usual = || {
            carried_out = true;
            Answer::json(200, String::new())
        };
        assert!(is_reset(&Fault::LoseAnswer.play(usual, |_| Answer::json(400, String::new())).await.unwrap_err()));
        assert!(carried_out);
    }
}
