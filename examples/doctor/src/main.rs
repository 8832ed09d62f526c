//! `auth-doctor`: says what is wrong with a configuration, step by step, and what to change.
//!
//! `cargo run -p doctor-example -- config.toml [--layer NAME] [--tenant TENANT] [--probe URL]`
//!
//! It reads the file, looks up and connects to the authorization server, asks for its metadata and for two tokens, and sends a
//! `GET` to the probe URL, if there is one. It shows no secret and no token. Nothing is sent that would use up a refresh token or
//! needs a person.
//!
//! Exit code: 0 all is well, 2 the command line or the configuration is wrong, 3 a server cannot be reached, 4 there is no token,
//! 5 the probe was not accepted.

mod advice;
mod client;
mod file;
mod probe;
mod report;
mod token;

use std::process::ExitCode;

use tower_oauth2_client::{AuthHandle, AuthLayer, SignInError, TenantId, Token, TokenError, TokenErrorKind};

use client::Watched;
use file::Loaded;
use report::Report;

/// Why it ends before all is well.
#[derive(Clone, Copy)]
pub(crate) enum Stop {
    Configuration = 2,
    Unreachable = 3,
    NoToken = 4,
    Probe = 5,
}

struct Options {
    file: String,
    layer: Option<String>,
    tenant: Option<String>,
    probe: Option<String>,
}

impl Options {
    fn read() -> Option<Self> {
        let mut words = std::env::args().skip(1);
        let (mut file, mut layer, mut tenant, mut probe) = (None, None, None, None);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--layer" => layer = Some(words.next()?),
                "--tenant" => tenant = Some(words.next()?),
                "--probe" => probe = Some(words.next()?),
                option if option.starts_with('-') => return None,
                _ if file.is_some() => return None,
                _ => file = Some(word),
            }
        }
        Some(Self { file: file?, layer, tenant, probe })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::read() else {
        eprintln!("usage: auth-doctor CONFIG.toml [--layer NAME] [--tenant TENANT]\n                   [--probe URL]");
        return ExitCode::from(2);
    };
    let report = Report::default();
    match examine(&options, &report).await {
        Ok(()) => {
            report.line(&format!("\n{}", report.verdict()));
            ExitCode::SUCCESS
        }
        Err(stop) => {
            report.line("\nSomething must be changed first: see `WRONG` above.");
            ExitCode::from(stop as u8)
        }
    }
}

async fn examine(options: &Options, report: &Report) -> Result<(), Stop> {
    report.step("configuration");
    let loaded = file::load(&options.file, options.layer.as_deref(), report)?;
    let http = client::plain(&loaded, report)?;
    let watched = Watched::new(http.clone(), loaded.has_proxy(), report.clone());
    let layer = AuthLayer::builder(loaded.config.clone()).http_client(watched.clone()).build();
    let layer = layer.map_err(|error| report.wrong(Stop::Configuration, &error.to_string(), ""))?;
    let handle = tenant_of(layer.handle(), options, &loaded, report)?;

    report.step("authorization server");
    if let Some(why) = loaded.needs_somebody() {
        find_sign_in(&handle, &loaded, &watched, report).await?;
        report.note(&format!("no token is asked for: {why}"), "");
    } else {
        ask(&handle, &loaded, &watched, report).await?;
    }
    match &options.probe {
        Some(_) if loaded.needs_somebody().is_some() => {
            report.step("probe");
            report.note("it is left out: there is no token to send", "");
            Ok(())
        }
        Some(url) => {
            report.step("probe");
            probe::send(url, &layer, http, &handle, options.tenant.as_deref(), report).await
        }
        None => Ok(()),
    }
}

fn tenant_of(handle: AuthHandle, options: &Options, loaded: &Loaded, report: &Report) -> Result<AuthHandle, Stop> {
    let Some(tenant) = &options.tenant else {
        return if loaded.needs_tenant() {
            Err(report.wrong(
                Stop::Configuration,
                "each tenant has its own token",
                "say for which one: --tenant TENANT",
            ))
        } else {
            Ok(handle)
        };
    };
    match TenantId::new(tenant) {
        Ok(tenant) if loaded.needs_tenant() => Ok(handle.for_tenant(&tenant)),
        Ok(_) => Ok(handle),
        Err(error) => Err(report.wrong(Stop::Configuration, &error.to_string(), "")),
    }
}

/// Two tokens, one after the other, and what they are like.
async fn ask(handle: &AuthHandle, loaded: &Loaded, watched: &Watched, report: &Report) -> Result<(), Stop> {
    let first = handle.token().await.map_err(|error| failed(&error, loaded, watched, report))?;
    report.ok("a token came");
    report.step("token");
    token::describe(&first, loaded, watched, report);
    // A refresh token that came along would be used up by the second request.
    if first.refresh_token().is_some() {
        report.ok("a refresh token came with it; no second token is asked for");
        return Ok(());
    }
    handle.invalidate();
    match handle.token().await {
        Ok(second) => compare(&first, &second, report),
        Err(error) => {
            report.note(&format!("a second token request failed: {error}"), "the server may limit how many there are")
        }
    }
    Ok(())
}

fn compare(first: &Token, second: &Token, report: &Report) {
    if first.access_token() == second.access_token() {
        report.note(
            "a second request brought the same token: the server hands it out until it expires",
            "renewing early brings nothing new: renew = \"at_expiry\"; where the token is a JWT, expiry = \"jwt_exp\"",
        );
    } else {
        report.ok("a second request brought another token");
    }
}

/// What can be looked at without a person.
async fn find_sign_in(handle: &AuthHandle, loaded: &Loaded, watched: &Watched, report: &Report) -> Result<(), Stop> {
    if let Some(url) = loaded.text("token_url") {
        watched.reach(url).await.map_err(|()| Stop::Unreachable)?;
    }
    if loaded.text("issuer").is_some() && loaded.signs_in_by_code() {
        let found: Result<_, SignInError> = handle.discover_sign_in().await;
        if let Err(error) = found {
            return Err(match error.token_error() {
                Some(error) => failed(error, loaded, watched, report),
                None => report.wrong(Stop::NoToken, &error.to_string(), ""),
            });
        }
        report.ok("its metadata name where people sign in");
    }
    Ok(())
}

/// Tells a failure, unless the connection's was told already.
fn failed(error: &TokenError, loaded: &Loaded, watched: &Watched, report: &Report) -> Stop {
    if watched.is_unreachable() {
        return Stop::Unreachable;
    }
    let stop = match error.kind() {
        TokenErrorKind::Unreachable | TokenErrorKind::Timeout => Stop::Unreachable,
        TokenErrorKind::CredentialsUnavailable => Stop::Configuration,
        _ => Stop::NoToken,
    };
    report.wrong(stop, &error.to_string(), &advice::after(error, loaded, watched));
    if let Some(cause) = advice::transport(error) {
        report.more(&cause);
    }
    if let Some(description) = error.error_description() {
        report.more(&format!("the server's words: {description}"));
    }
    stop
}
