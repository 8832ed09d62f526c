//! A client as many write it by hand: the token in a file, a mutex around its renewal. For comparison.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tower::ServiceExt as _;
use tower_oauth2_client::Clock as _;

use crate::worker::{FileClock, Pauses, PausingClient};

pub(crate) struct Naive {
    pub(crate) file: PathBuf,
    pub(crate) token_url: String,
    pub(crate) refresh_token: String,
    pub(crate) client: PausingClient,
    pub(crate) pauses: Pauses,
    pub(crate) clock: FileClock,
    pub(crate) renewing: Mutex<()>,
}

impl Naive {
    /// The token in the file while it lives; one request at a time renews it.
    pub(crate) async fn token(&self, renew: bool) -> Result<String, String> {
        let _renewing = self.renewing.lock().await;
        let saved: Value =
            std::fs::read(&self.file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let now = self.clock.now().wall.duration_since(UNIX_EPOCH).unwrap();
        let lives = saved["expires_at"].as_u64().is_some_and(|at| now < Duration::from_secs(at));
        if let (Some(token), true, false) = (saved["access_token"].as_str(), lives, renew) {
            return Ok(token.to_owned());
        }
        let refresh_token = saved["refresh_token"].as_str().unwrap_or(&self.refresh_token);
        let form = match refresh_token {
            "" => "grant_type=client_credentials&client_id=id&client_secret=secret".to_owned(),
            token => format!("grant_type=refresh_token&refresh_token={token}&client_id=id&client_secret=secret"),
        };
        let answer = self.post(form).await?;
        let Some(token) = answer["access_token"].as_str().map(str::to_owned) else {
            return Err(answer.to_string());
        };
        let next = answer["refresh_token"].as_str().unwrap_or(refresh_token);
        let expires_at = now.as_secs() + answer["expires_in"].as_u64().unwrap_or(3600);
        let saved = json!({ "access_token": token, "refresh_token": next, "expires_at": expires_at });
        let temporary = self.file.with_extension(format!("{}", std::process::id()));
        std::fs::write(&temporary, saved.to_string()).unwrap();
        std::fs::rename(&temporary, &self.file).unwrap();
        self.pauses.pause("saved").await;
        Ok(token)
    }

    async fn post(&self, form: String) -> Result<Value, String> {
        let request = Request::post(&self.token_url).header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(Full::new(Bytes::from(form))).unwrap();
        let response = self.client.clone().oneshot(request).await.map_err(|error| error.to_string())?;
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}
