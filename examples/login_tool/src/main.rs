//! A command-line tool whose users sign in once for all its processes: `login`, `call URL`, `logout`, and `demo`, which runs
//! the others as processes against servers on this machine.
//!
//! Tokens are in files of the user's (`FileStore`), encrypted with a key from the operating system's keychain. Processes
//! share them: a login or a logout in one is seen by the others at their next call, and one of them renews for all.

mod demo;

use std::env;
use std::error::Error;
use std::path::PathBuf;

use keyring::Entry;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::store::{Encrypted, EncryptionKeys, FileStore};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthLayer, AuthorizationCode, ClientAuth, LoopbackRedirect, Secret, TokenErrorKind,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["login"] => login().await,
        ["call", url] => call(url).await,
        ["logout"] => logout().await,
        ["demo"] => demo::run().await,
        _ => Err("use `login`, `call URL`, `logout` or `demo`; LOGIN_TOOL_FLOW=device signs in on another device".into()),
    }
}

/// A setting of the tool; a real one has them built in.
fn setting(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("{name} is not set").into())
}

fn uses_device() -> bool {
    env::var("LOGIN_TOOL_FLOW").is_ok_and(|flow| flow == "device")
}

/// The key that tokens are encrypted with: made at the first use, and kept by the operating system.
fn key() -> Result<EncryptionKeys> {
    if let Ok(key) = env::var("LOGIN_TOOL_KEY") {
        // Of the demonstration, which should leave nothing in anybody's keychain.
        return Ok(EncryptionKeys::from_base64(&key)?);
    }
    let entry = Entry::new("tower-oauth2-client login tool", "token encryption key")?;
    let bytes = match entry.get_secret() {
        Ok(bytes) => bytes,
        Err(keyring::Error::NoEntry) => {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
            entry.set_secret(&bytes)?;
            // Another process may have made one at the same time: the one that is there counts.
            entry.get_secret().map_err(|_| "the keychain of this machine keeps nothing; see docs/one-login.md")?
        }
        Err(error) => return Err(error.into()),
    };
    let key = <[u8; 32]>::try_from(bytes).map_err(|_| "what the keychain has is no key of this tool's")?;
    Ok(EncryptionKeys::new([Secret::new(key)])?)
}

/// The layer of every command: what it is made of tells whose tokens these are, so that it is the same in all of them.
fn layer(redirect_uri: &str) -> Result<AuthLayer> {
    let server = setting("LOGIN_TOOL_SERVER")?;
    let client = ClientAuth::none("login-tool");
    let cfg = if uses_device() {
        AuthConfig::device(format!("{server}/token"), client)
            .device_authorization_url(format!("{server}/device_authorization"))
    } else {
        let code = AuthorizationCode::new(format!("{server}/authorize"), redirect_uri);
        AuthConfig::authorization_code(format!("{server}/token"), client, code)
    };
    // One client registration and one directory serve all accounts, so that each must be named.
    let account = env::var("LOGIN_TOOL_ACCOUNT").unwrap_or_else(|_| "main".to_owned());
    let cfg = cfg.account(account).scopes(["read"]).origin(setting("LOGIN_TOOL_API")?).build()?;
    let files = FileStore::new(PathBuf::from(setting("LOGIN_TOOL_DIRECTORY")?));
    Ok(AuthLayer::builder(cfg).store(Encrypted::new(files, key()?)).build()?)
}

async fn login() -> Result<()> {
    let redirect = LoopbackRedirect::bind().await?;
    let auth = layer(&redirect.uri())?.handle();
    if uses_device() {
        let sign_in = auth.sign_in_on_device().await?;
        println!("open {} and enter {}", sign_in.verification_uri(), sign_in.user_code());
        sign_in.wait().await?;
    } else {
        let sign_in = auth.sign_in()?;
        println!("open {}", sign_in.url());
        redirect.wait(sign_in).await?;
    }
    println!("signed in");
    // A token that is being stored is not lost with the process.
    auth.shutdown().await;
    Ok(())
}

async fn call(url: &str) -> Result<()> {
    let layer = layer("http://127.0.0.1/callback")?;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
    let client: Auth<reqwest::Client> = layer.layer(http);
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
    match client.oneshot(request).await {
        Ok(response) => println!("{}", response.status().as_u16()),
        Err(error) if error.token().is_some_and(|error| error.kind() == TokenErrorKind::SignInAgain) => {
            println!("nobody is signed in; use `login`");
        }
        Err(error) => return Err(error.into()),
    }
    layer.handle().shutdown().await;
    Ok(())
}

async fn logout() -> Result<()> {
    let auth = layer("http://127.0.0.1/callback")?.handle();
    auth.forget().await?;
    println!("signed out");
    Ok(())
}
