//! Nothing that a layer with a store says tells a secret.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::time::sleep;
use tower_oauth2_client::test_util::Fault;
use tower_oauth2_client::{AuthConfig, ClientAuth, RefreshToken, Secret, Token};

use crate::world::{API, Call, HOUR, TOKEN_URL, Trouble, World};

/// Behaviours 103 and 104.
#[tokio::test(start_paused = true)]
async fn events_errors_and_debug_tell_no_secret_whatever_fails() {
    let said = Said::default();
    // For the whole process: an event that another thread comes to first would stay off for a subscriber of one thread.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(|| SAID_HERE.with_borrow(Clone::clone))
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    SAID_HERE.set(said.clone());
    for call in [Call::Load, Call::Lease, Call::Save, Call::Renew, Call::Release] {
        for trouble in [Trouble::Fail, Trouble::LoseAnswer] {
            let world = World::new();
            let client_auth = ClientAuth::basic("id", "canary-secret");
            let cfg = AuthConfig::refresh_token(TOKEN_URL, client_auth, "canary-first").origin(API);
            let process = world.process(cfg.clock(world.clock.clone()).token_param("key", "canary-param"));
            let token = Token::bearer("canary-access").unwrap().with_expires_in(HOUR);
            let token = token.with_refresh_token(RefreshToken::Replace(Secret::from("canary-refresh")));
            world.store.trouble(call, trouble);
            said.add(format!("{:?}", process.handle.set_token(token).await));
            process.handle.invalidate();
            world.auth.script([Fault::error("invalid_grant"), Fault::LoseAnswer]);
            for _ in 0..3 {
                if let Err(error) = process.handle.token().await {
                    said.add(format!("{error} {error:?}"));
                }
                sleep(HOUR).await;
            }
            said.add(format!("{:?} {:?} {:?}", process.handle.stats(), world.store.inner, world.store.last_key()));
        }
    }
    let said = said.0.lock().unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("token store failed") && said.contains("Unavailable"));
    assert!(!said.contains("canary"), "{}", said.lines().find(|line| line.contains("canary")).unwrap());
}

thread_local! {
    /// What is said on this thread. The other tests' is kept and read by nobody.
    static SAID_HERE: RefCell<Said> = RefCell::default();
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn add(&self, text: String) {
        self.0.lock().unwrap().extend_from_slice(text.as_bytes());
    }
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
