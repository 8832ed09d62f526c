//! This crate as a subject.

use std::sync::Arc;

use futures_util::FutureExt;
use http::{Request, Response};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::Body;
use tower_oauth2_client::{
    AuthConfig, AuthHandle, AuthLayer, AuthOutcome, BoxError, ClientAuth, Error, ExistingAuthorization, ExpirySource,
    Forbidden, RefreshFailed, RefreshToken, Renew, Secret, SkipAuth, Tenant, Token, UnlistedOrigin,
};

use crate::subject::{
    API, CLIENT_ID, Client, Control, Failure, NotOffered, Offered, Outcome, SECRET, Setting, Settings, Setup, Subject,
    TOKEN_URL, Tenancy, World,
};

pub struct Ours;

impl Subject for Ours {
    fn name(&self) -> &'static str {
        "tower-oauth2-client"
    }

    fn client_over(&self, inner: Client, world: &World, settings: &Settings) -> Option<Setup> {
        let secret = settings.secret.as_deref().unwrap_or(SECRET);
        let client_auth = match settings.more.contains(&Setting::SecretInBody) {
            true => ClientAuth::body(CLIENT_ID, secret),
            false => ClientAuth::basic(CLIENT_ID, secret),
        };
        let mut builder = match &settings.refresh_token {
            None => AuthConfig::client_credentials(TOKEN_URL, client_auth),
            Some(token) => AuthConfig::refresh_token(TOKEN_URL, client_auth, token.as_str()),
        };
        builder = builder.origin(API).clock(world.clock.clone()).replay(settings.replay);
        builder = match settings.tenant {
            Tenancy::None => builder,
            Tenancy::SharedToken(header) => builder.tenant(Tenant::header(header)),
            Tenancy::TokenPerTenant(header) => builder.tenant(Tenant::header(header).token_header(header)),
        };
        for setting in &settings.more {
            builder = match setting {
                Setting::JwtExpOnly => builder.expiry([ExpirySource::JwtExp]),
                Setting::DiscardExpired => builder.discard_expired(true),
                Setting::RefreshAtExpiry => builder.renew(Renew::AtExpiry),
                Setting::ForbiddenIfExpired => builder.on_forbidden(Forbidden::IfExpired),
                Setting::KeepCallersAuthorization => builder.existing_authorization(ExistingAuthorization::Keep),
                Setting::RejectCallersAuthorization => builder.existing_authorization(ExistingAuthorization::Reject),
                Setting::PassForeign => builder.on_unlisted_origin(UnlistedOrigin::PassWithoutCredentials),
                Setting::MaxReplayBytes(bytes) => builder.max_replay_bytes(*bytes),
                Setting::SetIfAbsent(name, value) => builder.default_header(*name, *value),
                Setting::PermanentFailurePause(pause) => builder.permanent_failure_pause(*pause, *pause),
                Setting::MaxPartitions(max) => builder.max_partitions(*max),
                Setting::ScopesPerRequest | Setting::SecretInBody => builder,
            };
        }
        let cfg = builder.build().unwrap();
        let token_client =
            settings.token_client.clone().unwrap_or_else(|| BoxCloneSyncService::new(world.auth.clone()));
        let token_client = token_client.map_request(|request: http::Request<http_body_util::Full<bytes::Bytes>>| {
            use http_body_util::BodyExt;
            request.map(|body| body.map_err(|never| match never {}).boxed_unsync())
        });
        let layer = AuthLayer::builder(cfg).http_client(token_client).build().unwrap();
        let client = client_of(&layer, inner);
        let control = Arc::new(Handle(layer.handle(), layer));
        Some(Setup { client, control })
    }
}

fn client_of(layer: &AuthLayer, inner: Client) -> Client {
    BoxCloneSyncService::new(layer.layer(inner).map_err(|error| -> BoxError { error.into() }))
}

struct Handle(AuthHandle, AuthLayer);

impl Control for Handle {
    fn invalidate(&self) -> Offered {
        self.0.invalidate();
        Ok(())
    }

    fn replace_secret(&self, secret: &str) -> Offered {
        self.0.replace_credentials(ClientAuth::basic(CLIENT_ID, secret)).unwrap();
        Ok(())
    }

    fn hand_in(&self, access_token: &str, refresh_token: Option<&str>) -> Offered {
        let mut token = Token::bearer(access_token).unwrap();
        if let Some(refresh_token) = refresh_token {
            token = token.with_refresh_token(RefreshToken::Replace(Secret::from(refresh_token)));
        }
        // Without a store it waits for nothing.
        self.0.set_token(token).now_or_never().unwrap().unwrap();
        Ok(())
    }

    fn partitions(&self) -> Offered<usize> {
        Ok(self.0.stats().partitions)
    }

    fn outcome(&self, response: &Response<Body>) -> Offered<Outcome> {
        let outcome = response.extensions().get::<AuthOutcome>().cloned().unwrap_or_default();
        Ok(Outcome {
            refreshed: outcome.refreshed,
            resent: outcome.resent,
            same_token: outcome.same_token,
            suppressed: outcome.suppressed,
            not_replayable: outcome.not_replayable,
            failed: response.extensions().get::<RefreshFailed>().is_some(),
        })
    }

    fn skipping(&self, mut request: Request<Body>) -> Offered<Request<Body>> {
        request.extensions_mut().insert(SkipAuth);
        Ok(request)
    }

    fn failure(&self, error: &BoxError) -> Offered<Failure> {
        let error = error.downcast_ref::<Error>().ok_or(NotOffered)?;
        Ok(Failure {
            no_token: error.token().is_some(),
            is_retryable: error.is_retryable(),
            retry_after: error.retry_after(),
            class: error.token().map_or_else(|| error.to_string(), |token| format!("{:?}", token.kind())),
        })
    }
    fn another_client(&self, inner: Client) -> Offered<Client> {
        Ok(client_of(&self.1, inner))
    }
}
