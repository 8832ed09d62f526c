//! The whole path: a person signs in, the API is called, the token expires and is renewed. A test drives it, too.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, Method, Request, redirect};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, both, serve};
use tower_oauth2_client::{Auth, AuthLayer, SignIn, TokenErrorKind, providers};

/// With `manual` somebody opens the URL in a browser; without, one that is built in does, and its owner agrees.
///
/// Gives the requests that the authorization server saw, in order: method, path and grant.
pub(crate) async fn run(manual: bool) -> Result<Vec<String>, Box<dyn Error>> {
    // Spry, on this machine: as strict as the real one, with a clock that can be moved.
    let clock = TestClock::new();
    let spry = AuthServer::spry(clock.clone()).client("my-client", "my-secret").issue_refresh_tokens();
    let server = serve(both(&spry, &Api::new(&spry))).await?;

    // The browser will bring the code here. In production the port is fixed, since the redirect URI is registered with Spry.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let redirect_uri = format!("http://{}/callback", listener.local_addr()?);

    let cfg = providers::spry_authorization_code(server.origin(), redirect_uri, "my-client", "my-secret")
        .clock(clock.clone())
        .build()?;
    let layer = AuthLayer::new(cfg);
    let auth = layer.handle();
    let http = Client::builder().redirect(redirect::Policy::none()).no_proxy().build()?;
    let client = ServiceBuilder::new().layer(layer).service(http);

    let patients = server.uri("/apis/v2/patients");
    match get(&client, &patients).await {
        Err(error) if needs_sign_in(&error) => println!("nobody has signed in yet"),
        other => return Err(format!("a request without a sign-in: {other:?}").into()),
    }

    let sign_in = auth.sign_in()?;
    println!("please open {}", sign_in.url());
    let opened = (!manual).then(|| tokio::spawn(browse(sign_in.url().to_owned())));
    receive(&listener, sign_in).await?;
    if let Some(opened) = opened {
        println!("the browser shows: {}", opened.await??);
    }

    println!("signed in: {}", get(&client, &patients).await?);
    let token = auth.token().await?;
    println!("for the clinics {}", token.extra().get("clinic_id_list").ok_or("no clinics")?);

    println!("(an hour passes)");
    clock.advance(Duration::from_secs(3600));
    println!("renewed: {}", get(&client, &patients).await?);
    if auth.token().await?.access_token() == token.access_token() {
        return Err("the token was not renewed".into());
    }

    let seen = spry.sign_in_requests().into_iter().chain(spry.requests()).map(|request| {
        let grant = request.param("grant_type").unwrap_or_else(|| "a person signs in".into());
        format!("{} {} ({grant})", request.method, request.uri.path())
    });
    Ok(seen.collect())
}

/// Waits for the browser, and ends the sign-in with what it brings.
async fn receive(listener: &TcpListener, sign_in: SignIn) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let target = line.split(' ').nth(1).unwrap_or_default();
        // Browsers ask for an icon, too.
        if !target.starts_with("/callback") {
            answer(&mut stream, "404 Not Found", "").await?;
            continue;
        }
        let result = sign_in.finish(target).await;
        let page = match &result {
            Ok(()) => "You are signed in. You can close this window.",
            Err(_) => "That did not work. Please begin again.",
        };
        answer(&mut stream, "200 OK", page).await?;
        return Ok(result?);
    }
}

async fn answer(stream: &mut BufReader<tokio::net::TcpStream>, status: &str, page: &str) -> std::io::Result<()> {
    // Unread headers would break the connection before the page arrives.
    let mut header = String::new();
    while stream.read_line(&mut header).await? > 2 {
        header.clear();
    }
    let length = page.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{page}").as_bytes()).await?;
    stream.shutdown().await
}

/// What a browser does. Spry's page, where the person would agree, answers with the redirect at once.
async fn browse(url: String) -> reqwest::Result<String> {
    Client::builder().no_proxy().build()?.get(url).send().await?.error_for_status()?.text().await
}

async fn get(client: &Auth<Client>, url: &str) -> Result<http::StatusCode, tower_oauth2_client::Error> {
    let url = url.parse().map_err(|error| tower_oauth2_client::Error::Request(Box::new(error)))?;
    Ok(client.clone().oneshot(Request::new(Method::GET, url)).await?.status())
}

fn needs_sign_in(error: &tower_oauth2_client::Error) -> bool {
    error.token().is_some_and(|error| error.kind() == TokenErrorKind::SignInAgain)
}
