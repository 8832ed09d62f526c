//! The way to a server, on which everything can be lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::server::Redis;

pub(crate) struct Way {
    addr: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    trouble: watch::Sender<Trouble>,
}

#[derive(Clone, Copy)]
enum Trouble {
    /// Both ends stay open, and hear nothing.
    Silence,
    /// The next answer does not arrive: the connection breaks instead.
    CutAnswer,
}

impl Way {
    pub(crate) async fn to(redis: &Redis) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (addr, server) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(redis.addr())));
        let leads_to = server.clone();
        let (trouble, troubles) = watch::channel(Trouble::Silence);
        tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let mut troubles = troubles.clone();
                troubles.mark_unchanged();
                let server = *leads_to.lock().unwrap();
                // While nobody listens there, whoever connects is turned away.
                let Ok(there) = TcpStream::connect(server).await else { continue };
                tokio::spawn(pass(here, there, troubles));
            }
        });
        Self { addr, server, trouble }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// New connections lead to another server; those that stand do not change, as behind a name that is looked up anew.
    pub(crate) fn lead_to(&self, redis: &Redis) {
        *self.server.lock().unwrap() = redis.addr();
    }

    /// From now on nothing passes over the connections that stand. New ones work.
    pub(crate) fn lose(&self) {
        self.trouble.send_replace(Trouble::Silence);
    }

    /// The next thing asked over a connection that stands is heard, and its answer is not.
    pub(crate) fn cut_answer(&self) {
        self.trouble.send_replace(Trouble::CutAnswer);
    }
}

async fn pass(mut here: TcpStream, mut there: TcpStream, mut troubles: watch::Receiver<Trouble>) {
    tokio::select! {
        _ = copy_bidirectional(&mut here, &mut there) => return,
        changed = troubles.changed() => changed.unwrap_or_default(),
    }
    let trouble = *troubles.borrow();
    match trouble {
        Trouble::Silence => std::future::pending().await,
        Trouble::CutAnswer => {
            let ((mut from_here, _here), (mut from_there, mut to_there)) = (here.split(), there.split());
            let mut answer = [0; 1];
            tokio::select! {
                _ = copy(&mut from_here, &mut to_there) => {}
                _ = from_there.read(&mut answer) => {}
            }
        }
    }
}
