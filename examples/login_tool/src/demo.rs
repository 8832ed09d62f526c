//! The tool against servers on this machine: each command is a process of its own.

use std::env;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, serve};

use crate::Result;

/// For the demonstration alone; of the tool's own key the keychain takes care.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[derive(Clone)]
struct Tool {
    server: String,
    api: String,
    directory: PathBuf,
    flow: &'static str,
    account: &'static str,
}

impl Tool {
    fn start(&self, args: &[&str]) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
        let mut command = Command::new(env::current_exe()?);
        command.args(args).stdout(Stdio::piped()).kill_on_drop(true);
        command.env("LOGIN_TOOL_SERVER", &self.server).env("LOGIN_TOOL_API", &self.api);
        command.env("LOGIN_TOOL_DIRECTORY", &self.directory).env("LOGIN_TOOL_FLOW", self.flow);
        command.env("LOGIN_TOOL_ACCOUNT", self.account);
        if env::var_os("LOGIN_TOOL_KEYCHAIN").is_none() {
            command.env("LOGIN_TOOL_KEY", KEY);
        }
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok((child, BufReader::new(output).lines()))
    }

    async fn line(&self, args: &[&str]) -> Result<String> {
        let (mut child, mut lines) = self.start(args)?;
        let line = lines.next_line().await?.unwrap_or_default();
        if !child.wait().await?.success() {
            return Err(format!("{args:?} failed").into());
        }
        println!("{} {}: {line}", self.flow, args[0]);
        Ok(line)
    }

    async fn login(&self, server: &AuthServer) -> Result<()> {
        let (mut child, mut lines) = self.start(&["login"])?;
        let asked = lines.next_line().await?.ok_or("the login says nothing")?;
        let words: Vec<&str> = asked.split(' ').collect();
        if self.flow == "device" {
            let code = words.last().ok_or("no code")?;
            if !server.approve_device(code) {
                return Err("the code is not known".into());
            }
        } else {
            // What the person's browser does; they agree at once.
            let browser = reqwest::Client::builder().no_proxy().build()?;
            browser.get(*words.last().ok_or("no URL")?).send().await?.error_for_status()?;
        }
        let done = lines.next_line().await?.unwrap_or_default();
        println!("{} login: {done}", self.flow);
        if child.wait().await?.success() { Ok(()) } else { Err("the login failed".into()) }
    }
}

pub(crate) async fn run() -> Result<()> {
    let auth = AuthServer::new(TestClock::new()).issue_refresh_tokens();
    let (server, api) = (serve(auth.clone()).await?, serve(Api::new(&auth)).await?);
    for flow in ["browser", "device"] {
        let directory = env::temp_dir().join(format!("login-tool-{}-{flow}", std::process::id()));
        let tool = Tool { server: server.origin(), api: api.origin(), directory, flow, account: "main" };
        let items = api.uri("/items");
        let nobody = "nobody is signed in; use `login`";
        let call = ["call", items.as_str()];
        expect(tool.line(&call).await?, nobody)?;
        tool.login(&auth).await?;
        // Two other processes, with the login of the first.
        expect(tool.line(&call).await?, "200")?;
        expect(tool.line(&call).await?, "200")?;
        let other = Tool { account: "other", ..tool.clone() };
        expect(other.line(&call).await?, nobody)?;
        expect(tool.line(&["logout"]).await?, "signed out")?;
        expect(tool.line(&call).await?, nobody)?;
        std::fs::remove_dir_all(&tool.directory)?;
    }
    println!("token requests: {}", auth.token_requests());
    Ok(())
}

fn expect(line: String, expected: &str) -> Result<()> {
    if line == expected { Ok(()) } else { Err(format!("{line:?} in place of {expected:?}").into()) }
}
